"""A run of ``table.py`` as JSON and as the tables between the markers of ``docs/export.md``.

``python -m benchmarks.export.report RUN.json`` writes the tables of an earlier run again.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, results_file

PAGE = ROOT / "docs" / "export.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
PRECISIONS = ("fp32", "fp16", "int8")


def save(run: Mapping[str, Any]) -> Path:
    """The run as ``results/export-<device>.json``."""
    path = results_file("export")
    path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    return path


def write(run: Mapping[str, Any]) -> None:
    """Print a run's tables and put them into the page; those of a tiny run are only printed."""
    text = "\n".join(tables(run))
    print(text)
    if run["tiny"]:
        print("BENCH_TINY: nothing is written", file=sys.stderr)
    else:
        replace(PAGE, text)


def replace(page: Path, text: str, begin_line: str = BEGIN, end_line: str = END) -> None:
    """Put a text between two lines; what stands around them stays.

    Raises:
        SystemExit: the page lacks them.
    """
    content = page.read_text(encoding="utf-8") if page.exists() else f"{begin_line}\n{end_line}\n"
    before, begin, rest = content.partition(begin_line)
    _, end, after = rest.partition(end_line)
    if not begin or not end:
        raise SystemExit(f"{page}: wanted the lines {begin_line} and {end_line}, the tables go between them")
    page.write_text(f"{before}{begin_line}\n{text}\n{end_line}{after}", encoding="utf-8")
    print(f"written to {page}", file=sys.stderr)


def tables(run: Mapping[str, Any]) -> Iterator[str]:
    """Lines of Markdown: what was measured, the graphs, their speed, and what did not work."""
    yield from _heading(run)
    yield ""
    yield from _graphs(run["entries"])
    yield ""
    yield from _speed(run["entries"])
    failures = [
        f"- {entry['name']}, {way}: {why}" for entry in run["entries"] for way, why in sorted(entry["failed"].items())
    ]
    if failures:
        yield from ("", "Not timed, with the reason found:", "", *failures)


def _heading(run: Mapping[str, Any]) -> Iterator[str]:
    def versions(names: Mapping[str, str]) -> str:
        return ", ".join(f"{name} {number}" for name, number in names.items())

    yield (
        f"{run['cpu']}, {run['threads']} threads, {run['date']}; load when the run began {run['load_1min']}. "
        f"{versions(run['versions'])}. "
        + (f"Stock: {versions(run['stock_versions'])}." if run.get("stock_versions") else "Without the stock export.")
    )
    yield ""
    yield (
        f"{run['rows']} rows of 32 to 256 random tokens, {run['tokens']} in all; batches of at most "
        f"{run['max_batch_tokens']} padded tokens, longest first. {run['rounds']} rounds, in each of which "
        "every way runs once; medians of the times, and of the ratios within a round. "
        "For transformers (eager and sdpa attention) and stock (as exported and "
        "after onnxruntime's optimizer at O2), one by one and in batches, the fastest that gives the right numbers. "
        "What a stock graph leaves out (the NLL "
        "of logits, pooling, the odds of two words) torch does, on as many threads; it is in the time."
    )


def _graphs(entries: list[Mapping[str, Any]]) -> Iterator[str]:
    yield (
        "| model | output | nodes: stock | stock O2 | ours | fused operators in ours "
        "| export, s: stock | ours | ours fp32, MB | fp16 | int8 |"
    )
    yield "|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|"
    for entry in entries:
        nodes, seconds = entry["stock_nodes"], entry["stock_export_s"]
        fused = ", ".join(f"{name} {count}" for name, count in sorted(entry["fused"].items()))
        stock = [str(nodes[level]) if level in nodes else _absent(entry, level) for level in ("O0", "O2")]
        sizes = " | ".join(f"{entry['bytes'][name] / 1e6:.0f}" for name in PRECISIONS)
        yield (
            f"| {entry['name']} | {entry['output']} | {stock[0]} | {stock[1]} | {entry['nodes']} | {fused} "
            f"| {_number(seconds.get('O0'))} | {_number(entry['export_s'])} | {sizes} |"
        )


def _speed(entries: list[Mapping[str, Any]]) -> Iterator[str]:
    yield (
        "| model | ours fp32, s | ours int8, s | transformers, s | stock, s | fp32 is faster than transformers by "
        "| than stock by | int8 than transformers by | largest difference fp32 | int8 |"
    )
    yield "|---|--:|--:|---|---|--:|--:|--:|--:|--:|"
    for entry in entries:
        medians = {way: statistics.median(seconds) for way, seconds in entry["seconds"].items()}
        peers = {peer: _fastest(medians, peer) for peer in ("transformers", "stock")}
        said = [f"{medians[way]:.3g} ({_short(way)})" if way else "–" for way in peers.values()]
        ratios = [
            _ratio(entry["seconds"], peers[peer], ours)
            for ours, peer in (("fp32", "transformers"), ("fp32", "stock"), ("int8", "transformers"))
        ]
        differences = entry["differences"]
        yield (
            f"| {entry['name']} | {medians['ours fp32']:.3g} | {medians['ours int8']:.3g} | {' | '.join(said)} "
            f"| {' | '.join(ratios)} | {differences['ours fp32']:.0e} | {differences['ours int8']:.0e} |"
        )


def _fastest(medians: Mapping[str, float], peer: str) -> str | None:
    """A peer's fastest way."""
    own = [way for way in medians if way.startswith(peer)]
    return min(own, key=lambda way: medians[way]) if own else None


def _ratio(seconds: Mapping[str, list[float]], peer: str | None, ours: str) -> str:
    """Median over the rounds of the peer's time over ours in the same round."""
    if peer is None:
        return "–"
    pairs = zip(seconds[peer], seconds[f"ours {ours}"], strict=True)
    return f"{statistics.median(other / own for other, own in pairs):.2f}"


def _short(way: str) -> str:
    return way.removeprefix("transformers").removeprefix("stock").strip(" ,")


def _absent(entry: Mapping[str, Any], level: str) -> str:
    return "fails" if f"stock {level}" in entry["failed"] else "–"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}" if value < 10 else f"{value:.0f}"


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_bytes()))
