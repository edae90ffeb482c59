from __future__ import annotations

import math

import pytest
from scipy import stats

from instructmining_experiments.designing.power import (
    correlation,
    detectable,
    incomplete_beta,
    increment,
    noncentral_f_cdf,
)


@pytest.mark.parametrize(("x", "a", "b"), [(0.0, 1, 2), (1.0, 1, 2), (0.3, 0.5, 16), (0.9, 4.5, 2.5), (0.999, 40, 0.5)])
def test_the_incomplete_beta_function_is_scipys(x: float, a: float, b: float) -> None:
    assert incomplete_beta(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), abs=1e-12)


@pytest.mark.parametrize(
    ("x", "tested", "free", "noncentrality"), [(2.0, 7, 32, 5.0), (4.1, 1, 30, 8.0), (9, 3, 4, 90)]
)
def test_the_noncentral_f_distribution_is_scipys(x: float, tested: int, free: int, noncentrality: float) -> None:
    wanted = stats.ncf.cdf(x, tested, free, noncentrality)
    assert noncentral_f_cdf(x, tested, free, noncentrality) == pytest.approx(wanted, abs=1e-9)


def test_forty_runs_detect_the_correlation_of_the_tables() -> None:
    # Cohen 1988, table 3.4.1: 80 % power at 5 %, two-sided, wants 46 observations for r = 0.40, 28 for 0.50.
    found = [correlation(runs) for runs in (46, 28)]
    assert found == pytest.approx([0.40, 0.50], abs=0.01)


@pytest.mark.parametrize(("terms", "tested"), [(7, 7), (7, 1), (1, 1)])
def test_an_increment_is_found_in_80_percent_of_experiments(terms: int, tested: int) -> None:
    r2 = increment(40, terms, tested)
    assert r2 is not None
    free = 40 - terms - 1
    critical = stats.f.ppf(0.95, tested, free)
    power = 1 - stats.ncf.cdf(critical, tested, free, r2 / (1 - r2) * (tested + free + 1))
    assert power == pytest.approx(0.8, abs=1e-6)


def test_too_few_runs_detect_nothing() -> None:
    found = detectable(3, 2)
    assert (found.correlation, found.one_term_r2, found.all_terms_r2) == (None, None, None)
    assert math.isfinite(correlation(4) or math.nan)
