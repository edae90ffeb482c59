"""Runs graphs on the pretended GPU and writes what the CUDA provider did there.

A process of its own: ``python worker.py TASKS RESULTS`` with the libraries of ``build.py`` in LD_LIBRARY_PATH. Both are
files of JSON lines in the same order; a result is written when it is known.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort

from instructmining.errors import InstructMiningError
from instructmining.inference.batching import Batch, batches
from instructmining.inference.devices import Device
from instructmining.inference.sessions import NO_ACCELERATION, Acceleration, GraphSession
from instructmining.tokenizing.truncation import Tokens

Provider: TypeAlias = tuple[str, dict[str, object]]  # name and settings

CUDA = Device("cuda")
LAUNCHES = ("KERNEL", "LIBRARY", "SET")
HOST_COPIES = ("COPY H2D", "COPY D2H", "COPY H2H", "COPY ANY")
INTEGERS: set[int] = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL}


class Appended:
    """The lines that a file, which is not there at first, gained since the last look."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._path = path
        self._read = 0

    def lines(self) -> list[str]:
        ctypes.CDLL(None).fflush(None)  # the provider prints through C
        with self._path.open(encoding="utf-8") as file:
            file.seek(self._read)
            found = file.read()
            self._read = file.tell()
        return found.splitlines()


def batch(rows: int, width: int, *, scored: int = 16) -> Batch:
    """Rows of slightly different lengths, of each of which the last tokens are scored."""
    lengths = [width - row % 8 for row in range(rows)]
    texts = [Tokens(np.full(length, 7), np.arange(length - scored, length)) for length in lengths]
    (made,) = batches(texts, max_batch_tokens=rows * width)
    return made


class Session:
    """A session as the engine opens it, and the log of what it does."""

    def __init__(self, graph: Path, acceleration: Acceleration = NO_ACCELERATION) -> None:
        LOG.lines()
        PRINTED.lines()
        self._session = GraphSession(graph, CUDA, acceleration)
        self._outputs = [name for name in self._session.outputs if not name.startswith("best_")]
        self.opened = LOG.lines()

    def run(self, made: Batch) -> list[str]:
        self._session.run(made, self._outputs)
        return LOG.lines()


# One graph: where its nodes are, how it attends, what a batch launches, whether it is captured


def look_at(task: Mapping[str, str]) -> dict[str, object]:
    """All about a graph of two layers; what a layer launches is what the same graph with three launches more."""
    graph = Path(task["graph"])
    with _recorded(graph) as placed:
        session = Session(graph)
    found: dict[str, object] = {"on_cpu": placed.on_cpu(), "memcpy": placed.memcpy()}
    wide = batch(8, 512)
    session.run(wide)
    found["attention"] = _attention()
    session.run(batch(8, 64))
    found["attention_in_short_rows"] = _attention()
    deeper = Session(Path(task["deeper"]))
    deeper.run(wide)
    found["layer"] = dict(_launches(deeper.run(wide)) - _launches(session.run(wide)))
    return found | {"capture": _capture(graph)}


def place(task: Mapping[str, str]) -> dict[str, object]:
    """Where onnxruntime alone, without the engine, places the nodes of a graph."""
    graph = Path(task["graph"])
    with _recorded(graph) as placed:
        ort.InferenceSession(str(graph), ort.SessionOptions(), providers=["CUDAExecutionProvider"])
    return {"on_cpu": placed.on_cpu(), "memcpy": placed.memcpy()}


class Placed:
    """The nodes of a graph, once a session has placed them."""

    def __init__(self, optimized: Path) -> None:
        self._optimized = optimized
        self.session: Any = None

    def on_cpu(self) -> list[tuple[str, str]]:
        """Each node there, as its operator and what its outputs are: "small integers", "other" or "unknown"."""
        names = {
            node.name
            for part in self.session.get_provider_graph_assignment_info()
            if part.ep_name == "CPUExecutionProvider"
            for node in part.get_nodes()
        }
        graph = onnx.shape_inference.infer_shapes(self._read()).graph
        types = {value.name: value.type.tensor_type for value in graph.value_info}
        return [
            (node.op_type, _kind([types.get(name) for name in node.output if name]))
            for node in graph.node
            if node.name in names
        ]

    def memcpy(self) -> list[str]:
        """What is copied between the host and the device in the midst of the graph."""
        return [f"{node.op_type} {node.input[0]}" for node in self._read().graph.node if "Memcpy" in node.op_type]

    def _read(self) -> onnx.ModelProto:
        return onnx.load(self._optimized)


def _kind(types: Sequence[onnx.TypeProto.Tensor | None]) -> str:
    known = [each for each in types if each is not None]
    if len(known) < len(types):
        return "unknown"
    small = all(each.elem_type in INTEGERS and each.HasField("shape") and len(each.shape.dim) <= 1 for each in known)
    return "small integers" if small else "other"


@contextmanager
def _recorded(graph: Path) -> Iterator[Placed]:
    """Keep the session that is opened meanwhile, and what it makes of the graph."""
    placed = Placed(graph.with_name("optimized.onnx"))
    original = ort.InferenceSession

    class Options(ort.SessionOptions):
        def __init__(self) -> None:
            super().__init__()
            self.optimized_model_filepath = str(graph.with_name("optimized.onnx"))
            self.add_session_config_entry("session.record_ep_graph_assignment_info", "1")

    def opened(*arguments: object, **options: object) -> object:
        placed.session = original(*arguments, **options)
        return placed.session

    with mock.patch.object(ort, "SessionOptions", Options), mock.patch.object(ort, "InferenceSession", opened):
        yield placed


def _attention() -> list[str]:
    """The kernels of the attention nodes since the last look, in their order."""
    return re.findall(r"SdpaKernel=(\w+)", "\n".join(PRINTED.lines()))


def _launches(lines: Sequence[str]) -> Counter[str]:
    return Counter(line for line in lines if line.startswith(LAUNCHES))


def _capture(graph: Path) -> dict[str, object]:
    """Two shapes in turn: each is seen, then captured, then replayed twice."""
    try:
        session = Session(graph, Acceleration(cuda_graphs=True))
        _, second, *later = ([session.run(batch(rows, 64)) for rows in (8, 6)] for _ in range(4))
    except InstructMiningError as error:
        return {"error": str(error)}
    return {
        "captured": [each.count("CAPTURE begin") for each in second],
        "replayed": [_launched(each) for both in later for each in both],
        "copies": [line for each in second for line in _within_capture(each) if line.startswith(HOST_COPIES)],
    }


def _launched(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if line.startswith(("GRAPHLAUNCH", *LAUNCHES))]


def _within_capture(lines: Sequence[str]) -> list[str]:
    begin = lines.index("CAPTURE begin") if "CAPTURE begin" in lines else len(lines)
    return list(takewhile(lambda line: line != "CAPTURE end", lines[begin:]))


# Memory: a mix of batches, and a large vocabulary


def measure_arena(task: Mapping[str, Any]) -> dict[str, object]:
    """Bytes that the batch with the most needs alone, and bytes that all batches take in their order."""
    graph = Path(task["graph"])
    texts = [Tokens(np.full(length, 7), np.arange(begin, length)) for begin, length in task["texts"]]
    mixed = list(batches(texts, max_batch_tokens=task["max_batch_tokens"], width_multiple=16))
    sizes = (lambda made: made.ids.size, lambda made: made.ids.shape[1], len_of_scored, lambda made: len(made.ids))
    largest = [max(mixed, key=size) for size in sizes]
    with _exact_arena():
        alone = max(_taken(graph, [made]) for made in largest)
    return {"batches": len(mixed), "alone": alone, "mixed": _taken(graph, mixed)}


def measure_logits(task: Mapping[str, str]) -> dict[str, object]:
    """Bytes that a batch takes, by its number of scored positions: few and many."""
    made = [batch(16, 512, scored=scored) for scored in (1, 448)]
    with _exact_arena():
        return {"bytes": [(len(each.scored), _taken(Path(task["graph"]), [each])) for each in made]}


def len_of_scored(made: Batch) -> int:
    return len(made.scored)


def _taken(graph: Path, run: Sequence[Batch]) -> int:
    """Return the most bytes on the device while a new session runs batches, less those after it was opened."""
    session = Session(graph)
    before = [int(line.split()[2]) for line in session.opened if line.startswith(("MALLOC", "FREE"))][-1]
    lines = [line for made in run for line in session.run(made)]
    return max(int(line.split()[2]) for line in lines if line.startswith("MALLOC")) - before


@contextmanager
def _exact_arena() -> Iterator[None]:
    """Let arenas grow by what is missing, however the engine sets them."""
    original = ort.InferenceSession

    def opened(
        graph: str, options: object, *, providers: Sequence[tuple[str, dict[str, object]]], **others: object
    ) -> object:
        exact = [(name, settings | {"arena_extend_strategy": "kSameAsRequested"}) for name, settings in providers]
        return original(graph, options, providers=exact, **others)

    with mock.patch.object(ort, "InferenceSession", opened):
        yield


def main(tasks: Path, results: Path) -> None:
    """Do each task; one that the engine refuses has its error as the result."""
    kinds = {"look": look_at, "place": place, "arena": measure_arena, "logits": measure_logits}
    with tasks.open(encoding="utf-8") as lines, results.open("w", encoding="utf-8") as written:
        for task in map(json.loads, lines):
            try:
                result = kinds[task["kind"]](task)
            except InstructMiningError as error:
                result = {"error": str(error)}
            print(json.dumps(result), file=written, flush=True)


if __name__ == "__main__":
    PRINTED = Appended(Path(os.environ["PRETENDED_CUDA_PRINTED"]))
    LOG = Appended(Path(os.environ["PRETENDED_CUDA_LOG"]))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
