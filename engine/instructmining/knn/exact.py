"""Exact distances to the nearest neighbours of every row, in blocks; memory holds a few numbers per row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.knn.float64 import smallest
from instructmining.knn.near_identical import Compute, Crowds, OpenRows
from instructmining.knn.tiles import Checkpoint, Products, Vectors, largest_products, one_tile, tiles_of

# (queries, points, k) → the k largest inner products of each query, descending, and their points' indices
TopK: TypeAlias = Callable[[Vectors, Vectors, int], tuple[NDArray[np.float32], NDArray[np.int64]]]
Progress: TypeAlias = Callable[[int, int], None]
Places: TypeAlias = NDArray[np.int32] | NDArray[np.int64]

_QUERIES = 512
_POINTS = 16384
_ROWS = 4096  # rows whose candidates are settled at a time
_MARGIN = 4  # candidates beyond the neighbours wanted, for ties that float32 cannot tell apart
_PRODUCT_ERROR = 1e-5  # of a float32 inner product of unit vectors, with a margin
_OVERHEAD = 1.1  # merging and settling in addition to the tiles: a tenth to a fifth of 20,000 rows, less of more


def neighbour_distances(
    points: Vectors,
    ks: Sequence[int],
    search: TopK | Products,
    *,
    queries: Vectors | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> NDArray[np.float64]:
    """Return Euclidean distances from each row to its k-th nearest other row, for several k in one search.

    Candidates come from inner products in float32. The decisive ones are then computed from the differences in
    float64, because the square root of 2 − 2·cos errs by 3e-4 between near duplicates. Where a skipped row could still
    be nearer, within float32's error, rows are searched again in float64, together with those near them.

    Args:
        points: float32 (rows, size), near unit length, in memory or mapped from a file.
        ks: which neighbours, without the row itself; there must be more rows than each.
        search: computes inner products on the CPU, or finds the largest of them on a device.
        queries: float32 (queries, size), to find distances from these rows to the points instead; no point is then
            excluded, and there must be at least max(ks) points.
        progress: called with rows done and rows in all, in the calling thread.
        checkpoint: stores the state of a search on the CPU.

    Returns:
        float64 (rows, ks), or (queries, ks).
    """
    exact = _Exact(points, ks, queries)
    if queries is not None:
        open_rows = _among_others(exact, max(ks) + _MARGIN, search, progress)
    elif isinstance(search, Products):
        open_rows = _by_tiles(exact, min(max(ks) + _MARGIN, len(points) - 1), search, progress, checkpoint)
    else:
        open_rows = _by_blocks(exact, max(ks) + 1 + _MARGIN, search, 1, progress)  # the row itself is one of them
    exact.finish(open_rows, search.compute if isinstance(search, Products) else _products)
    if progress is not None:
        progress(len(exact.distances), len(exact.distances))
    return exact.distances


def _by_tiles(
    exact: _Exact, wanted: int, products: Products, progress: Progress | None, checkpoint: Checkpoint | None
) -> list[OpenRows]:
    rows = len(exact.distances)

    def report(share: float) -> None:
        if progress is not None:
            progress(min(int(share * rows), rows - 1), rows)

    found = largest_products(exact.points, wanted, products, report=report, checkpoint=checkpoint)
    open_rows = []
    for begin in range(0, rows, _ROWS):
        block = np.arange(begin, min(begin + _ROWS, rows))
        floor = found.products[block].min(axis=1)
        open_rows.append(exact.settle(block, found.products[block], found.where[block], floor))
    return open_rows


def _among_others(exact: _Exact, wanted: int, search: TopK | Products, progress: Progress | None) -> list[OpenRows]:
    if isinstance(search, Products):
        return _by_blocks(exact, wanted, partial(_top_k, search), search.threads, progress)
    return _by_blocks(exact, wanted, search, 1, progress)


def _by_blocks(exact: _Exact, wanted: int, top_k: TopK, threads: int, progress: Progress | None) -> list[OpenRows]:
    rows = len(exact.distances)

    def block(begin: int) -> OpenRows:
        return exact.search(np.arange(begin, min(begin + _QUERIES, rows)), wanted, top_k)

    open_rows = []
    with ThreadPoolExecutor(threads, "instructmining-neighbours") as pool:
        try:
            for begin, found in zip(range(0, rows, _QUERIES), pool.map(block, range(0, rows, _QUERIES)), strict=True):
                open_rows.append(found)
                if progress is not None and begin + _QUERIES < rows:
                    progress(begin + _QUERIES, rows)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # drops blocks that have not started
    return open_rows


def kth_distances(
    points: Vectors, k: int, search: TopK | Products, *, progress: Progress | None = None
) -> NDArray[np.float64]:
    """Return distances to the k-th nearest other row alone, float64 (rows,); see :func:`neighbour_distances`."""
    return neighbour_distances(points, (k,), search, progress=progress)[:, 0]


def estimate_seconds(points: Vectors, search: TopK | Products) -> float:
    """Estimate the seconds that :func:`neighbour_distances` will take, by timing one block here."""
    rows = len(points)
    if isinstance(search, Products):
        with ThreadPoolExecutor(search.threads) as pool:

            def round_of_tiles() -> None:
                for done in [pool.submit(one_tile, points, search) for _ in range(search.threads)]:
                    done.result()

            return _OVERHEAD * tiles_of(rows) / search.threads * _seconds(round_of_tiles)
    queries, block = np.ascontiguousarray(points[:_QUERIES]), np.ascontiguousarray(points[:_POINTS])
    blocks = (rows / len(queries)) * (rows / len(block))
    return _OVERHEAD * blocks * _seconds(lambda: search(queries, block, min(8, len(block))))


def _seconds(work: Callable[[], object]) -> float:
    """Return the seconds of a call, after one to warm up."""
    work()
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class _Exact:
    """Distances as they become certain."""

    def __init__(self, points: Vectors, ks: Sequence[int], queries: Vectors | None = None) -> None:
        """Prepare distances between the points, or from queries, which are other rows, to them."""
        self.points = np.asarray(points)
        # The same arrays for every block of queries, so that a device copies each once.
        self._blocks = [np.ascontiguousarray(self.points[at : at + _POINTS]) for at in range(0, len(points), _POINTS)]
        self._among = queries is None
        self._queries = np.asarray(points if queries is None else queries)
        self.distances = np.empty((len(self._queries), len(ks)), dtype=np.float64)
        self._ks = tuple(ks)
        self._squares = _squares(points)
        self._query_squares = self._squares if queries is None else _squares(queries)
        self._shortest = float(self._squares.min())
        longest = max(float(self._squares.max()), float(self._query_squares.max(initial=0.0)))
        self._error = 2 * _PRODUCT_ERROR * max(1.0, longest)  # of a squared distance

    def search(self, rows: NDArray[np.int64], wanted: int, top_k: TopK) -> OpenRows:
        """Find and settle candidates of rows; returns the rows that need more."""
        products, where = _candidates(self._queries[rows], self._blocks, wanted, top_k)
        floor = products.min(axis=1)
        if self._among:
            products[where == rows[:, None]] = -np.inf  # a row is not its own neighbour
        return self.settle(rows, products, where, floor)

    def settle(
        self, rows: NDArray[np.int64], products: NDArray[np.float32], where: Places, floor: NDArray[np.float32]
    ) -> OpenRows:
        """Set the distances of rows from their candidates; returns the rows that need more.

        Args:
            rows: (rows,) rows of the queries.
            products: (rows, candidates) inner products with other rows, −inf for none.
            where: (rows, candidates) the other rows, as rows of the points.
            floor: (rows,) no skipped row has a larger product.
        """
        squared = self._query_squares[rows][:, None] + self._squares[where] - 2 * products.astype(np.float64)

        def differences(row: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.float64]:
            found: NDArray[np.float64] = self.points[where[row, column]].astype(np.float64) - self._queries[rows[row]]
            return found

        found = smallest(squared, self._error, self._ks, differences)
        self.distances[rows] = np.sqrt(np.stack(found, axis=1))
        farthest = np.max(found, axis=0)
        nearest_left_out = self._query_squares[rows] + self._shortest - 2 * floor.astype(np.float64) - self._error
        still = (farthest > nearest_left_out) & (farthest > 0)
        return OpenRows.of(rows[still], farthest[still], squared[still], where[still], self._error)

    def finish(self, parts: Sequence[OpenRows], compute: Compute) -> None:
        """Set the distances of the rows that need more candidates."""
        open_rows = OpenRows.joined(parts)
        crowds = Crowds(
            self.points, self._queries, self._among, self._ks, compute, squares=self._squares, error=self._error
        )
        for found in crowds.search(open_rows):
            self.distances[found.rows] = np.sqrt(found.squared)


def _squares(points: Vectors) -> NDArray[np.float64]:
    """Return squared lengths, (rows,)."""
    blocks = (points[begin : begin + _ROWS] for begin in range(0, len(points), _ROWS))
    return np.concatenate([np.empty(0), *(np.einsum("rd,rd->r", part, part, dtype=np.float64) for part in blocks)])


def _products(queries: Vectors, points: Vectors) -> NDArray[np.float32]:
    return queries @ points.T


def _top_k(
    products: Products, queries: Vectors, points: Vectors, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the k largest inner products of each query, unordered."""
    tile = products.compute(queries, points)
    largest = np.argpartition(tile, -k, axis=1)[:, -k:]
    return np.take_along_axis(tile, largest, axis=1), largest


def _candidates(
    queries: Vectors, blocks: Sequence[Vectors], wanted: int, top_k: TopK
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the largest inner products with points in blocks and the points' indices, both (queries, wanted)."""
    best = np.empty((len(queries), 0), dtype=np.float32)
    where = np.empty((len(queries), 0), dtype=np.int64)
    begin = 0
    for block in blocks:
        values, indices = top_k(queries, block, min(wanted, len(block)))
        best = np.concatenate([best, values], axis=1)
        where = np.concatenate([where, indices + begin], axis=1)
        begin += len(block)
        if best.shape[1] > wanted:
            kept = np.argpartition(best, -wanted, axis=1)[:, -wanted:]
            best = np.take_along_axis(best, kept, axis=1)
            where = np.take_along_axis(where, kept, axis=1)
    return best, where
