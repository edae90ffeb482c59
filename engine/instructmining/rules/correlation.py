"""Ranks, and the variance inflation factors of columns."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_COLLINEAR = 1e-10  # share of a column's variance; with less unexplained by the others, it is collinear


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1 among the known values, (rows,); equal values share their mean rank, NaN stays NaN."""
    order = np.argsort(values, kind="stable")  # NaN last
    ordered = values[order]
    ordered = ordered[: len(ordered) - int(np.isnan(ordered).sum())]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else np.empty(0, int)
    counts = np.diff(begins, append=len(ordered))
    found = np.full(len(values), np.nan)
    found[order[: len(ordered)]] = np.repeat(begins + (counts + 1) / 2, counts)
    return found


def variance_inflation(root: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance inflation factor of each column, (columns,).

    It is 1 for a column that is uncorrelated with the others, infinite for a linear combination of them.

    Args:
        root: (any, columns), columns of length 1 whose inner products are the correlations: centred columns scaled to
            length 1, or a root of their correlation matrix.

    Source:
        VIF = 1 / (1 - R²), R² of the regression of a column on the others with an intercept (Marquardt, Technometrics
        12 (1970) 591-612; Belsley, Kuh, Welsch 1980).
    """
    factors = np.full(root.shape[1], math.inf)
    for place, own in enumerate(root.T):
        others = np.delete(root, place, axis=1)
        unexplained = own - others @ (np.linalg.pinv(others, rcond=math.sqrt(_COLLINEAR)) @ own)
        variance = float(unexplained @ unexplained)
        if variance > _COLLINEAR:
            factors[place] = 1 / variance
    return factors
