"""Scored rows in the parts of a folder, without a model that scored them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instructmining.reading.blocks import Cut
from instructmining_scale.plan import Plan

Row = dict[str, Any]


def scored_rows(count: int, seed: int = 0, *, values: int = 40) -> list[Row]:
    """Rows with few different values, so that many are equal; some are null, zero of either sign, or lack lengths."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        loss = rng.choice([rng.randrange(values) / 7, rng.randrange(values) / 7, 0.0, -0.0, -1e300, 1.5e-320, None])
        row: Row = {"id": number, "text": "ä" * rng.randrange(9), "kind": rng.choice(["a", "b", "c", None, 7, True])}
        row |= {"input_length": rng.randrange(9), "output_length": rng.choice([0, 3, 50, 50, None])}
        rows.append(row | {"predicted_log_loss": loss, "perplexity": rng.random() * 50})
    return rows


def write_parts(folder: Path, parts: Sequence[Sequence[Row]], *, prefix: str = "") -> Path:
    """Write the parts and their plan; returns the file that they merge to, which lies next to the folder."""
    folder.mkdir(parents=True)
    columns = ["input_length", "output_length", "perplexity", "predicted_log_loss"]
    identity = {"columns": columns, "knn": {"against": None}, "prefix": prefix}
    plan = Plan(len(parts), ".jsonl", [("rows.jsonl", 1)], [Cut(0, at) for at in range(1, len(parts))], identity)
    plan = plan.kept_in(folder)
    merged = folder.with_name(f"{folder.name}.jsonl")
    with merged.open("wb") as file:
        for number, rows in enumerate(parts, 1):
            named = ({f"{prefix}{name}" if name in columns else name: row[name] for name in row} for row in rows)
            content = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in named)
            file.write(content)
            part = folder / plan.part(number, spooled=False)
            part.write_bytes(content)
            run = {
                "identity": {"plan": plan.digest, "shard": number},
                "counts": {"rows_out": len(rows), "rows_rejected": 0},
                "files": [["", len(content), hashlib.sha256(content).hexdigest()]],
            }
            Path(f"{part}.run.json").write_text(json.dumps(run), encoding="utf-8")
    return merged
