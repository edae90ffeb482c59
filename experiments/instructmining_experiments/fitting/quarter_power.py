"""What rules a number of held-out runs can find, by simulation."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from instructmining_experiments.designing.power import LEVEL, POWER

_EXPERIMENTS = 2000  # simulated
_MOST_SIMULATED = 300  # runs; with more, the mean is as good as normal
_HALVINGS = 12


def share_found(runs: int, r2: float) -> float:
    """Return in what share of experiments a rule is found by so many held-out runs.

    The rule is known, and its predictions and errors are normal. The saved squared error of a run, in units of the
    variance of log loss, is then p² + 2 p e, with p the predicted and e the unpredicted part.

    Args:
        runs: held out.
        r2: of the rule, 0..1.

    Source:
        Hall, The Bootstrap and Edgeworth Expansion (1992), section 2.5 (Cornish-Fisher): the quantile of a bootstrapped
        mean is z + skewness (z² − 1) / (6 √runs), in standard errors.
    """
    first, second = _normal(runs)
    predicted, rest = math.sqrt(r2) * first, math.sqrt(1 - r2) * second
    saved = predicted**2 + 2 * predicted * rest
    mean, deviation = saved.mean(axis=1), np.maximum(saved.std(axis=1), np.finfo(np.float64).tiny)
    skewness = (((saved - mean[:, None]) / deviation[:, None]) ** 3).mean(axis=1)
    tail = NormalDist().inv_cdf(LEVEL / 2)
    quantile = tail + skewness * (tail**2 - 1) / (6 * math.sqrt(runs))
    return float((mean + quantile * deviation / math.sqrt(runs) > 0).mean())


def detectable_r2(runs: int) -> float | None:
    """Return the smallest R² of a rule that is found in 80 % of experiments; None where not even one of 1 is."""
    if share_found(runs, 1.0) < POWER:
        return None
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if share_found(runs, middle) >= POWER else (middle, high)
    return high


def runs_for(r2: float, *, least: int) -> int | None:
    """Return how many held-out runs find a rule in 80 % of experiments; None where its R² is not above 0.

    Args:
        r2: of the rule.
        least: runs to begin with.
    """
    if r2 <= 0:
        return None
    # The mean and the variance of the saved squared error are R² and 4 R² − 2 R⁴.
    normal = NormalDist()
    width = normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)
    enough = math.ceil(width**2 * (4 - 2 * r2) / r2)
    if enough > _MOST_SIMULATED:
        return enough
    few, enough = least - 1, max(enough, least)
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if share_found(middle, r2) >= POWER else (middle, enough)
    return enough


@lru_cache(maxsize=1)
def _normal(runs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(_EXPERIMENTS, runs)), rng.normal(size=(_EXPERIMENTS, runs))
