"""Distances between two samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 20


def distances(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """Return the Kolmogorov-Smirnov statistic and the Wasserstein-1 distance of two samples.

    Memory holds a merged copy of both.

    Args:
        first: (rows,) ascending, without NaN, not empty.
        second: likewise.

    Returns:
        The largest gap between the empirical distribution functions, 0..1, and the area between them, in the values'
        unit.

    Source:
        Two-sample KS statistic (Smirnov 1948); W1 as the integral of |F - G| (Vallender 1974).
    """
    points = np.concatenate([first, second])
    points.sort(kind="stable")  # merges the two sorted parts in linear time
    largest = area = 0.0
    for begin in range(0, len(points), _CHUNK):
        steps = points[begin : begin + _CHUNK + 1]  # the last one is also the first of the next chunk
        below_first = np.searchsorted(first, steps, side="right") / len(first)
        below_second = np.searchsorted(second, steps, side="right") / len(second)
        gap = np.abs(below_first - below_second)
        largest = max(largest, float(gap.max()))
        area += float(gap[:-1] @ np.diff(steps))
    return largest, area
