"""Squared distances in float64: of all pairs by products, then of those that decide by differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# (rows, candidates) positions in a matrix of squared distances, both (pairs,) → those pairs' differences, float64
Differences: TypeAlias = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float64]]

SAME = 1e-12  # relative: distances in float64 that differ by less are equal
_ROUNDED = 2e-14  # of a product of two vectors, over the product of their lengths; some 100 times float64's step
_PAIRS = 8192  # whose differences are held at a time


def squared_distances(queries: NDArray[np.float64], points: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Squared distances between vectors, by their inner products, and how far these may be off.

    Args:
        queries: float64 (…, queries, size), as near the origin as they can be moved: that is what the error grows with.
        points: float64 (…, points, size), moved likewise.

    Returns:
        float64 (…, queries, points), and the largest error of any of them.
    """
    lengths = np.einsum("...qd,...qd->...q", queries, queries)
    others = lengths if points is queries else np.einsum("...pd,...pd->...p", points, points)
    squared = np.matmul(queries, np.swapaxes(points, -1, -2))
    squared *= -2
    squared += lengths[..., :, None]
    squared += others[..., None, :]
    return squared, _ROUNDED * (lengths.max(initial=0.0) ** 0.5 + others.max(initial=0.0) ** 0.5) ** 2


def smallest(
    squared: NDArray[np.float64], error: float, ks: Sequence[int], differences: Differences
) -> list[NDArray[np.float64]]:
    """The k-th smallest squared distance of each row, for each k, computed from the differences.

    Args:
        squared: (rows, candidates) within the error; inf where there is no candidate. Those that decide are replaced.
        error: of the squared distances.
        ks: which, from 1; a row may have fewer candidates, and then has inf.
        differences: computes those that decide.

    Returns:
        (rows,) for each k.
    """
    # Computed exactly, each squared distance changes by at most the error, and so does the k-th smallest of them:
    # only those within twice that of it decide.
    decides = np.zeros(squared.shape, dtype=bool)
    for kth in _kth(squared, ks):
        decides |= (squared >= kth[:, None] - 2 * error) & (squared <= kth[:, None] + 2 * error)
    decides &= np.isfinite(squared)
    replace(squared, decides, differences)
    return _kth(squared, ks)


def replace(squared: NDArray[np.float64], wanted: NDArray[np.bool_], differences: Differences) -> None:
    """Compute some of the squared distances, (rows, candidates), from the differences."""
    rows, columns = np.nonzero(wanted)
    for begin in range(0, len(rows), _PAIRS):
        row, column = rows[begin : begin + _PAIRS], columns[begin : begin + _PAIRS]
        difference = differences(row, column)
        squared[row, column] = np.einsum("pd,pd->p", difference, difference)


def _kth(squared: NDArray[np.float64], ks: Sequence[int]) -> list[NDArray[np.float64]]:
    places = [k - 1 for k in ks]
    ordered = np.partition(squared, sorted(set(places)), axis=1)
    return [ordered[:, place] for place in places]
