"""Squared distances in float64: all pairs by products, then the decisive ones by differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# (rows, candidates) positions in a matrix of squared distances, both (pairs,) → those pairs' differences, float64
Differences: TypeAlias = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float64]]

SAME = 1e-12  # relative; float64 distances that differ by less are equal
_ROUNDED = 2e-14  # of a product of two vectors, over the product of their lengths; some 100 times float64's step
_PAIRS = 8192  # pairs whose differences are held at a time


def squared_distances(queries: NDArray[np.float64], points: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return squared distances between vectors by their inner products, and the largest error of any.

    Args:
        queries: float64 (…, queries, size), as near the origin as possible, since the error grows with the length.
        points: float64 (…, points, size), moved by the same offset.

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
    """Return the k-th smallest squared distance of each row, for each k, computed from the differences.

    Args:
        squared: (rows, candidates) within the error, inf for no candidate. The decisive ones are replaced in place.
        error: largest error of a squared distance.
        ks: which neighbours, from 1; a row with fewer candidates has inf.
        differences: computes the decisive differences.

    Returns:
        (rows,) for each k.
    """
    # Computed exactly, each squared distance changes by at most the error, and so does the k-th smallest: only those
    # within twice the error of it are decisive.
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
