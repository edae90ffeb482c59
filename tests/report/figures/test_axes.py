from __future__ import annotations

import numpy as np
import pytest

from instructmining_report.figures.axes import axis_of


def test_an_axis_of_even_values_is_linear_and_holds_all_of_them() -> None:
    values = np.linspace(-1, 3, 1000)
    axis = axis_of(values)
    assert not axis.log
    assert (axis.low, axis.high) == (-1, 3)
    assert axis.counts(values).sum() == 1000


def test_positive_values_that_spread_widely_have_a_logarithmic_axis() -> None:
    axis = axis_of(np.geomspace(0.1, 1000, 500))
    assert axis.log
    assert np.allclose(np.diff(np.log(axis.edges)), np.log(axis.edges[1] / axis.edges[0]))


@pytest.mark.parametrize("most", [30, 5000], ids=["few", "many"])
def test_bins_of_whole_numbers_end_between_them(most: int) -> None:
    values = np.arange(1, most + 1, dtype=float)
    axis = axis_of(np.concatenate([values, values]))
    assert axis.whole
    assert ((axis.edges * 2) % 2 == 1).all()
    assert axis.counts(values).sum() == most
    assert (axis.counts(values) > 0).all()


def test_a_far_value_does_not_squeeze_the_rest_and_is_counted_as_beyond() -> None:
    values = np.concatenate([np.linspace(-1, 1, 5000), [1e6]])
    axis = axis_of(values)
    assert axis.high <= 1
    assert len(values) - axis.counts(values).sum() >= 1


@pytest.mark.parametrize("value", [0.0, 7.0, -2.5, 1e-9, 1e90])
def test_a_constant_has_one_bin_around_it(value: float) -> None:
    axis = axis_of(np.full(5, value))
    assert axis.low < value < axis.high
    assert axis.counts(np.full(5, value)).tolist() == [5]


def test_few_rows_have_few_bins() -> None:
    rng = np.random.default_rng(0)
    assert len(axis_of(rng.normal(size=20)).edges) - 1 == 9  # 3 times the cube root of 20, rounded up
    assert len(axis_of(rng.normal(size=100_000)).edges) - 1 == 40
