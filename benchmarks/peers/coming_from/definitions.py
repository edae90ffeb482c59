"""What wana, ODA-DataScorer and Data-Juicer compute of the same rows with the same model, by their own code.

    python definitions.py short.jsonl MODEL ODA-DataScorer OUT.jsonl

Their scorers are called in one process, since most of the time goes into starting. Each line of OUT has the id of a row
and one number for each quantity. A tool that raises is named with its error.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

Scores = dict[str, float]
Rows = list[dict[str, str]]


def main(rows_file: str, model: str, oda: str, out: str) -> None:
    """Score the rows, tool by tool."""
    torch.set_num_threads(1)
    rows: Rows = [json.loads(line) for line in Path(rows_file).read_text(encoding="utf-8").splitlines()]
    found: dict[str, Scores] = {row["id"]: {} for row in rows}
    for name, quantities in (("wana", wana), ("ODA-DataScorer", datascorer), ("Data-Juicer", data_juicer)):
        try:
            for row, scores in quantities(rows, model, oda):
                found[row] |= scores
                print(name, row, scores, flush=True)
        except (ImportError, TypeError, ValueError, RuntimeError) as error:
            print(f"{name}: {error!r}", flush=True)
        lines = [json.dumps({"id": row} | scores) for row, scores in found.items()]
        Path(out).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def wana(rows: Rows, model: str, _: str) -> Iterator[tuple[str, Scores]]:
    """As ``wana score --provider transformers_cpu --model MODEL``."""
    parse_record = importlib.import_module("wana.adapters.io.jsonl").parse_record
    provider = importlib.import_module("wana.adapters.logprob.transformers_cpu").TransformersCPU(model)
    scorer = importlib.import_module("wana.adapters.scoring.ifd").IFDScorer(provider)
    for row in rows:
        yield row["id"], {f"wana.{score.name}": score.value for score in scorer.score(parse_record(row, row["id"]))}


def datascorer(rows: Rows, model: str, oda: str) -> Iterator[tuple[str, Scores]]:
    """As its ``main.py`` with IFDScorer and PPLScorer, in batches of one."""
    sys.path.insert(0, str(Path(oda).resolve() / "model_based"))
    for name in ("IFDScorer", "PPLScorer"):
        scorer_class = getattr(importlib.import_module(f"scorers.{name}"), name)
        scorer = scorer_class({"name": name, "model": model, "batch_size": 1})
        for row in rows:
            joined = {"instruction": _prompt(row), "output": row["output"]}
            yield row["id"], {f"oda.{name}": scorer.score_item(joined)}


def data_juicer(rows: Rows, model: str, _: str) -> Iterator[tuple[str, Scores]]:
    """As ``dj-process`` with its two filters that use a language model, on a CPU."""
    stats = importlib.import_module("data_juicer.utils.constant").Fields.stats
    for module, name, key in (
        ("llm_perplexity_filter", "LLMPerplexityFilter", "llm_perplexity"),
        ("instruction_following_difficulty_filter", "InstructionFollowingDifficultyFilter", "ifd_score"),
    ):
        operator = getattr(importlib.import_module(f"data_juicer.ops.filter.{module}"), name)
        filter_ = operator(hf_model=model, query_template="{prompt}", response_template="{output}", accelerator="cpu")
        for row in rows:
            sample: dict[str, Any] = row | {"prompt": _prompt(row), stats: {}}
            yield row["id"], {f"dj.{key}": float(filter_.compute_stats_single(sample)[stats][key])}


def _prompt(row: dict[str, str]) -> str:
    return row["instruction"] + ("\n" + row["input"] if row["input"] else "")


if __name__ == "__main__":
    main(*sys.argv[1:])
