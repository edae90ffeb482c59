"""A run of the benchmarks as a Markdown table: ``python benchmarks/table.py [RUN.json]``.

It is printed and written to ``benchmarks/results/<device>.md``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
OURS = "ours"


def main(run: Path) -> None:
    content = json.loads(run.read_bytes())
    machine = content["machine_info"]
    text = "\n".join([*_heading(content, machine), "", *_table(content["benchmarks"])]) + "\n"
    out = RESULTS / f"{_device(machine)}.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(text, end="")
    print(f"written to {out}", file=sys.stderr)


def _device(machine: dict[str, Any]) -> str:
    """A file's name: the processor and the threads used."""
    name = f"{machine['cpu'].get('brand_raw', machine['machine'])} {machine['threads']} threads"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _heading(content: dict[str, Any], machine: dict[str, Any]) -> Iterator[str]:
    yield f"# {machine['cpu'].get('brand_raw', machine['machine'])}, {machine['threads']} threads"
    yield ""
    commit = content["commit_info"]
    yield (
        f"- {content['datetime'][:16]}, commit {commit['id'][:7]}{' with changes' if commit['dirty'] else ''}, "
        f"{machine['system']} {machine['release']}, Python {machine['python_version']}"
    )
    yield f"- {', '.join(f'{name} {number}' for name, number in machine['versions'].items())}"
    yield (
        f"- load when the run began: {machine['load_1min']} (of {machine['cpu'].get('count', '?')} processors); "
        "what else the machine did makes the figures uncertain"
    )
    yield (
        f"- model stages and the whole path: {machine['real_rows']} real Alpaca rows at even steps of length; "
        "the rest: seeded rows; float32, models loaded and warm"
    )
    yield "- ratio: the peer's median over ours, so above 1 ours is the faster; **bold**: the group's fastest peer"


def _table(benchmarks: list[dict[str, Any]]) -> Iterator[str]:
    yield "| stage | peer | median, s | IQR, s | rounds | ours is faster by |"
    yield "|---|---|--:|--:|--:|--:|"
    groups: dict[str, list[dict[str, Any]]] = {}
    for benchmark in benchmarks:
        groups.setdefault(benchmark["group"], []).append(benchmark)
    for group, members in groups.items():
        medians = {member["extra_info"]["peer"]: member["stats"]["median"] for member in members}
        others = [median for peer, median in medians.items() if peer != OURS]
        for member in members:
            peer, stats = member["extra_info"]["peer"], member["stats"]
            ratio = ""
            if peer != OURS and OURS in medians:
                ratio = f"{stats['median'] / medians[OURS]:.2f}"
                ratio = f"**{ratio}**" if stats["median"] == min(others) else ratio
            yield f"| {group} | {peer} | {stats['median']:.4g} | {stats['iqr']:.2g} | {stats['rounds']} | {ratio} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "last.json")
