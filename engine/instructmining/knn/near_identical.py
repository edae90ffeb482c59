"""Neighbours of rows in crowds: where float32 cannot tell the nearest from thousands that are nearly as near.

Rows that are near each other are searched together: what can be a neighbour of any of them lies around one of them, so
one row of inner products finds it for all. Distances are then computed in float64 from vectors counted from that row,
which costs a matrix product and errs by 1e-13 of the crowd's own width, not of the vectors' length. What even that
leaves open, crowds inside crowds, is parted and searched again, and in the end by differences.
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

_GROUP = 512  # rows at most that are searched together
_GROUPS = 256  # at a time
_BLOCK_ROWS = 4096  # in these groups
_POINTS = 8192  # compared at a time
_TILE = 1024  # of these, products at a time
_MARGIN = 4  # candidates beyond the neighbours wanted, for those that float64 cannot tell apart
_NEAR = 16  # times the error: rows nearer to each other than that are of one crowd
_PARTED = 2  # times a crowd is parted; what is then left open is computed by differences


@dataclass(frozen=True, slots=True)
class OpenRows:
    """Rows whose neighbours are not certain, with what is known of them."""

    rows: NDArray[np.int64]  # (open,) of the queries
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
        """With their candidates' squared distances and points, both (rows, candidates), and the error of the former."""
        row, column = np.nonzero(squared <= _NEAR * error)
        return cls(rows, farthest, np.stack([rows[row], where[row, column]], axis=1))

    @classmethod
    def joined(cls, parts: Sequence[OpenRows]) -> OpenRows:
        """Several of them, of different rows; at least one."""
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.farthest for part in parts]),
            np.concatenate([part.near for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Distances of some rows."""

    rows: NDArray[np.int64]  # (rows,) of the queries
    squared: NDArray[np.float64]  # (rows, ks)


@dataclass(frozen=True, slots=True)
class Crowds:
    """Searches the neighbours of rows among points."""

    points: Vectors  # (points, size), in memory or mapped from a file
    queries: Vectors  # (queries, size), the points themselves or others
    among: bool  # whether queries are the points, and none is its own neighbour
    ks: Sequence[int]  # which neighbours
    compute: Compute  # on the CPU
    squares: NDArray[np.float64]  # (points,) squared lengths
    error: float  # of a squared distance by ``compute``

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
        """Differences of queries and points, float64 (pairs, size)."""
        found: NDArray[np.float64] = self.points[points].astype(np.float64) - self.queries[rows]
        return found

    def _groups(self, opened: OpenRows) -> list[NDArray[np.intp]]:
        """Places of open rows that belong to each other."""
        first = 0 if self.among else len(self.points)  # number of the first query, after the points
        labels = _components(first + len(self.queries), opened.near[:, 0] + first, opened.near[:, 1])
        labels = labels[opened.rows + first]
        order = np.argsort(labels, kind="stable")
        ends = np.flatnonzero(np.diff(labels[order])) + 1
        crowds = np.split(order, ends)
        return [crowd[at : at + _GROUP] for crowd in crowds for at in range(0, len(crowd), _GROUP)]

    def _fill(self, groups: Sequence[_Group]) -> None:
        """Give each group the points that can be neighbours of its rows."""
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
    """Rows that are near each other, and the nearest points so far."""

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
        self._left_out = np.full(len(rows), np.inf)  # no point that was met and left out is nearer
        self._error = 0.0

    def take(self, where: NDArray[np.int64], vectors: Vectors) -> None:
        """Look at more points, ascending."""
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
        """The distances, and the rows of which they are not certain."""
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
    """A number for each of ``count`` things, the same for those that pairs join, directly or through others."""
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
    """Groups of open rows, some at a time."""
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
    """Of each row what is below its floor, side by side; inf where there is less than in others."""
    rows, columns = np.divmod(np.flatnonzero(squared < floor[:, None]), squared.shape[1])
    counts = np.bincount(rows, minlength=len(squared))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    packed = np.full((len(squared), counts.max()), np.inf)
    neighbours = np.zeros(packed.shape, dtype=np.int64)
    packed[rows, place] = squared[rows, columns]
    neighbours[rows, place] = where[columns]
    return packed, neighbours
