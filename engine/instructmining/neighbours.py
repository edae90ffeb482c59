"""Exact distances to the nearest neighbours of every row, in blocks: a few numbers a row stay in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.candidates import Checkpoint, Products, Vectors, largest_products, one_tile, tiles_of

# (queries, points, k) → the k largest inner products of each query, descending, and their points' indices
TopK: TypeAlias = Callable[[Vectors, Vectors, int], tuple[NDArray[np.float32], NDArray[np.int64]]]
Progress: TypeAlias = Callable[[int, int], None]
Places: TypeAlias = NDArray[np.int32] | NDArray[np.int64]

_QUERIES = 512
_POINTS = 16384
_ROWS = 4096  # whose candidates are settled at a time
_MARGIN = 4  # candidates beyond the neighbours wanted, for those that float32 cannot tell apart
_WIDER = 8  # how many times more candidates the next search takes where the last was not certain
_PRODUCT_ERROR = 1e-5  # of a float32 inner product of unit vectors, with room to spare
_DIFFERENCES = 8192  # pairs whose differences are held at a time
_OVERHEAD = 1.1  # merging and settling beside the tiles: a tenth to a fifth of 20,000 rows, less of more


def neighbour_distances(
    points: Vectors,
    ks: Sequence[int],
    search: TopK | Products,
    *,
    queries: Vectors | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> NDArray[np.float64]:
    """Euclidean distances from each row to its k-th nearest other row, for several k by one search.

    Candidates come from inner products in float32; those that decide are then computed from the differences in
    float64, because the square root of 2 − 2·cos errs by 3e-4 between near duplicates. Where a row that was left out
    could still be nearer, within float32's error, the search is widened until none can.

    Args:
        points: float32 (rows, size), near unit length, in memory or mapped from a file.
        ks: which neighbours, the row itself not counted; rows must be more than each.
        search: computes inner products on the CPU, or finds the largest of them on a device.
        queries: float32 (queries, size), where the distances wanted are not those of the points but from these to the
            points, of which none is left out; points may then be as many as the largest k.
        progress: called with rows done and rows in all, from the calling thread.
        checkpoint: where a search on the CPU keeps its state.

    Returns:
        float64 (rows, ks), or (queries, ks).
    """
    if queries is not None:
        return _distances_to(points, ks, search, queries, progress)
    rows = len(points)
    exact = _Exact(points, ks)
    if isinstance(search, Products):
        wanted = min(max(ks) + _MARGIN, rows - 1)

        def report(share: float) -> None:
            if progress is not None:
                progress(min(int(share * rows), rows - 1), rows)

        found = largest_products(points, wanted, search, report=report, checkpoint=checkpoint)
        for begin in range(0, rows, _ROWS):
            block = np.arange(begin, min(begin + _ROWS, rows))
            floor = found.products[block].min(axis=1)
            open_rows = exact.settle(block, found.products[block], found.where[block], floor)
            for part in range(0, len(open_rows), _QUERIES):
                exact.widen(open_rows[part : part + _QUERIES], wanted * _WIDER, partial(_top_k, search))
        if progress is not None:
            progress(rows, rows)
    else:
        for begin in range(0, rows, _QUERIES):
            block = np.arange(begin, min(begin + _QUERIES, rows))
            exact.widen(block, max(ks) + 1 + _MARGIN, search)  # the row itself is among them
            if progress is not None:
                progress(int(block[-1]) + 1, rows)
    return exact.distances


def _distances_to(
    points: Vectors, ks: Sequence[int], search: TopK | Products, queries: Vectors, progress: Progress | None
) -> NDArray[np.float64]:
    exact = _Exact(points, ks, queries)
    wanted = max(ks) + _MARGIN
    if isinstance(search, Products):
        top_k: TopK = partial(_top_k, search)
        threads = search.threads
    else:
        top_k, threads = search, 1

    def block(begin: int) -> int:
        rows = np.arange(begin, min(begin + _QUERIES, len(queries)))
        exact.widen(rows, wanted, top_k)
        return len(rows)

    done = 0
    with ThreadPoolExecutor(threads, "instructmining-neighbours") as pool:
        try:
            for rows in pool.map(block, range(0, len(queries), _QUERIES)):
                done += rows
                if progress is not None:
                    progress(done, len(queries))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # where it was broken off, blocks that are not begun
    return exact.distances


def kth_distances(
    points: Vectors, k: int, search: TopK | Products, *, progress: Progress | None = None
) -> NDArray[np.float64]:
    """Distances to the k-th nearest other row alone, float64 (rows,); see :func:`neighbour_distances`."""
    return neighbour_distances(points, (k,), search, progress=progress)[:, 0]


def estimate_seconds(points: Vectors, search: TopK | Products) -> float:
    """How long :func:`neighbour_distances` will take, from one block timed here; takes about a block's time itself."""
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
    """Of a call that is not the first."""
    work()
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class _Exact:
    """Distances as they become certain."""

    def __init__(self, points: Vectors, ks: Sequence[int], queries: Vectors | None = None) -> None:
        """The distances of the points to each other, or of queries, which are other rows, to them."""
        self._among = queries is None
        self._points = np.asarray(points)
        self._queries = np.asarray(points if queries is None else queries)
        self.distances = np.empty((len(self._queries), len(ks)), dtype=np.float64)
        self._ks = tuple(ks)
        self._squares = _squares(points)
        self._query_squares = self._squares if queries is None else _squares(queries)
        self._shortest = float(self._squares.min())
        longest = max(float(self._squares.max()), float(self._query_squares.max(initial=0.0)))
        self._error = _PRODUCT_ERROR * max(1.0, longest)

    def settle(
        self, rows: NDArray[np.int64], products: NDArray[np.float32], where: Places, floor: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Set the distances of rows from their candidates; returns the rows that need more candidates.

        Args:
            rows: (rows,) of the queries.
            products: (rows, candidates) inner products with other rows, −inf where there is none.
            where: (rows, candidates) the other rows, of the points.
            floor: (rows,) no row left out has a larger product.
        """
        squared = self._query_squares[rows][:, None] + self._squares[where] - 2 * products.astype(np.float64)
        # Computed exactly, a squared distance changes by at most twice the products' error, and so does the k-th
        # smallest of them: only those within twice that of it decide, and only they are computed.
        decides = np.zeros(squared.shape, dtype=bool)
        for kth in self._kth(squared):
            decides |= np.abs(squared - kth[:, None]) <= 4 * self._error
        pairs, columns = np.nonzero(decides)
        for begin in range(0, len(pairs), _DIFFERENCES):
            part, column = pairs[begin : begin + _DIFFERENCES], columns[begin : begin + _DIFFERENCES]
            difference = self._points[where[part, column]].astype(np.float64) - self._queries[rows[part]]
            squared[part, column] = np.einsum("pd,pd->p", difference, difference)
        found = self._kth(squared)
        self.distances[rows] = np.sqrt(np.stack(found, axis=1))
        farthest = np.max(found, axis=0)
        nearest_left_out = self._query_squares[rows] + self._shortest - 2 * (floor.astype(np.float64) + self._error)
        uncertain = (farthest > nearest_left_out) & (farthest > 0)
        open_rows: NDArray[np.int64] = rows[uncertain]
        return open_rows

    def widen(self, rows: NDArray[np.int64], wanted: int, top_k: TopK) -> None:
        """Set the distances of rows, among more and more candidates until they are certain."""
        points = len(self._points)
        while len(rows):
            products, where = _candidates(self._queries[rows], self._points, min(wanted, points), top_k)
            floor = products.min(axis=1) if wanted < points else np.full(len(rows), -np.inf, dtype=np.float32)
            if self._among:
                products[where == rows[:, None]] = -np.inf  # a row is not its own neighbour
            rows = self.settle(rows, products, where, floor)
            wanted *= _WIDER

    def _kth(self, squared: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """The k-th smallest of each row, for each k."""
        places = [k - 1 for k in self._ks]
        ordered = np.partition(squared, sorted(set(places)), axis=1)
        return [ordered[:, place] for place in places]


def _squares(points: Vectors) -> NDArray[np.float64]:
    """Squared lengths, (rows,)."""
    blocks = (points[begin : begin + _ROWS] for begin in range(0, len(points), _ROWS))
    return np.concatenate([np.empty(0), *(np.einsum("rd,rd->r", part, part, dtype=np.float64) for part in blocks)])


def _top_k(
    products: Products, queries: Vectors, points: Vectors, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k largest inner products of each query, in no order."""
    tile = products.compute(queries, points)
    largest = np.argpartition(tile, -k, axis=1)[:, -k:]
    return np.take_along_axis(tile, largest, axis=1), largest


def _candidates(
    queries: Vectors, points: Vectors, wanted: int, top_k: TopK
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The largest inner products and the indices of their points, both (queries, wanted)."""
    best = np.empty((len(queries), 0), dtype=np.float32)
    where = np.empty((len(queries), 0), dtype=np.int64)
    for begin in range(0, len(points), _POINTS):
        block = np.ascontiguousarray(points[begin : begin + _POINTS])
        values, indices = top_k(queries, block, min(wanted, len(block)))
        best = np.concatenate([best, values], axis=1)
        where = np.concatenate([where, indices + begin], axis=1)
        if best.shape[1] > wanted:
            kept = np.argpartition(best, -wanted, axis=1)[:, -wanted:]
            best = np.take_along_axis(best, kept, axis=1)
            where = np.take_along_axis(where, kept, axis=1)
    return best, where
