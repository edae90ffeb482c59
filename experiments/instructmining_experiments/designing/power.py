"""The smallest effects that a number of runs can detect, without SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.05  # two-sided
POWER = 0.8
_HALVINGS = 50
_TERMS = 500  # of a continued fraction, which needs about as many as the root of its larger argument
_TINY = 1e-300
_PRECISE = 1e-14


@dataclass(frozen=True, slots=True)
class Detectable:
    """Effects that are found at the 5 % level in 80 % of experiments; None where the runs are too few."""

    runs: int
    terms: int
    correlation: float | None  # of a set mean and the log loss, by absolute value
    one_term_r2: float | None  # partial R² of one term beside the others
    all_terms_r2: float | None  # R² of all terms together


def detectable(runs: int, terms: int) -> Detectable:
    """Return what so many runs detect in a rule of so many terms."""
    return Detectable(runs, terms, correlation(runs), increment(runs, terms, 1), increment(runs, terms, terms))


def correlation(runs: int) -> float | None:
    """Return the smallest correlation, by Fisher's z: tanh((z of the level + z of the power) / √(runs − 3))."""
    if runs <= 3:
        return None
    normal = NormalDist()
    return math.tanh((normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)) / math.sqrt(runs - 3))


def increment(runs: int, terms: int, tested: int) -> float | None:
    """Return the smallest partial R² of some of a rule's terms, by the non-central F distribution.

    Args:
        runs: observations.
        terms: of the rule, without its intercept.
        tested: of these terms.

    Source:
        Cohen, Statistical Power Analysis (1988), chapter 9: non-centrality f² · (tested + free + 1), with
        f² = R² / (1 − R²).
    """
    free = runs - terms - 1
    if free < 1:
        return None
    critical = _bisected(lambda x: _f_cdf(x / (1 - x), tested, free) >= 1 - LEVEL)
    critical /= 1 - critical

    def found(r2: float) -> bool:
        return 1 - noncentral_f_cdf(critical, tested, free, r2 / (1 - r2) * (tested + free + 1)) >= POWER

    return _bisected(found)


def noncentral_f_cdf(x: float, tested: int, free: int, noncentrality: float) -> float:
    """Return P(F ≤ x), as a mixture of beta distributions with Poisson weights."""
    mean = noncentrality / 2
    share = tested * x / (tested * x + free)
    reach = 10 * math.sqrt(mean) + 30
    total = 0.0
    for count in range(max(0, int(mean - reach)), int(mean + reach) + 1):
        log = -mean + (count * math.log(mean) if count else 0.0) - math.lgamma(count + 1)
        total += math.exp(log) * incomplete_beta(share, tested / 2 + count, free / 2)
    return total


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function, by its continued fraction (Numerical Recipes, 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / _apart(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _TERMS):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _apart(1 + numerator * d)
            c = _apart(1 + numerator / c)
            value *= c * d
        if abs(c * d - 1) < _PRECISE:
            break
    return value


def _apart(value: float) -> float:
    """Return a value that can be divided by."""
    return value if abs(value) > _TINY else _TINY


def _f_cdf(x: float, tested: int, free: int) -> float:
    return incomplete_beta(tested * x / (tested * x + free), tested / 2, free / 2)


def _bisected(holds: Callable[[float], bool]) -> float:
    """Return the smallest number between 0 and 1 for which a rising condition holds."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
