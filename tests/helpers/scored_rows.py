"""Scored rows that no model computed, for what reads scored files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson

from instructmining.rules import Rule

CAUTION = "rule 'paper-v1' was fitted with another reward model"


def scored_rows(count: int = 60, seed: int = 0) -> list[dict[str, object]]:
    """Rows as ``score --rule paper-v1`` writes them, with a source; some are truncated, one has a null."""
    rng = np.random.default_rng(seed)
    columns = {
        "input_length": rng.integers(2, 60, count),
        "output_length": rng.integers(1, 400, count),
        "reward": rng.normal(size=count),
        "perplexity": rng.lognormal(1.5, 1.2, count),
        "knn_6": rng.uniform(0.8, 1.3, count),
    }
    predicted = Rule.load("paper-v1").predict({name: values.astype(float) for name, values in columns.items()})
    return [
        {
            "instruction": f"Question {row}",
            "input": "",
            "output": f"Answer {row}",
            "source": "web" if row % 3 else "books",
            **{name: values[row].item() for name, values in columns.items()},
            "mtld": None if row == 1 else float(row),
            "predicted_log_loss": float(predicted[row]),
            "truncated": ["embedding"] if row % 10 == 0 else [],
            "score_notes": {"mtld": "no word in the response"} if row == 1 else {},
        }
        for row in range(count)
    ]


def pair_rows(count: int = 30) -> list[dict[str, object]]:
    """Preference pairs as ``score`` writes them."""
    rng = np.random.default_rng(1)
    rows = []
    for row in range(count):
        pair: dict[str, object] = {"prompt": f"Q{row}", "chosen": f"Good {row}", "rejected": f"Bad {row}"}
        for column, least, most in (("output_length", 5, 50), ("reward", -2, 2), ("knn_6", 0.9, 1.2)):
            chosen, rejected = (round(float(value), 3) for value in rng.uniform(least, most, 2))
            pair |= {f"chosen.{column}": chosen, f"rejected.{column}": rejected, f"margin.{column}": chosen - rejected}
        rows.append(pair | {"truncated": [], "score_notes": {}})
    return rows


def write_scored(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows as JSON lines."""
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def write_run(path: Path, **more: object) -> None:
    """Write a run file that names the rule."""
    rule = Rule.load("paper-v1")
    run = {
        "started_at": "2026-11-26T12:00:00+00:00",
        "versions": {"instructmining": "0.1.0"},
        "device": "cpu (2 threads)",
        "bundle": {"name": "small", "roles": {"reward": {"id": "org/reward", "precision": "fp32"}}},
        "rule": {"id": rule.id, "digest": rule.digest},
        "caution": CAUTION,
        "settings": {"rule": "paper-v1", "inputs": ["/data/rows.jsonl"], "limit": 60},
        "counts": {"rows_out": 60},
        "seconds": {"total": 12.0},
    }
    Path(f"{path}.run.json").write_bytes(orjson.dumps(run | more))
