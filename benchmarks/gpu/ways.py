"""Ways to the values of all rows: their batches, and how their values are compared."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.export.families import Output
from benchmarks.gpu.peers import Transformers
from benchmarks.gpu.subjects import TINY, Subject
from instructmining.inference.batching import Batch, batches
from instructmining.inference.devices import Device
from instructmining.inference.executor import Executor, Job
from instructmining.inference.references import References
from instructmining.tokenizing.truncation import Tokens

WIDTH_MULTIPLE = 8 if TINY else 16
_MOST_SCORED = 16384  # as in the engine's batches on CUDA
_REFERENCE_TOKENS = 2048


@dataclass(slots=True)
class Way:
    """One way to the values of all rows."""

    name: str
    subject: Subject
    step: Callable[[Sequence[Batch]], Iterator[NDArray[np.float32]]]
    budget: int = 0  # padded tokens of a batch

    def run(self, texts: Sequence[Tokens], budget: int | None = None) -> list[tuple[Batch, NDArray[np.float32]]]:
        """The whole pass over sorted rows, batching included."""
        work = list(
            batches(
                texts,
                max_batch_tokens=budget or self.budget,
                width_multiple=WIDTH_MULTIPLE,
                max_width=self.subject.max_length,
                max_scored=_MOST_SCORED,
            )
        )
        return list(zip(work, self.step(work), strict=True))

    def seconds(self, texts: Sequence[Tokens], budget: int | None = None) -> float:
        """Of a pass."""
        begin = time.perf_counter()
        self.run(texts, budget)
        return time.perf_counter() - begin


def executor_way(name: str, subject: Subject, executor: Executor, graph: Path, busy: list[float]) -> Way:
    """The engine's executor; each pass adds the share of its time in which a batch was at work."""

    def step(work: Sequence[Batch]) -> Iterator[NDArray[np.float32]]:
        begin, seconds = time.perf_counter(), 0.0
        for done in executor.run(Job(graph, batch, (subject.output,)) for batch in work):
            seconds += done.seconds
            yield done.outputs[subject.output]
        busy.append(round(seconds / (time.perf_counter() - begin), 4))

    return Way(name, subject, step)


def references(subject: Subject, folder: Path, texts: Sequence[Tokens], device: Device) -> References:
    """Values of transformers in float32 with eager attention."""
    found = _eager(subject, folder, device).run(texts, _REFERENCE_TOKENS)
    free()
    values = [np.empty(0, dtype=np.float32)] * len(texts)
    for batch, of_batch in found:
        for place, member in enumerate(batch.members.tolist()):
            of_row = batch.scored[:, 0] == place if subject.output == "nll" else slice(place, place + 1)
            values[member] = of_batch[of_row].ravel()
    return References(subject.output, list(texts), values)


def _eager(subject: Subject, folder: Path, device: Device) -> Way:
    peer = Transformers(subject, folder, device=device.kind, dtype=torch.float32, attention="eager")
    return Way("reference", subject, partial(map, peer))


def by_row(output: Output, found: Sequence[tuple[Batch, NDArray[np.float32]]]) -> list[NDArray[np.float64]]:
    """Each row's value in the order of the texts: its mean NLL, (1,), a vector, or a number, (1,)."""
    rows: dict[int, NDArray[np.float64]] = {}
    for batch, values in found:
        for place, member in enumerate(batch.members.tolist()):
            own = values[batch.scored[:, 0] == place].mean(keepdims=True) if output == "nll" else values[place]
            rows[member] = np.atleast_1d(own.astype(np.float64))
    return [rows[member] for member in range(len(rows))]


def difference(output: Output, found: Sequence[NDArray[np.float64]], wanted: Sequence[NDArray[np.float64]]) -> float:
    """The largest of a row, in standard deviations of the rows' values; 1 - cosine of embeddings."""
    if output == "embedding":
        return max(
            float(1 - one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
            for one, other in zip(found, wanted, strict=True)
        )
    one, other = np.concatenate(found), np.concatenate(wanted)
    return float(np.abs(one - other).max() / other.std())


def wanted_by_row(found: References) -> list[NDArray[np.float64]]:
    """The reference of each row, as :func:`by_row` has it."""
    mean = found.output == "nll"
    return [(value.mean(keepdims=True) if mean else value).astype(np.float64) for value in found.values]


def free() -> None:
    """Return what torch holds of the device's memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
