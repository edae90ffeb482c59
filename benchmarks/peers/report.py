"""What the comparison found: a table, ``results/peers-<device>.json``, docs/performance.md between its two marks."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, processor, results_file
from benchmarks.peers.lines import Entry, Line, Run

MARKS = ("<!-- speed -->", "<!-- /speed -->")


def table(lines: Sequence[Line]) -> Iterator[str]:
    """In Markdown."""
    yield "| what | against | found | wanted | | |"
    yield "|---|---|--:|--:|---|---|"
    for line in lines:
        note = line.note.strip("; ")
        verdict = f"**{line.verdict}**" if line.verdict == "short" else line.verdict
        yield f"| {line.what} | {line.against} | {_number(line.found, line)} | {_wanted(line)} | {verdict} | {note} |"


def as_json(entries: Sequence[Entry], run: Run, machine: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, every round's seconds among it; the values themselves are left out."""
    return {
        "device": machine["device"],
        "threads": run.material.threads,
        "entries": {
            entry.name: {
                **{name: value for name, value in machine.items() if name != "device"},
                "load_after": [round(load, 2) for load in os.getloadavg()],
                "rows": run.material.rows,
                "vectors": run.material.vectors,
                "rounds": run.rounds,
                "lines": [{**asdict(line), "verdict": line.verdict} for line in entry.lines],
                "facts": entry.facts,
                "sides": [
                    {name: value for name, value in asdict(of).items() if name not in {"values", "every"} and value}
                    for of in entry.timed
                ],
            }
            for entry in entries
        },
    }


def write(content: dict[str, Any], order: Sequence[str]) -> Path:
    """The JSON file, in which these entries take the place of older ones, and the page's table of all of them."""
    out = results_file("peers")
    if out.exists():
        content["entries"] = json.loads(out.read_text(encoding="utf-8"))["entries"] | content["entries"]
    content["entries"] = {entry: content["entries"][entry] for entry in order if entry in content["entries"]}
    out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_page(ROOT / "docs" / "performance.md", content)
    return out


def write_page(page: Path, content: dict[str, Any]) -> bool:
    """The short table between the marks; False, and nothing is written, where they are missing."""
    text = page.read_text(encoding="utf-8")
    begin, end = (text.find(mark) for mark in MARKS)
    if begin < 0 or end < begin:
        return False
    entries = content["entries"].values()
    lines = [
        Line(**{name: value for name, value in line.items() if name != "verdict"})
        for entry in entries
        for line in entry["lines"]
    ]
    counts = sorted({entry["rows"] for entry in entries})
    heading = (
        f"{content['device']}, {content['threads']} threads, {' or '.join(map(str, counts))} real rows, "
        f"{max(entry['date'] for entry in entries)[:10]}; each against the peer at its best setting, side by side:"
    )
    rows = [
        f"| {line.what} | {line.against} | {_number(line.found, line)} | {_wanted(line)}"
        f"{', **short**' if line.verdict == 'short' else ''} |"
        for line in lines
    ]
    inside = "\n".join([heading, "", "| what | against | found | wanted |", "|---|---|--:|--:|", *rows])
    page.write_text(f"{text[: begin + len(MARKS[0])]}\n{inside}\n{text[end:]}", encoding="utf-8")
    return True


def machine() -> dict[str, Any]:
    """Where and when; the load is that of others, so ask before the run."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "device": processor(),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit.stdout.strip(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def _number(value: float | None, line: Line) -> str:
    if value is None:
        return "–"
    digits = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
    return digits + (line.unit if line.unit in {"x", "%"} else f" {line.unit}")


def _wanted(line: Line) -> str:
    if line.target is None:
        return ""
    if line.unit == "x" and line.at_most:
        return "1.15x or 1 ms more"
    return f"{'≤' if line.at_most else '≥'} {_number(line.target, line)}"
