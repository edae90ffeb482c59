"""Neighbours of rows in crowds, where float32 cannot tell the nearest from thousands that are nearly as near.

Rows near each other are searched together: every possible neighbour of any of them lies around one of them, so one row
of inner products finds it for all. Distances are then computed in float64 from vectors relative to that row, which
costs a matrix product and errs by 1e-13 of the crowd's own width, not of the vectors' length. What stays undecided,
crowds inside crowds, is split and searched again, and in the end computed from differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.knn.float64 import SAME, replace, smallest, squared_distances
from instructmining.knn.tiles import Vectors

Compute: TypeAlias = Callable[[Vectors, Vectors], NDArray[np.float32]]  # (q, size), (p, size) → (q, p) inner products

_GROUP = 512  # most rows that are searched together
_GROUPS = 256  # groups searched at a time
_BLOCK_ROWS = 4096  # rows in these groups
_POINTS = 8192  # points compared at a time
_TILE = 1024  # of these, points multiplied at a time
_MARGIN = 4  # candidates beyond the neighbours wanted, for ties that float64 cannot tell apart
_NEAR = 16  # times the error: rows nearer to each other than this are in one crowd
_PARTED = 2  # times a crowd is split; what is still undecided is computed from differences


@dataclass(frozen=True, slots=True)
class OpenRows:
    """Rows whose neighbours are not certain, with what is known of them."""

    rows: NDArray[np.int64]  # (open,) rows of the queries
    farthest: NDArray[np.float64]  # (open,) no neighbour wanted has a larger squared distance
    near: NDArray[np.int64]  # (pairs, 2) rows of the queries and points that are nearer than the error can tell

    @classmethod
    def of(
        cls,
        rows: NDArray[np.int64],
        farthest: NDArray[np.float64],
        squared: NDArray[np.float64],
        where: NDArray[np.int64] | NDArray[np.int32],
        error: float,
    ) -> OpenRows:
        """Build from squared distances and points of candidates, both (rows, candidates), and the distances' error."""
        row, column = np.nonzero(squared <= _NEAR * error)
        return cls(rows, farthest, np.stack([rows[row], where[row, column]], axis=1))

    @classmethod
    def joined(cls, parts: Sequence[OpenRows]) -> OpenRows:
        """Join at least one, of different rows."""
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.farthest for part in parts]),
            np.concatenate([part.near for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Distances of some rows."""

    rows: NDArray[np.int64]  # (rows,) rows of the queries
    squared: NDArray[np.float64]  # (rows, ks)


@dataclass(frozen=True, slots=True)
class Crowds:
    """Searches the neighbours of rows among points."""

    points: Vectors  # (points, size), in memory or mapped from a file
    queries: Vectors  # (queries, size), the points themselves or other rows
    among: bool  # whether queries are the points, and none is its own neighbour
    ks: Sequence[int]  # which neighbours
    compute: Compute  # inner products on the CPU
    squares: NDArray[np.float64]  # (points,) squared lengths
    error: float  # of a squared distance computed by ``compute``

    def search(self, opened: OpenRows) -> Iterator[Found]:
        """Yield the distances of rows, each row once."""
        for last in [False] * _PARTED + [True]:
            left = []
            for block in _blocks(self._groups(opened)):
                groups = [_Group(self, opened.rows[at], opened.farthest[at], by_difference=last) for at in block]
                self._fill(groups)
                for group in groups:
                    found, still = group.result()
                    yield found
                    if still is not None:
                        left.append(still)
            if not left:
                return
            opened = OpenRows.joined(left)

    def differences(self, rows: NDArray[np.int64], points: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the differences of queries and points, float64 (pairs, size)."""
        found: NDArray[np.float64] = self.points[points].astype(np.float64) - self.queries[rows]
        return found

    def _groups(self, opened: OpenRows) -> list[NDArray[np.intp]]:
        """Return the places of open rows that belong together."""
        first = 0 if self.among else len(self.points)  # number of the first query, after the points
        labels = _components(first + len(self.queries), opened.near[:, 0] + first, opened.near[:, 1])
        labels = labels[opened.rows + first]
        order = np.argsort(labels, kind="stable")
        ends = np.flatnonzero(np.diff(labels[order])) + 1
        crowds = np.split(order, ends)
        return [crowd[at : at + _GROUP] for crowd in crowds for at in range(0, len(crowd), _GROUP)]

    def _fill(self, groups: Sequence[_Group]) -> None:
        """Add the points to each group that can be neighbours of its rows."""
        centres = np.ascontiguousarray(self.queries[[group.rows[0] for group in groups]])
        lengths = np.einsum("gd,gd->g", centres, centres, dtype=np.float64)
        reach = np.array([group.reach for group in groups])
        # |p|² + |c|² − 2·p·c ≤ reach², where the product may be off by half the error.
        least = (lengths - reach**2 - self.error) / 2
        for begin in range(0, len(self.points), _POINTS):
            block = np.ascontiguousarray(self.points[begin : begin + _POINTS])
            inside = self.compute(centres, block) >= least[:, None] + self.squares[begin : begin + _POINTS] / 2
            for number in np.flatnonzero(inside.any(axis=1)).tolist():
                columns = np.flatnonzero(inside[number])
                groups[number].take(columns + begin, block[columns])


class _Group:
    """Rows near each other, and the nearest points so far."""

    def __init__(
        self, crowds: Crowds, rows: NDArray[np.int64], farthest: NDArray[np.float64], *, by_difference: bool
    ) -> None:
        self.rows = rows
        self._crowds = crowds
        self._by_difference = by_difference
        self._farthest = farthest
        self._centre = crowds.queries[rows[0]].astype(np.float64)
        self._vectors = crowds.queries[rows] - self._centre
        radius = np.sqrt(np.einsum("rd,rd->r", self._vectors, self._vectors).max())
        self.reach = float((radius + np.sqrt(farthest.max())) * (1 + SAME))
        self._squared = np.empty((len(rows), 0))
        self._where = np.empty((len(rows), 0), dtype=np.int64)
        self._left_out = np.full(len(rows), np.inf)  # no skipped point is nearer
        self._error = 0.0

    def take(self, where: NDArray[np.int64], vectors: Vectors) -> None:
        """Process more points, ascending."""
        for begin in range(0, len(where), _TILE):
            self._take(where[begin : begin + _TILE], vectors[begin : begin + _TILE])

    def _take(self, where: NDArray[np.int64], vectors: Vectors) -> None:
        squared, error = squared_distances(self._vectors, vectors - self._centre)
        if self._crowds.among:
            place = np.minimum(np.searchsorted(where, self.rows), len(where) - 1)
            own = np.flatnonzero(where[place] == self.rows)
            squared[own, place[own]] = np.inf
        if self._by_difference:
            wanted = squared <= self._farthest[:, None] + 2 * error
            wanted &= np.isfinite(squared)
            replace(squared, wanted, lambda row, column: self._crowds.differences(self.rows[row], where[column]))
        else:
            self._error = max(self._error, error)
        kept = max(self._crowds.ks) + _MARGIN
        if self._squared.shape[1] == kept:
            floor = self._squared.max(axis=1)
            self._left_out = np.minimum(self._left_out, floor)
            squared, where = _packed(squared, where, floor)
        else:
            where = np.broadcast_to(where, squared.shape)
        squared = np.concatenate([self._squared, squared], axis=1)
        where = np.concatenate([self._where, where], axis=1)
        if squared.shape[1] > kept:
            order = np.argpartition(squared, kept, axis=1)[:, : kept + 1]
            squared, where = np.take_along_axis(squared, order, axis=1), np.take_along_axis(where, order, axis=1)
            self._left_out = np.minimum(self._left_out, squared[:, kept])
        self._squared, self._where = squared[:, :kept], where[:, :kept]

    def result(self) -> tuple[Found, OpenRows | None]:
        """Return the distances, and the rows whose distances are not certain."""
        where = self._where
        found = smallest(
            self._squared,
            self._error,
            self._crowds.ks,
            lambda row, column: self._crowds.differences(self.rows[row], where[row, column]),
        )
        farthest = np.max(found, axis=0)
        still = (farthest > 0) & (farthest * (1 - SAME) > self._left_out - self._error) & (not self._by_difference)
        certain = Found(self.rows[~still], np.stack(found, axis=1)[~still])
        if not still.any():
            return certain, None
        left = OpenRows.of(self.rows[still], farthest[still], self._squared[still], where[still], self._error)
        return certain, left


def _components(count: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number ``count`` items by connected component, joined by the pairs."""
    labels = np.arange(count)
    while True:
        one, other = labels[first], labels[second]
        apart = one != other
        if not apart.any():
            return labels
        first, second, one, other = first[apart], second[apart], one[apart], other[apart]
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while (labels != (further := labels[labels])).any():
            labels = further


def _blocks(groups: Sequence[NDArray[np.intp]]) -> Iterator[list[NDArray[np.intp]]]:
    """Yield groups of open rows, some at a time."""
    block: list[NDArray[np.intp]] = []
    rows = 0
    for group in groups:
        if block and (len(block) == _GROUPS or rows + len(group) > _BLOCK_ROWS):
            yield block
            block, rows = [], 0
        block.append(group)
        rows += len(group)
    if block:
        yield block


def _packed(
    squared: NDArray[np.float64], where: NDArray[np.int64], floor: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return for each row the values below its floor, padded with inf."""
    rows, columns = np.divmod(np.flatnonzero(squared < floor[:, None]), squared.shape[1])
    counts = np.bincount(rows, minlength=len(squared))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    packed = np.full((len(squared), counts.max()), np.inf)
    neighbours = np.zeros(packed.shape, dtype=np.int64)
    packed[rows, place] = squared[rows, columns]
    neighbours[rows, place] = where[columns]
    return packed, neighbours
