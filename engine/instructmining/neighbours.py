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
_MARGIN = 4  # kept beyond the neighbours wanted, for those that float32 cannot tell apart


def kth_distances(
    points: NDArray[np.float32], k: int, top_k: TopK, *, progress: Progress | None = None
) -> NDArray[np.float64]:
    """Euclidean distance from each row to its k-th nearest other row.

    Candidates come from inner products in float32; their distances are then computed from the differences in
    float64, because the square root of 2 − 2·cos errs by 3e-4 between near duplicates.

    Args:
        points: float32 (rows, size) of unit vectors, in memory or mapped from a file.
        k: which neighbour, the row itself not counted; rows must be more than k.
        top_k: finds the largest inner products.
        progress: called with rows done and rows in all.

    Returns:
        float64 (rows,).
    """
    rows = len(points)
    wanted = k + 1 + _MARGIN  # the row itself is among them, unless enough duplicates of it are
    distances = np.empty(rows, dtype=np.float64)
    for begin in range(0, rows, _QUERIES):
        queries = np.ascontiguousarray(points[begin : begin + _QUERIES])
        candidates = _candidates(queries, points, wanted, top_k)
        difference = points[candidates].astype(np.float64) - queries[:, None, :]
        found = np.sqrt(np.einsum("qcd,qcd->qc", difference, difference))
        itself = candidates == np.arange(begin, begin + len(queries))[:, None]
        found[itself] = np.inf
        distances[begin : begin + len(queries)] = np.partition(found, k - 1, axis=1)[:, k - 1]
        if progress is not None:
            progress(begin + len(queries), rows)
    return distances


def _candidates(
    queries: NDArray[np.float32], points: NDArray[np.float32], wanted: int, top_k: TopK
) -> NDArray[np.int64]:
    """Indices of the points with the largest inner products, int64 (queries, at most wanted)."""
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
    return where
