"""Scores the rows of one or several requests together; somebody else computes the batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import Role
from instructmining.errors import DeviceError
from instructmining.inference.batching import Batch, Batching
from instructmining.inference.executor import Job
from instructmining.inference.sessions import OF_POSITIONS
from instructmining.scorer.requests import RowRequests, Texts
from instructmining.tokenizing.truncation import Tokens
from instructmining.types import InputWindow, ScoredWindow

Outputs: TypeAlias = Mapping[str, NDArray[Any]]  # (scored positions,), or (texts, …)
# Computes jobs, in order; an error in the place of what a job gives fails the requests with texts in it, and no other.
Compute: TypeAlias = Callable[[Sequence[Job]], Iterable[Outputs | DeviceError]]


@dataclass(frozen=True, slots=True)
class JointScoring:
    """Tokenizes the rows of requests, and joins texts of like length into batches."""

    requests: RowRequests
    compute: Compute
    others: NDArray[np.float32] | None = None  # embeddings of the rows that serve as neighbours

    def score(self, windows: Sequence[InputWindow]) -> list[ScoredWindow | DeviceError]:
        """Score the rows of each request.

        Args:
            windows: the rows of each request.

        Returns:
            For each request, its rows with all columns and the rejects, or why one of its batches failed.
        """
        prepared = [self.requests.prepare(window) for window in windows]
        computed = outputs_of([one.parts for one in prepared], self.requests.batching, self.compute)
        return [
            found if isinstance(found, DeviceError) else self.requests.finish(one, found, self.others)
            for one, found in zip(prepared, computed, strict=True)
        ]


def outputs_of(
    requests: Sequence[Sequence[Texts]], batching: Batching, compute: Compute
) -> list[list[Outputs] | DeviceError]:
    """Compute the texts of all requests in shared batches.

    Args:
        requests: the parts of each request.
        batching: budgets of the roles.
        compute: computes the batches.

    Returns:
        For each request the outputs of each part, or why one of its batches failed.
    """
    lanes: dict[tuple[Path, tuple[str, ...]], _Lane] = {}
    placed: list[list[tuple[_Lane, int]]] = []
    for request, parts in enumerate(requests):
        of_request = []
        for part in parts:
            lane = lanes.setdefault((part.role.graph, part.outputs), _Lane(part.role, part.outputs))
            of_request.append((lane, lane.add(request, part.texts)))
        placed.append(of_request)
    batches = [(lane, batch) for lane in lanes.values() for batch in batching.of(lane.role, lane.texts)]
    jobs = [Job(lane.role.graph, batch, lane.outputs) for lane, batch in batches]
    failed: dict[int, DeviceError] = {}
    for (lane, batch), found in zip(batches, compute(jobs), strict=True):
        if isinstance(found, DeviceError):
            failed.update(dict.fromkeys(lane.requests_in(batch), found))
        else:
            lane.give(batch, found)
    return [
        failed[request] if request in failed else [lane.share(number) for lane, number in of_request]
        for request, of_request in enumerate(placed)
    ]


class _Lane:
    """Texts of all requests that can share a batch, and the outputs of each."""

    def __init__(self, role: Role, outputs: tuple[str, ...]) -> None:
        self.role, self.outputs = role, outputs
        self.texts: list[Tokens] = []
        self._shares: list[slice] = []  # of the texts, one for each part of a request
        self._requests: list[int] = []  # of each text
        self._values: dict[str, NDArray[Any]] = {}

    def add(self, request: int, texts: Sequence[Tokens]) -> int:
        """Add the texts of a request, and return the number of its share."""
        self._shares.append(slice(len(self.texts), len(self.texts) + len(texts)))
        self.texts += texts
        self._requests += [request] * len(texts)
        return len(self._shares) - 1

    def requests_in(self, batch: Batch) -> set[int]:
        """Return the requests with texts in a batch."""
        return {self._requests[member] for member in batch.members.tolist()}

    def give(self, batch: Batch, outputs: Outputs) -> None:
        """Take the outputs of a batch."""
        begins = self._begins
        places = np.concatenate([np.arange(begins[member], begins[member + 1]) for member in batch.members.tolist()])
        for name, values in outputs.items():
            of_positions = name in OF_POSITIONS
            if name not in self._values:
                size = begins[-1] if of_positions else len(self.texts)
                self._values[name] = np.zeros((size, *values.shape[1:]), dtype=values.dtype)
            self._values[name][places if of_positions else batch.members] = values

    def share(self, number: int) -> Outputs:
        """Return the outputs of a share, once all batches are there."""
        texts, begins = self._shares[number], self._begins
        positions = slice(begins[texts.start], begins[texts.stop])
        return {name: values[positions if name in OF_POSITIONS else texts] for name, values in self._values.items()}

    @cached_property
    def _begins(self) -> NDArray[np.int64]:
        """(texts + 1,) where the scored positions of each text begin among those of all; no text is added after."""
        return np.cumsum([0, *(len(text.scored) for text in self.texts)], dtype=np.int64)
