"""Neighbours in small pools, many pools of one size at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from instructmining.knn.float64 import smallest, squared_distances


def pool_distances(
    points: NDArray[np.float32], ks: Sequence[int], excluded: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return exact Euclidean distances from each row to its k-th nearest other row of its pool.

    Memory holds a few numbers for each pair of rows of one pool.

    Args:
        points: float32 (pools, rows, size), near unit length.
        ks: which neighbours, without the row itself; fewer than the rows of a pool.
        excluded: (pools, rows, rows) where True, the second row is no neighbour of the first.

    Returns:
        float64 (pools, rows, ks); inf where a row has fewer neighbours.
    """
    pools, rows, size = points.shape
    wide = points.astype(np.float64)
    squared, error = squared_distances(centred := wide - wide[:, :1], centred)
    squared[:, np.arange(rows), np.arange(rows)] = np.inf
    if excluded is not None:
        squared[excluded] = np.inf
    flat = wide.reshape(pools * rows, size)

    def differences(row: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = flat[row] - flat[row // rows * rows + column]
        return found

    found = smallest(squared.reshape(pools * rows, rows), error, ks, differences)
    return np.sqrt(np.stack(found, axis=1)).reshape(pools, rows, len(ks))
