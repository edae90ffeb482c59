"""Our graphs beside the stock export and transformers, as the table of ``docs/export.md``: ``make bench-export``.

Environment: ``BENCH_FAMILIES`` (names with commas between; all), ``BENCH_ROUNDS`` (5), ``BENCH_STOCK`` (the python of
the environment with optimum; without it there are no stock columns), ``BENCH_TINY=1`` (small models, to try it out).
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
import transformers
from numpy.typing import NDArray

from benchmarks.export import report
from benchmarks.export.families import TINY, WORDS, Output, Subject, subjects
from benchmarks.export.ways import NO, TASKS, YES, Step, our_step, stock_step, transformers_step
from benchmarks.machine import processor
from instructmining.bundle import PRECISIONS
from instructmining.inference.batching import Batch, batches
from instructmining.inference.devices import cpu_threads
from instructmining.tokenizing.truncation import Tokens
from instructmining_export import families, originals
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs import bidirectional, causal, t5
from instructmining_export.graphs.graph_builder import CONTRIB, GraphBuilder, Weights
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save
from instructmining_export.transformers_versions import graph_settings

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
BUDGET_TOKENS = 512
LENGTHS = np.linspace(32, 256, 4 if TINY else 16).astype(int)
LEVELS = ("O0", "O2")  # of onnxruntime's optimizer over the stock graph; beyond O2 numbers change
BOUND = 1e-3  # of any value; ours beyond it ends the run, a peer beyond it is not timed


@dataclass(slots=True)
class Entry:
    """One checkpoint's line."""

    name: str
    output: Output
    nodes: int = 0
    fused: dict[str, int] = field(default_factory=dict)  # operator → how many
    bytes: dict[str, int] = field(default_factory=dict)  # precision → of the files
    export_s: float = 0.0
    stock_nodes: dict[str, int] = field(default_factory=dict)  # level → of all its graphs
    stock_export_s: dict[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)  # way → largest, of a row's value
    seconds: dict[str, list[float]] = field(default_factory=dict)  # way → of each round
    failed: dict[str, str] = field(default_factory=dict)  # way → why it has no time


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the values of all rows."""

    name: str  # "ours fp32", "transformers sdpa, one by one", "stock O2, batches", …
    step: Step
    work: list[Batch]

    def run(self) -> list[NDArray[np.float32]]:
        """The whole pass; values by batch."""
        return [self.step(batch) for batch in self.work]

    def by_row(self, output: Output, found: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Values of a pass in the order of the rows."""
        rows: dict[int, NDArray[np.float32]] = {}
        for batch, values in zip(self.work, found, strict=True):
            for place, member in enumerate(batch.members.tolist()):
                rows[member] = values[batch.scored[:, 0] == place] if output == "nll" else values[place : place + 1]
        return [rows[member] for member in range(len(rows))]


def main() -> None:
    torch.set_num_threads(cpu_threads())
    transformers.logging.set_verbosity_error()
    run: dict[str, object] = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": processor(),
        "threads": cpu_threads(),
        "load_1min": round(os.getloadavg()[0], 2),
        "rounds": ROUNDS,
        "rows": len(LENGTHS),
        "tokens": int(LENGTHS.sum()),
        "max_batch_tokens": BUDGET_TOKENS,
        "tiny": TINY,
        "versions": {name: version(name) for name in ("onnxruntime-gpu", "torch", "transformers", "onnx-ir")},
    }
    run["entries"] = entries = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "work"
        asked = [name for name in os.environ.get("BENCH_FAMILIES", "").split(",") if name]
        for subject in subjects(asked, folder):
            print(f"{subject.name} …", file=sys.stderr)
            entry, versions = measure(subject, folder / "graphs")
            run["stock_versions"] = versions or run.get("stock_versions", {})
            entries.append(asdict(entry))
            if not TINY:
                report.save(run)  # after each, so that one that fails does not cost the others
            gc.collect()
            shutil.rmtree(folder)  # the next family needs the room
    report.write(run)


def measure(subject: Subject, folder: Path) -> tuple[Entry, dict[str, str]]:
    """Export one checkpoint both ways, check the values, and time all ways in turn."""
    entry = Entry(subject.name, subject.output)
    folder.mkdir(parents=True)
    ours = _export_ours(subject, folder, entry)
    stock, versions = _export_stock(subject, folder, entry)
    texts = list(random_texts())
    works = {
        "batches": list(batches(texts, max_batch_tokens=BUDGET_TOKENS)),
        "one by one": list(batches(texts, max_batch_tokens=1)),
    }
    ways = [Way(f"ours {name}", our_step(ours[name], subject.output), works["batches"]) for name in ("fp32", "int8")]
    for attention in ("eager", "sdpa"):
        try:
            step = transformers_step(subject, attention)
        except ValueError as error:
            entry.failed[f"transformers {attention}"] = _line(error)
            continue
        ways += [Way(f"transformers {attention}, {how}", step, work) for how, work in works.items()]
    for level, graphs in stock.items():
        try:
            step = stock_step(graphs, subject.output)
        except Exception as error:  # onnxruntime's own classes have no common root but this one
            entry.failed[_stock_name(level)] = _line(error)
            continue
        ways += [Way(f"{_stock_name(level)}, {how}", step, work) for how, work in works.items()]
    for number in range(ROUNDS + 1):
        if number == 0:
            ways = _equal(subject, entry, ways)  # and warm
            continue
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            begin = time.perf_counter()
            way.run()
            entry.seconds.setdefault(way.name, []).append(time.perf_counter() - begin)
    return entry, versions


def _export_ours(subject: Subject, folder: Path, entry: Entry) -> dict[str, Path]:
    """The graph in each precision; its nodes and seconds in fp32."""
    paths = {}
    for precision in PRECISIONS:
        path = paths[precision] = folder / precision / "model.onnx"
        path.parent.mkdir()
        begin = time.perf_counter()
        checkpoint = Checkpoint(subject.folder)
        with checkpoint.weights() as weights:
            files = save(_build(subject, checkpoint, weights, Precision(precision)).model(), path)
        seconds = time.perf_counter() - begin
        entry.bytes[precision] = sum(file.stat().st_size for file in files)
        if precision == "fp32":
            entry.export_s = seconds
            operators = list(_nodes(path))
            entry.nodes = len(operators)
            entry.fused = dict(Counter(name for domain, name in operators if domain == CONTRIB or name == "Attention"))
    return paths


def _build(subject: Subject, checkpoint: Checkpoint, weights: Weights, precision: Precision) -> GraphBuilder:
    config = originals.read_config(checkpoint)
    table: Mapping[str, type] = {
        "nll": families.CAUSAL,
        "yes": families.SEQUENCE_TO_SEQUENCE,
    }.get(subject.output, families.ENCODERS)
    limit = families.limit_tokens(config, asked=None)
    backbone = table[config.model_type].from_config(graph_settings(config), max_length=limit)
    if subject.output == "nll":
        return causal.build(backbone, weights, vocabulary=True, reward=None, precision=precision)
    if subject.output == "embedding":
        return bidirectional.build_embedding(backbone, weights, pooling="mean", precision=precision)
    if subject.output == "reward":
        return bidirectional.build_reward(backbone, weights, separator=None, precision=precision)
    return t5.build(backbone, weights, yes=YES, no=NO, precision=precision)


def _export_stock(subject: Subject, folder: Path, entry: Entry) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Optimum's graphs by level, in its own environment."""
    python = os.environ.get("BENCH_STOCK")
    if not python:
        return {}, {}
    worker = Path(__file__).parent / "stock.py"
    command = [python, worker, subject.folder, folder / "stock", TASKS[subject.output], ",".join(LEVELS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:  # a kill for its memory, for one
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        entry.failed |= {_stock_name(level): f"ended with code {done.returncode}: {last[:160]}" for level in LEVELS}
        return {}, {}
    told = json.loads(done.stdout.splitlines()[-1])
    graphs: dict[str, list[Path]] = {}
    for level, found in told["levels"].items():
        if "error" in found:
            entry.failed[_stock_name(level)] = _sentence(found["error"])
            continue
        graphs[level] = [Path(file) for file in found["files"]]
        entry.stock_nodes[level] = sum(1 for graph in graphs[level] for _ in _nodes(graph))
        entry.stock_export_s[level] = found["seconds"]
    return graphs, told["versions"]


def _equal(subject: Subject, entry: Entry, ways: Sequence[Way]) -> list[Way]:
    """The ways that give the right numbers, which are transformers' with eager attention, one row at a time.

    Raises:
        SystemExit: our float32 graph does not give them.
    """
    reference = next(way for way in ways if way.name == "transformers eager, one by one")
    wanted = reference.by_row(subject.output, reference.run())
    right = []
    for way in ways:
        try:
            found = way.by_row(subject.output, way.run())
        except Exception as error:  # torch and onnxruntime have classes of their own for a graph that does not run
            if way.name.startswith("ours"):
                raise
            entry.failed[way.name] = _line(error)
            continue
        largest = max(float(np.abs(one - other).max()) for one, other in zip(wanted, found, strict=True))
        entry.differences[way.name] = max(
            _row_difference(subject.output, one, other) for one, other in zip(wanted, found, strict=True)
        )
        if way.name != "ours int8" and not largest <= BOUND:
            entry.failed[way.name] = f"its values are off by up to {largest:.1g}"
            if way.name.startswith("ours"):
                raise SystemExit(f"{subject.name}, {way.name}: {entry.failed[way.name]}")
            continue
        right.append(way)
    return right


def _row_difference(output: Output, one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Of the mean NLL, the reward or the probability; 1 − cosine of embeddings."""
    first, second = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    if output == "embedding":
        return float(1 - first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
    return float(abs(first.mean() - second.mean()))


def random_texts() -> Iterator[Tokens]:
    """Seeded rows of mixed length; every token but a row's first is scored."""
    generator = np.random.default_rng(11)
    for length in LENGTHS:
        yield Tokens(generator.integers(10, WORDS, size=length), np.arange(1, length))


def _nodes(graph: Path) -> Iterator[tuple[str, str]]:
    """Domain and operator of each node, those of inner graphs included."""
    for node in ir.traversal.RecursiveGraphIterator(ir.load(graph).graph):
        yield node.domain, node.op_type


def _stock_name(level: str) -> str:
    return f"stock {level}"


def _line(error: BaseException) -> str:
    return _sentence(str(error).strip() or type(error).__name__)


def _sentence(text: str) -> str:
    return text.splitlines()[0].split(". ")[0][:160]


if __name__ == "__main__":
    main()
