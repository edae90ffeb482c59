"""Everything about CUDA that only a GPU shows, in one call: ``python -m benchmarks.gpu.speed`` on a machine with one.

For each model of ``models.py``: our graph in fp16 and transformers in fp16 over the same rows in sorted batches,
each at its own best batch size, in interleaved rounds; both are first compared with transformers in fp32. Then a file
of rows through ``instructmining score --rule paper-v3``. The tests marked ``gpu`` run before.

Environment: ``BENCH_MODELS`` (parts of names with commas between; all), ``BENCH_ROWS`` (2048), ``BENCH_ROUNDS`` (5),
``BENCH_FILE_ROWS`` (20000), ``BENCH_OUT`` (the file to write), ``BENCH_TINY=1`` (two layers, a few rows, also without a
GPU: to try it out, written only where BENCH_OUT says). On a CPU both sides compute in fp32.
"""

from __future__ import annotations

import gc
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
import transformers
from numpy.typing import NDArray

from benchmarks.gpu import whole_file
from benchmarks.gpu.models import SUBJECTS, TINY, Output, Peer, Step, Subject, export_graph, make_checkpoint
from benchmarks.gpu.rows import seeded_texts
from benchmarks.machine import ROOT, results_file
from instructmining.errors import DeviceError
from instructmining.inference.batching import Batch, batches
from instructmining.inference.devices import Device, choose_devices, cuda_problem
from instructmining.inference.executor import Executor, Job
from instructmining.inference.sessions import Acceleration
from instructmining.tokenizing.truncation import Tokens

ROWS = int(os.environ.get("BENCH_ROWS", "24" if TINY else "2048"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "2" if TINY else "5"))
BUDGETS = (256, 512) if TINY else (4096, 8192, 16384, 32768, 65536)  # padded tokens of a batch
WIDTH_MULTIPLE = 8 if TINY else 16
CHECKED = 6 if TINY else 48  # rows whose values are compared
# Of a row's value, in standard deviations of the rows' values; 1 - cosine of embeddings.
BOUNDS = {"fp32": 1e-3, "fp16": 5e-2}
ATTENTION = ("sdpa", "eager")


@dataclass(slots=True)
class Entry:
    """One model's results."""

    name: str
    tokens: int
    export_s: float = 0.0
    nodes: dict[str, dict[str, int]] = field(default_factory=dict)  # provider → operator → nodes that it took
    differences: dict[str, float] = field(default_factory=dict)  # way → largest, from transformers in fp32
    budgets: dict[str, dict[int, float]] = field(default_factory=dict)  # way → padded tokens of a batch → tokens/s
    seconds: dict[str, list[float]] = field(default_factory=dict)  # way → of each round
    busy: list[float] = field(default_factory=list)  # share of ours' rounds in which a batch was at work
    gpu: dict[str, dict[str, float]] = field(default_factory=dict)  # way → the driver's use in percent, memory in MiB
    ratio: float | None = None  # median over the rounds of transformers' best over ours
    failed: dict[str, str] = field(default_factory=dict)  # way → why it has no time


@dataclass(slots=True)
class Way:
    """One way to the values of all rows."""

    name: str
    step: Callable[[Sequence[Batch]], Iterator[NDArray[np.float32]]]
    budget: int = 0

    def run(self, texts: Sequence[Tokens], budget: int | None = None) -> list[tuple[Batch, NDArray[np.float32]]]:
        """The whole pass, batching included."""
        work = list(batches(texts, max_batch_tokens=budget or self.budget, width_multiple=WIDTH_MULTIPLE))
        return list(zip(work, self.step(work), strict=True))

    def seconds(self, texts: Sequence[Tokens], budget: int | None = None) -> float:
        """Of a pass."""
        begin = time.perf_counter()
        self.run(texts, budget)
        return time.perf_counter() - begin


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    device = choose_devices("cpu" if TINY and cuda_problem() else "cuda")[0]
    if device.kind == "cpu":
        torch.set_num_threads(1)  # nothing is measured there, and tiny products are not worth a second thread
    run: dict[str, object] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device.index) if device.kind == "cuda" else str(device),
        "tiny": TINY,
        "precision": _precision(device),
        "rows": ROWS,
        "rounds": ROUNDS,
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }
    if device.kind == "cuda":
        run["gpu_tests"] = _gpu_tests()
    asked = [part for part in os.environ.get("BENCH_MODELS", "").lower().split(",") if part]
    chosen = [subject for subject in SUBJECTS if not asked or any(part in subject.name.lower() for part in asked)]
    entries: list[object] = []
    graphs: dict[str, Path] = {}
    run["models"] = entries
    with tempfile.TemporaryDirectory() as folder:
        for number, subject in enumerate(chosen):
            print(f"{subject.name} …", file=sys.stderr)
            entry, graphs[subject.name] = measure(subject, Path(folder) / str(number), device)
            entries.append(asdict(entry))
            _save(run)  # after each, so that one that fails does not cost the others
        if {whole_file.REWARD, whole_file.UNIEVAL} <= graphs.keys():
            print("paper-v3 from file to file …", file=sys.stderr)
            run["paper-v3"] = whole_file.score(graphs, Path(folder) / "file", device, _precision(device))
    _save(run)
    print(json.dumps(run, indent=1))


def measure(subject: Subject, folder: Path, device: Device) -> tuple[Entry, Path]:
    """Make one model, check the values of all ways, find each its batch size, and time them in turn."""
    texts = seeded_texts(ROWS, words=subject.words, max_length=subject.max_length)
    entry = Entry(subject.name, sum(len(text.ids) for text in texts))
    make_checkpoint(subject, folder, device.kind)
    begin = time.perf_counter()
    graph = export_graph(subject, folder, _precision(device))
    entry.export_s = time.perf_counter() - begin
    entry.nodes = _nodes(graph, device)
    checked = texts[:: max(1, len(texts) // CHECKED)]
    wanted = _reference(subject, folder, checked, device)
    with _ours(subject, graph, device, entry) as ours:
        peers = _peers(subject, folder, device, entry)
        ways = [way for way in [*ours, *peers] if _right(way, subject.output, checked, wanted, entry, device)]
        for way in ways:
            _choose_budget(way, texts[::4], entry)
        ways = [way for way in ways if way.budget]
        for number in range(ROUNDS):
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                with _watched(entry, way.name, device):
                    entry.seconds.setdefault(way.name, []).append(way.seconds(texts))
    entry.ratio = _ratio(entry)
    _free()
    return entry, graph


@contextmanager
def _ours(subject: Subject, graph: Path, device: Device, entry: Entry) -> Iterator[list[Way]]:
    """The engine's executor, plain and with each acceleration that can be had."""
    kinds = {"ours": Acceleration()}
    if device.kind == "cuda":
        kinds["ours, CUDA graphs"] = Acceleration(cuda_graphs=True)
    executors: dict[str, Executor] = {}
    try:
        for name, acceleration in kinds.items():
            try:
                executors[name] = Executor([graph], [device], acceleration)
            except DeviceError as error:
                entry.failed[name] = _line(error)
        yield [Way(name, _our_step(executor, graph, subject.output, entry)) for name, executor in executors.items()]
    finally:
        for executor in executors.values():
            executor.close()


def _our_step(
    executor: Executor, graph: Path, output: Output, entry: Entry
) -> Callable[[Sequence[Batch]], Iterator[NDArray[np.float32]]]:
    def step(work: Sequence[Batch]) -> Iterator[NDArray[np.float32]]:
        begin, busy = time.perf_counter(), 0.0
        for done in executor.run(Job(graph, batch, (output,)) for batch in work):
            busy += done.seconds
            yield done.outputs[output]
        entry.busy.append(round(busy / (time.perf_counter() - begin), 4))

    return step


def _peers(subject: Subject, folder: Path, device: Device, entry: Entry) -> list[Way]:
    ways = []
    dtype = torch.float16 if _precision(device) == "fp16" else torch.float32
    for attention in ATTENTION:
        name = f"transformers {attention}"
        try:
            peer = Peer(subject, folder, device=device.kind, dtype=dtype, attention=attention)
        except ValueError as error:
            entry.failed[name] = _line(error)
            continue
        ways.append(Way(name, lambda work, peer=peer: map(peer, work)))
    return ways


def _reference(subject: Subject, folder: Path, texts: Sequence[Tokens], device: Device) -> list[NDArray[np.float64]]:
    """Values of transformers in fp32 with eager attention, by row."""
    peer: Step = Peer(subject, folder, device=device.kind, dtype=torch.float32, attention="eager")
    rows = _by_row(subject.output, Way("reference", lambda work, peer=peer: map(peer, work)).run(texts, BUDGETS[0]))
    del peer
    _free()
    return rows


def _right(
    way: Way,
    output: Output,
    texts: Sequence[Tokens],
    wanted: Sequence[NDArray[np.float64]],
    entry: Entry,
    device: Device,
) -> bool:
    """Whether a way gives the right values; it is warm then."""
    try:
        found = _by_row(output, way.run(texts, BUDGETS[0]))
    except Exception as error:  # torch and onnxruntime have classes of their own for a graph that does not run
        entry.failed[way.name] = _line(error)
        return False
    entry.differences[way.name] = _difference(output, found, wanted)
    if not entry.differences[way.name] <= BOUNDS[_precision(device)]:
        entry.failed[way.name] = f"its values are off by {entry.differences[way.name]:.1g}"
        return False
    return True


def _choose_budget(way: Way, texts: Sequence[Tokens], entry: Entry) -> None:
    """The fastest batch size that fits, over every fourth row."""
    speeds = entry.budgets.setdefault(way.name, {})
    tokens = sum(len(text.ids) for text in texts)
    for budget in BUDGETS:
        try:
            way.run(texts, budget)  # warm: shapes are new
            speeds[budget] = round(tokens / min(way.seconds(texts, budget) for _ in range(2)), 1)
        except Exception as error:  # torch and onnxruntime have classes of their own for too little memory
            entry.failed[f"{way.name}, {budget} tokens"] = _line(error)
            _free()
    if speeds:
        way.budget = max(speeds, key=lambda budget: speeds[budget])


def _by_row(output: Output, found: Sequence[tuple[Batch, NDArray[np.float32]]]) -> list[NDArray[np.float64]]:
    rows: dict[int, NDArray[np.float64]] = {}
    for batch, values in found:
        for place, member in enumerate(batch.members.tolist()):
            own = values[batch.scored[:, 0] == place].mean(keepdims=True) if output == "nll" else values[place]
            rows[member] = np.atleast_1d(own.astype(np.float64))
    return [rows[member] for member in range(len(rows))]


def _difference(output: Output, found: Sequence[NDArray[np.float64]], wanted: Sequence[NDArray[np.float64]]) -> float:
    if output == "embedding":
        return max(
            float(1 - one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
            for one, other in zip(found, wanted, strict=True)
        )
    one, other = np.concatenate(found), np.concatenate(wanted)
    return float(np.abs(one - other).max() / other.std())


def _ratio(entry: Entry) -> float | None:
    """Of the fastest way of each side."""
    medians = {way: statistics.median(seconds) for way, seconds in entry.seconds.items()}
    sides = [[way for way in medians if way.startswith(side)] for side in ("ours", "transformers")]
    if not all(sides):
        return None
    ours, peer = (min(side, key=lambda way: medians[way]) for side in sides)
    pairs = zip(entry.seconds[peer], entry.seconds[ours], strict=True)
    return round(statistics.median(other / own for other, own in pairs), 3)


def _nodes(graph: Path, device: Device) -> dict[str, dict[str, int]]:
    """Where onnxruntime put the nodes: a product on the CPU would be a defect of ours."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = ["CUDAExecutionProvider"] if device.kind == "cuda" else ["CPUExecutionProvider"]
    session = ort.InferenceSession(str(graph), options, providers=providers)
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return {provider: dict(operators.most_common()) for provider, operators in found.items()}


@contextmanager
def _watched(entry: Entry, way: str, device: Device) -> Iterator[None]:
    """What the driver says of the device meanwhile."""
    if device.kind != "cuda":
        yield
        return
    query = [
        "nvidia-smi",
        f"--id={device.index}",
        "--query-gpu=utilization.gpu,memory.used",
        "--format=csv,noheader,nounits",
    ]
    with subprocess.Popen([*query, "-lms", "200"], stdout=subprocess.PIPE, text=True) as watching:
        try:
            yield
        finally:
            watching.terminate()
            lines = watching.communicate()[0].splitlines()
    numbers = np.array([[float(part) for part in line.split(",")] for line in lines if re.fullmatch(r"[\d, ]+", line)])
    if len(numbers):
        entry.gpu[way] = {"use_percent": float(numbers[:, 0].mean()), "memory_mib": float(numbers[:, 1].max())}


def _gpu_tests() -> str:
    """The last line of the tests that want a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(ROOT / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    sys.stderr.write(done.stdout[-4000:])
    return (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]


def _save(run: Mapping[str, object]) -> None:
    asked = os.environ.get("BENCH_OUT")
    if TINY and not asked:
        return
    path = Path(asked) if asked else results_file("cuda", str(run["device"]))
    path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


def _precision(device: Device) -> str:
    return "fp16" if device.kind == "cuda" else "fp32"


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


_PACKAGES = ("instructmining", "onnxruntime-gpu", "onnxruntime", "torch", "transformers", "numpy")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
