"""Graphs that other exporters made, with our outputs, beside transformers: ``python -m benchmarks.export.via WAY``.

WAY is ``optimum`` or ``transformers``, whose exporter the environment must have; ``make bench-via`` runs both. Each run
goes to ``results/via-<way>-<device>.json``, and the table of ``docs/export.md`` is written from those that are there.
Environment: ``BENCH_FAMILIES`` (names with commas between; all), ``BENCH_ROUNDS`` (5), ``BENCH_TINY=1`` (small models,
to try it out; nothing is written).
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
import transformers

from benchmarks.export import report
from benchmarks.export.families import OTHER_FAMILIES, TINY, Subject, subjects
from benchmarks.export.table import BUDGET_TOKENS, LENGTHS, ROUNDS, random_texts
from benchmarks.export.ways import our_step, transformers_step
from benchmarks.machine import processor, results_file
from instructmining.inference.batching import batches
from instructmining.inference.devices import cpu_threads
from instructmining.inference.references import References
from instructmining.tokenizing.truncation import Tokens
from instructmining_export import families, originals
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save
from instructmining_export.parity import check
from instructmining_export.plans import GraphPlan, Planner
from instructmining_export.via.choices import Via
from instructmining_export.via.exporters import find

BEGIN, END = "<!-- via: begin -->", "<!-- via: end -->"
WAYS: tuple[Via, ...] = ("optimum", "transformers")


@dataclass(slots=True)
class Entry:
    """One checkpoint's graph by one exporter."""

    name: str
    output: str
    export_s: float
    nodes: int
    bytes: int
    parity: Mapping[str, object]  # the gate's figures, on the timed texts
    seconds: dict[str, list[float]] = field(default_factory=dict)  # way → of each round


def main(via: Via) -> None:
    torch.set_num_threads(cpu_threads())
    transformers.logging.set_verbosity_error()
    run: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": processor(),
        "threads": cpu_threads(),
        "load_1min": round(os.getloadavg()[0], 2),
        "rounds": ROUNDS,
        "rows": len(LENGTHS),
        "tokens": int(LENGTHS.sum()),
        "via": find(via).label,
        "versions": {name: version(name) for name in ("onnxruntime-gpu", "torch", "transformers", "onnx-ir")},
        "entries": [],
    }
    with tempfile.TemporaryDirectory() as temporary:
        asked = [name for name in os.environ.get("BENCH_FAMILIES", "").split(",") if name]
        for subject in subjects(asked, Path(temporary) / "work", OTHER_FAMILIES):
            print(f"{subject.name} …", file=sys.stderr)
            run["entries"].append(asdict(measure(subject, Path(temporary) / "graphs", via)))
            gc.collect()
            for folder in Path(temporary).iterdir():
                shutil.rmtree(folder)  # the next family needs the room
    if TINY:
        print("\n".join(table([run])))
        return
    results_file(f"via-{via}").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    files = [file for way in WAYS if (file := results_file(f"via-{way}")).is_file()]
    report.replace(report.PAGE, "\n".join(table([json.loads(file.read_bytes()) for file in files])), BEGIN, END)


def measure(subject: Subject, folder: Path, via: Via) -> Entry:
    """Export one checkpoint, pass the gate, and time the graph and transformers in turn."""
    folder.mkdir(parents=True)
    checkpoint = Checkpoint(subject.folder)
    texts = list(random_texts())
    references = _references(subject, checkpoint, texts)
    begin = time.perf_counter()
    with (
        _plan(subject, checkpoint, via).graphs(folder) as build,
        checkpoint.weights() as weights,
    ):
        files = save(build(weights, Precision()).model(), folder / "model.onnx")
    entry = Entry(
        subject.name,
        subject.output,
        export_s=time.perf_counter() - begin,
        nodes=sum(1 for _ in ir.load(files[0]).graph.all_nodes()),
        bytes=sum(file.stat().st_size for file in files),
        parity=check({subject.output: references}, files[0])[subject.output].as_json(),
    )
    work = list(batches(texts, max_batch_tokens=BUDGET_TOKENS))
    steps = {"ours": our_step(files[0], subject.output)}
    for attention in ("eager", "sdpa"):
        try:
            steps[f"transformers {attention}"] = transformers_step(subject, attention)
        except ValueError:  # the family has no attention of this kind
            continue
    for number in range(ROUNDS + 1):
        for name, step in steps.items():
            begin = time.perf_counter()
            for batch in work:
                step(batch)
            if number:  # the first warms up
                entry.seconds.setdefault(name, []).append(time.perf_counter() - begin)
    return entry


def _references(subject: Subject, checkpoint: Checkpoint, texts: list[Tokens]) -> References:
    if subject.output == "nll":
        return originals.likelihoods(checkpoint, texts)[0]
    if subject.output == "embedding":
        return originals.embeddings(checkpoint, texts, pooling="mean")
    return originals.rewards(checkpoint, texts, separator=None)


def _plan(subject: Subject, checkpoint: Checkpoint, via: Via) -> GraphPlan:
    config = originals.read_config(checkpoint)
    planner = Planner(checkpoint, config, via, "fp32", families.limit_tokens(config, asked=None))
    if subject.output == "nll":
        return planner.likelihoods(None)
    return planner.embedding("mean", ()) if subject.output == "embedding" else planner.pair_reward(None)


def table(runs: list[Mapping[str, Any]]) -> Iterator[str]:
    """Lines of Markdown."""
    for run in runs:
        versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
        yield (
            f"{run['via']}: {run['cpu']}, {run['threads']} threads, {run['date']}; load when the run began "
            f"{run['load_1min']}. {versions}."
        )
        yield ""
    yield (
        f"**The weights are random** (6 layers, width 512). {runs[0]['rows']} rows of 32 to 256 random tokens, "
        f"{runs[0]['tokens']} in all, in batches; medians of {runs[0]['rounds']} rounds. For transformers the faster "
        "of eager and sdpa attention."
    )
    yield ""
    yield (
        "| family | output | via | `row_error` | `batch_difference` | nodes | MB | export, s | graph, s "
        "| transformers, s | faster by |"
    )
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for run in runs:
        for entry in run["entries"]:
            medians = {way: statistics.median(seconds) for way, seconds in entry["seconds"].items()}
            ours = medians.pop("ours")
            other = min(medians, key=lambda way: medians[way])
            parity = entry["parity"]
            yield (
                f"| {entry['name']} | {entry['output']} | {run['via'].split()[0]} | {parity['row_error']:.1g} "
                f"| {parity['batch_difference']:.1g} | {entry['nodes']} | {entry['bytes'] / 1e6:.0f} "
                f"| {entry['export_s']:.1f} | {ours:.3g} | {medians[other]:.3g} ({other.split()[1]}) "
                f"| {medians[other] / ours:.2f} |"
            )


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in WAYS:
        raise SystemExit(f"wanted one of {', '.join(WAYS)}")
    main("optimum" if sys.argv[1] == "optimum" else "transformers")
