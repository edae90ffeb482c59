"""Borders of running sums, against sorting."""

from __future__ import annotations

import numpy as np
import pytest

from instructmining_scale.selection import borders
from instructmining_scale.selection.borders import Counts, Round, find_borders, order_keys


@pytest.mark.parametrize("descending", [False, True])
def test_keys_have_the_order_of_the_values_and_equal_zeros(*, descending: bool) -> None:
    values = np.array([-np.inf, -1e308, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, 1 + 2**-52, 1e308, np.inf])
    keys = order_keys(values[::-1] if descending else values, descending=descending)
    assert keys.dtype == np.uint64
    assert keys[4 if not descending else 5] == keys[5 if not descending else 6]
    assert (np.diff(keys.astype(object)) >= 0).all()
    assert len(np.unique(keys)) == len(values) - 1


@pytest.mark.parametrize("most_bins", [1 << 20, 8])
@pytest.mark.parametrize("seed", range(8))
def test_the_border_is_the_first_row_with_which_the_sum_exceeds_the_limit(
    monkeypatch: pytest.MonkeyPatch, seed: int, most_bins: int
) -> None:
    monkeypatch.setattr(borders, "_MOST_BINS", most_bins)
    rng = np.random.default_rng(seed)
    rows, groups = 400, 5
    keys = order_keys(rng.integers(0, 60, rows) / 7 - 4, descending=bool(seed % 2))
    of_row, weights = rng.integers(0, groups, rows), rng.integers(0, 4, rows)
    limits = rng.integers(0, 260, groups)
    parts = np.array_split(np.arange(rows), 7)

    def ask(asked: Round) -> Counts:
        return sum((asked.sums(keys[part], of_row[part], weights[part]) for part in parts), np.int64(0))  # type: ignore[return-value]

    found = find_borders(limits, ask)
    for group in range(groups):
        in_order = np.flatnonzero(of_row == group)[np.argsort(keys[of_row == group], kind="stable")]
        over = np.flatnonzero(np.cumsum(weights[in_order]) > limits[group])
        assert found.exists[group] == bool(len(over))
        if len(over):
            key = keys[in_order[over[0]]]
            assert found.keys[group] == key
            assert found.left[group] == limits[group] - weights[(of_row == group) & (keys < key)].sum()
