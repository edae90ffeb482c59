"""Exact distances to the nearest neighbours of every row, in blocks: memory does not grow with the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# (queries, points, k) → the k largest inner products of each query, descending, and their points' indices
TopK: TypeAlias = Callable[
    [NDArray[np.float32], NDArray[np.float32], int], tuple[NDArray[np.float32], NDArray[np.int64]]
]
Progress: TypeAlias = Callable[[int, int], None]

_QUERIES = 512
_POINTS = 16384
_MARGIN = 4  # candidates beyond the neighbours wanted, for those that float32 cannot tell apart
_WIDER = 8  # how many times more candidates the next search takes where the last was not certain
_PRODUCT_ERROR = 1e-5  # of a float32 inner product of unit vectors, with room to spare
_DIFFERENCES = 16  # candidates whose differences are held at a time


def kth_distances(
    points: NDArray[np.float32], k: int, top_k: TopK, *, progress: Progress | None = None
) -> NDArray[np.float64]:
    """Euclidean distance from each row to its k-th nearest other row.

    Candidates come from inner products in float32; their distances are then computed from the differences in
    float64, because the square root of 2 − 2·cos errs by 3e-4 between near duplicates. Where a row that was left out
    could still be nearer, within float32's error, the search is widened until none can.

    Args:
        points: float32 (rows, size) of unit vectors, in memory or mapped from a file.
        k: which neighbour, the row itself not counted; rows must be more than k.
        top_k: finds the largest inner products.
        progress: called with rows done and rows in all.

    Returns:
        float64 (rows,).
    """
    rows = len(points)
    distances = np.empty(rows, dtype=np.float64)
    for begin in range(0, rows, _QUERIES):
        open_rows = np.arange(begin, min(begin + _QUERIES, rows))
        wanted = k + 1 + _MARGIN  # the row itself is among them, unless enough duplicates of it are
        while len(open_rows):
            found, certain = _kth(points, open_rows, k, min(wanted, rows), top_k)
            distances[open_rows] = found
            open_rows = open_rows[~certain]
            wanted *= _WIDER
        if progress is not None:
            progress(min(begin + _QUERIES, rows), rows)
    return distances


def _kth(
    points: NDArray[np.float32], queries: NDArray[np.int64], k: int, wanted: int, top_k: TopK
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The k-th distance among the candidates, and whether no other row can be nearer: both (queries,)."""
    vectors = points[queries]
    products, candidates = _candidates(vectors, points, wanted, top_k)
    found = np.empty(candidates.shape, dtype=np.float64)
    for begin in range(0, wanted, _DIFFERENCES):
        part = candidates[:, begin : begin + _DIFFERENCES]
        difference = points[part].astype(np.float64) - vectors[:, None, :]
        found[:, begin : begin + _DIFFERENCES] = np.sqrt(np.einsum("qcd,qcd->qc", difference, difference))
    found[candidates == queries[:, None]] = np.inf
    kth = np.partition(found, k - 1, axis=1)[:, k - 1]
    nearest_left_out = 2 - 2 * (products.min(axis=1).astype(np.float64) + _PRODUCT_ERROR)
    return kth, (kth**2 <= nearest_left_out) | (wanted == len(points))


def _candidates(
    queries: NDArray[np.float32], points: NDArray[np.float32], wanted: int, top_k: TopK
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
            kept = np.argpartition(-best, wanted - 1, axis=1)[:, :wanted]
            best = np.take_along_axis(best, kept, axis=1)
            where = np.take_along_axis(where, kept, axis=1)
    return best, where
