"""Chooses the axis of a column: its range, linear or logarithmic, and bins that all sets share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 40
_LEAST_BINS = 8
_BINS_PER_ROOT = 3.0  # bins per cube root of the rows: few rows make few, steady bars
_LOG_FROM = 50.0  # spread of the middle 98 % from which an axis of positive values is logarithmic
_TAIL = 0.001  # share of rows on either side that a linear axis may leave out
_FAR = 2.0  # how many times wider than the rest the tails must be for that


@dataclass(frozen=True, slots=True)
class Axis:
    """The axis of a column."""

    edges: NDArray[np.float64]  # (bins + 1,) ascending
    log: bool
    whole: bool  # all values are whole numbers

    @property
    def low(self) -> float:
        """The lower end."""
        return float(self.edges[0])

    @property
    def high(self) -> float:
        """The upper end."""
        return float(self.edges[-1])

    def counts(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the values in each bin, (bins,); those beyond the ends are left out."""
        return np.histogram(values, self.edges)[0]

    def places(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the bin of each value, (rows,); values beyond an end are in the bin next to it."""
        found = np.searchsorted(self.edges, values, side="right") - 1
        return np.clip(found, 0, len(self.edges) - 2)


def axis_of(known: NDArray[np.float64], bins: int = BINS) -> Axis:
    """Return the axis of a column.

    Args:
        known: (rows,) the values of all sets, without NaN; not empty.
        bins: most bins.
    """
    bins = min(bins, max(_LEAST_BINS, math.ceil(_BINS_PER_ROOT * len(known) ** (1 / 3))))
    low, tail_low, first, last, tail_high, high = np.quantile(known, [0, _TAIL, 0.01, 0.99, 1 - _TAIL, 1]).tolist()
    whole = bool((known == np.rint(known)).all()) and high < 2**53
    if low == high:
        pad = 0.5 if whole or not low else abs(low) * 0.05
        return Axis(np.array([low - pad, low + pad]), log=False, whole=whole)
    if low > 0 and last / first > _LOG_FROM:
        edges = np.geomspace(low, high, bins + 1)
        return Axis(_at_halves(edges, low, high) if whole else edges, log=True, whole=whole)
    if high - low > _FAR * (tail_high - tail_low) > 0:
        low, high = tail_low, tail_high
    if whole:
        step = max(1, math.ceil((high - low + 1) / bins))
        low, high = math.floor(low), math.ceil(high)
        return Axis(np.arange(low, high + step + 1, step) - 0.5, log=False, whole=True)
    return Axis(np.linspace(low, high, bins + 1), log=False, whole=False)


def _at_halves(edges: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Move the edges between whole numbers, so that no bin lies between two of them and is always empty."""
    inner = np.unique(np.floor(edges[1:-1]) + 0.5)
    return np.concatenate([[low - 0.5], inner[(inner > low) & (inner < high)], [high + 0.5]])
