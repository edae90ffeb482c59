from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from instructmining.scored.describe import described
from instructmining_report.figures.densities import by_length, paired_columns
from instructmining_report.gathering.scored_set import ScoredSet


def test_each_row_with_both_values_is_in_one_cell(read: Callable[..., ScoredSet]) -> None:
    rng = np.random.default_rng(2)
    rows: list[dict[str, object]] = [
        {"output": "a", "output_length": int(length), "reward": None if row < 4 else float(length % 7)}
        for row, length in enumerate(rng.integers(1, 300, 80))
    ]
    one = read(rows)
    found = described("set", one.store, one.columns, one.truncation, Counter())
    pairs = paired_columns(one.store, found)
    assert pairs.pairs == 1
    (density,) = pairs.shown
    assert density.rows == density.counts.sum() == 76
    assert density.spearman == found.spearman["output_length"]["reward"]
    (length,) = by_length(one.store, found, one.parts, "reward")
    assert (length.across, length.up) == ("output_length", "reward")


def test_medians_are_of_bins_with_as_many_rows(read: Callable[..., ScoredSet]) -> None:
    rows: list[dict[str, object]] = [
        {"output": "a", "output_length": row + 1, "reward": float(row // 10)} for row in range(120)
    ]
    one = read(rows)
    found = described("set", one.store, one.columns, one.truncation, Counter())
    (length,) = by_length(one.store, found, one.parts, "reward")
    assert len(length.medians) == 12
    assert [y for _, y in length.medians] == [float(place) for place in range(12)]
    assert length.medians[0][0] == 5.5


@pytest.mark.parametrize(("rows", "bins"), [(19, 0), (20, 2), (40, 4), (500, 12)])
def test_few_rows_have_few_bins_of_medians_or_none(read: Callable[..., ScoredSet], rows: int, bins: int) -> None:
    one = read([{"output": "a", "output_length": row + 1, "reward": float(row)} for row in range(rows)])
    found = described("set", one.store, one.columns, one.truncation, Counter())
    (length,) = by_length(one.store, found, one.parts, "reward")
    assert len(length.medians) == bins
