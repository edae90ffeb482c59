"""Runs scorers of ODA-DataScorer on a file, one after the other, as its ``main.py`` would.

    python oda.py ODA-DataScorer/heuristic   rows.jsonl OUT MtldScorer StrLengthScorer
    python oda.py ODA-DataScorer/model_based rows.jsonl OUT IFDScorer PPLScorer --model MODEL

``main.py`` loads every scorer of the folder before it runs one, and so wants vLLM and tiktoken; this loads those named.
``OUT/pointwise_scores.jsonl`` has the form that ``main.py`` writes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Score and merge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("scorers", nargs="+")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--set", default="{}", help="further settings of the scorers, as JSON")
    options = parser.parse_args()
    rows, out = options.rows.resolve(), options.out.resolve()
    model = {"model": str(options.model.resolve())} if options.model else {}
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(options.folder)
    sys.path.insert(0, ".")
    merged: dict[object, dict[str, object]] = {}
    for name in options.scorers:
        scorer = getattr(importlib.import_module(f"scorers.{name}"), name)
        config = {"name": name, "batch_size": 1, "max_workers": 1, **model, **json.loads(options.set)}
        file = out / f"{name}.jsonl"
        scorer(config).evaluate_to_file(str(rows), str(file), resume=False)
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            merged.setdefault(record.pop("id"), {})[name] = record
    lines = [json.dumps({"id": row, "scores": scores}) for row, scores in merged.items()]
    (out / "pointwise_scores.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
