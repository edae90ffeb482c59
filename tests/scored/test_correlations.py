from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from statsmodels.stats.outliers_influence import variance_inflation_factor
from statsmodels.tools.tools import add_constant

from instructmining.scored import column_store as columnstore
from instructmining.scored.column_store import ColumnStore
from instructmining.scored.correlations import Correlations, correlations, inflation


def stored(columns: Mapping[str, Sequence[float] | NDArray[np.float64]]) -> ColumnStore:
    store = ColumnStore(list(columns))
    store.add({name: np.asarray(values, dtype=np.float64) for name, values in columns.items()})
    return store


def correlated(columns: Mapping[str, Sequence[float] | NDArray[np.float64]]) -> Correlations:
    with stored(columns) as store:
        return correlations(store, list(columns))


def factors(columns: Mapping[str, Sequence[float] | NDArray[np.float64]]) -> dict[str, float | None]:
    with stored(columns) as store:
        return inflation(store, list(columns))


@pytest.fixture
def table() -> pd.DataFrame:
    """Four columns that go together, with ties, a large offset, and nulls in two of them."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))
    table = pd.DataFrame(values, columns=["a", "b", "c", "d"])
    table["a"] = (table["a"] * 3).round()
    table["b"] += 1e7
    table.loc[rng.random(500) < 0.1, "c"] = np.nan
    table.loc[rng.random(500) < 0.2, "d"] = np.nan
    return table


@pytest.mark.parametrize("chunk", [7, 100_000])
def test_correlations_are_those_of_pandas_with_nulls_in_either_column(
    table: pd.DataFrame, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnstore, "CHUNK_ROWS", chunk)
    found = correlated({name: table[name].to_numpy() for name in table})
    np.testing.assert_allclose(found.pearson, table.corr("pearson"), rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.spearman, table.corr("spearman"), rtol=0, atol=1e-12)


def test_what_is_not_defined_is_nan_and_nothing_else() -> None:
    nan = math.nan
    found = correlated({"a": [1, 2, 3], "constant": [0.1, 0.1, 0.1], "once": [nan, 5, nan], "never": [nan, nan, nan]})
    wanted = np.full((4, 4), np.nan)
    wanted[0, 0] = 1
    np.testing.assert_array_equal(found.pearson, wanted)
    np.testing.assert_array_equal(found.spearman, wanted)


def test_variance_inflation_is_that_of_statsmodels_over_the_complete_rows(table: pd.DataFrame) -> None:
    table["b"] -= 1e7
    found = factors({name: table[name].to_numpy() for name in table})
    design = add_constant(table.dropna()).to_numpy()
    wanted = {name: variance_inflation_factor(design, place) for place, name in enumerate(table, 1)}
    assert found == pytest.approx(wanted, rel=1e-9)


def test_collinear_columns_are_infinite_and_the_others_keep_their_value() -> None:
    rng = np.random.default_rng(4)
    a, b, c = rng.normal(size=(3, 200))
    found = factors({"a": a, "b": b, "sum": a + b, "c": c})
    assert found["a"] == found["b"] == found["sum"] == math.inf
    design = add_constant(np.column_stack([c, a, b]))
    assert found["c"] == pytest.approx(variance_inflation_factor(design, 1), rel=1e-9)


def test_a_column_without_variance_has_no_inflation_and_takes_no_part() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, 50))
    found = factors({"a": a, "b": b, "constant": np.ones(50), "null": np.full(50, np.nan)})
    assert found == {**factors({"a": a, "b": b}), "constant": None, "null": None}


def test_no_more_rows_than_columns_have_no_inflation() -> None:
    assert factors({"a": [1, 2], "b": [2, 1]}) == {"a": None, "b": None}
