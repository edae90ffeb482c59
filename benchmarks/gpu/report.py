"""Step ``report``: one results file from the files of all parts, and tables of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from benchmarks.gpu.parts import write
from benchmarks.machine import results_file


def report(out: Path, to: Path | None) -> Path | None:
    """Print tables of the parts in ``out`` and write them as one file; returns it, or None for a trial's parts.

    Args:
        out: the folder of the parts.
        to: the file to write; by default the results file of the GPU, which parts of a trial never go into.
    """
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for file in sorted(out.glob("*.json")):
        step, _, part = file.stem.partition(".")
        if part:
            found[step][part] = orjson.loads(file.read_bytes())
    for step, table in _TABLES.items():
        if step in found:
            print(f"\n{step}")
            _print(table(found[step]))
    for step, parts in found.items():
        for part, values in parts.items():
            if "failed" in values:
                print(f"{step} {part}: FAILED: {values['failed']}")
    name = found["probe"].get("machine", {}).get("name")
    trial = any(values.get("tiny") for parts in found.values() for values in parts.values())
    if to is None and (trial or not name):
        return None
    path = to or results_file("gpu", name)
    write(path, {step: parts for step, parts in found.items() if parts})
    return path


def _print(rows: Iterable[Sequence[object]]) -> None:
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _probe(parts: Mapping[str, Any]) -> list[Sequence[object]]:
    machine, ceilings = parts.get("machine", {}), parts.get("ceilings", {})
    gpus = ", ".join(f"{gpu['name']} ({gpu['generation']})" for gpu in machine.get("gpus", []))
    rows = [("name", machine.get("name")), ("GPUs", gpus or None), ("CUDA", machine.get("cuda_problem") or "works")]
    rows += [("neighbours", machine.get("neighbours"))]
    return rows + [(name, value) for name, value in ceilings.items() if name.endswith("_s") and name != "part_s"]


def _tests(parts: Mapping[str, Any]) -> list[Sequence[object]]:
    return [(part, values.get("last_line")) for part, values in parts.items()]


def _parity(parts: Mapping[str, Any]) -> list[Sequence[object]]:
    names = ("row_error", "token_error", "mean_error", "shift", "rank_correlation", "batch_difference")
    rows: list[Sequence[object]] = [("model", "precision", *names, "beyond its bounds")]
    for part, values in parts.items():
        figures, beyond = values.get("figures", {}), values.get("beyond")
        said = "not measured" if beyond is None else "; ".join(beyond) or "nothing"
        rows.append((part, values.get("precision"), *(figures.get(name) for name in names), said))
    return rows


def _attention(parts: Mapping[str, Any]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = [("heads", "form", "told", "took", "shape", "first ms", "steady ms", "difference")]
    for part, values in parts.items():
        for kernel, times in values.get("torch", {}).items():
            if "failed" in times:
                rows.append(_failed(part, "torch", kernel, times))
                continue
            rows += [(part, "torch", kernel, None, shape, None, steady, None) for shape, steady in times.items()]
        for form, kernels in values.get("onnxruntime", {}).items():
            for told, of_kernel in kernels.items():
                if "failed" in of_kernel:
                    rows.append(_failed(part, form, told, of_kernel))
                for shape, times in of_kernel.get("shapes", {}).items():
                    numbers = (times["first_ms"], times["steady_ms"], times["difference"])
                    rows.append((part, form, told, of_kernel["kernel"], shape, *numbers))
    return rows


def _failed(part: str, form: str, told: str, found: Mapping[str, Any]) -> Sequence[object]:
    return (part, form, told, f"failed: {found['failed'][:60]}", None, None, None, None)


def _tf32(parts: Mapping[str, Any]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = [("model", "tokens/s", "tokens/s, TF32", "difference", "beyond, TF32")]
    for part, values in parts.items():
        plain, tf32 = values.get("tf32_0", {}), values.get("tf32_1", {})
        beyond = "; ".join(tf32.get("beyond", [])) or None
        rows.append((part, plain.get("tokens_s"), tf32.get("tokens_s"), values.get("difference"), beyond))
    return rows


def _arena(parts: Mapping[str, Any]) -> list[Sequence[object]]:
    names = ("model", "strategy", "budget", "weights_gb", "batches_gb", "splits", "pass_s")
    return [names, *([values.get(name) for name in names] for values in parts.values())]


def _speed(parts: Mapping[str, Any]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = [("model", "way", "tokens/s", "rows/s", "of peak", "busy", "GPU %", "ratio")]
    for part, values in parts.items():
        if "skipped" in values:
            rows.append((part, f"skipped: {values['skipped']}", *[None] * 6))
        ratio = values.get("ratio", {})
        for way, speed in values.get("tokens_s", {}).items():
            numbers = [values.get(kind, {}).get(way) for kind in ("rows_s", "share_of_peak")]
            busy = (values.get("busy", {}).get(way) or [None])[-1]
            use = values.get("gpu", {}).get(way, {}).get("use_percent")
            rows.append(
                (part, way, speed, *numbers, busy, use, ratio.get("times") if ratio.get("ours") == way else None)
            )
        rows += [(part, f"{way}: {why[:80]}", *[None] * 6) for way, why in values.get("failures", {}).items()]
    return rows


def _file(parts: Mapping[str, Any]) -> list[Sequence[object]]:
    names = ("rows", "seconds", "rows_s", "times_the_papers")
    return [("rule", *names), *((part, *(values.get(name) for name in names)) for part, values in parts.items())]


_TABLES = {
    "probe": _probe,
    "tests": _tests,
    "parity": _parity,
    "attention": _attention,
    "tf32": _tf32,
    "arena": _arena,
    "speed": _speed,
    "file": _file,
}
