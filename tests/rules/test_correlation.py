from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.outliers_influence import variance_inflation_factor

from instructmining.rules.correlation import ranks, variance_inflation


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.integers(-3, 3).map(float) | st.just(math.nan), max_size=20))
def test_ranks_are_scipys_with_ties_and_nulls(values: list[float]) -> None:
    np.testing.assert_array_equal(
        ranks(np.array(values, dtype=np.float64)), stats.rankdata(values, nan_policy="omit") if values else []
    )


@pytest.mark.parametrize("noise", [1.0, 1e-2])
def test_variance_inflation_is_that_of_statsmodels(noise: float) -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(40, 4)) * [1e-3, 1, 1, 1e3]
    values[:, 2] = values[:, 1] + noise * values[:, 2]
    design = np.column_stack([np.ones(40), values])
    wanted = [variance_inflation_factor(design, at) for at in range(1, 5)]
    centred = values - values.mean(axis=0)
    found = variance_inflation(centred / np.linalg.norm(centred, axis=0))
    assert found == pytest.approx(np.array(wanted), rel=1e-10 / noise)


def test_columns_that_others_give_have_infinite_variance_inflation_and_a_column_alone_has_1() -> None:
    found = variance_inflation(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(found, [math.inf, math.inf, 1.0])
    np.testing.assert_allclose(variance_inflation(np.ones((1, 1))), [1.0])
