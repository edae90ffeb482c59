"""The tables of docs/serving.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any


def tables(results: Mapping[str, Any]) -> str:
    """Return Markdown tables; each figure is the median of the rounds."""
    made = []
    if "equality" in results:
        found = results["equality"]
        said = ", ".join(f"{name} {value:.2g}" for name, value in found.items() if name.startswith("largest"))
        made.append(f"{found['rows']} real rows, {', '.join(found['columns'])}: {said}.")
    if "overhead" in results:
        lines = ["| one client, one row | service p50 | bare session p50 | difference p50 |", "|---|---|---|---|"]
        for name, found in _models(results["overhead"]):
            figures = (found[f"{what} p50 ms"] for what in ("service", "bare session", "difference"))
            lines.append(f"| {name} | " + " | ".join(f"{figure:.2f} ms" for figure in figures) + " |")
        made.append("\n".join(lines))
    if "score" in results:
        for name, found in _models(results["score"]):
            one, many = median(found["one by one"]), median(found["score"])
            said = f"`{name}`: one by one in the bare session {one:.1f} rows/s, `score` on all rows {many:.1f} rows/s."
            made.append(said + "\n\n" + _loads({"instructmining": found["service"]}))
    if "embeddings" in results:
        found = results["embeddings"]
        made.append(_loads({"instructmining": found["service"], "infinity-emb": found.get("infinity", [])}))
    return "\n\n".join(made)


def _models(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, each) for name, each in found.items() if isinstance(each, dict)]


def _loads(sides: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    lines = ["| clients | server | requests/s | p50 | p95 | p99 | not answered |", "|---|---|---|---|---|---|---|"]
    there = {name: rounds for name, rounds in sides.items() if rounds}
    for place in range(len(next(iter(there.values()))[0])):
        for name, rounds in there.items():
            each = [loads[place] for loads in rounds]
            spread = " | ".join(f"{median(load[f'p{share}_ms'] for load in each):.1f} ms" for share in (50, 95, 99))
            lost = sum(load["refused"] + load["failed"] for load in each)
            speed = median(load["per_second"] for load in each)
            lines.append(f"| {each[0]['clients']} | {name} | {speed:.1f} | {spread} | {lost} |")
    return "\n".join(lines)
