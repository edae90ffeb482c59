from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from instructmining_report.figures.examples import chosen_rows
from instructmining_report.figures.ordering import Order


def order(rows: int) -> Order:
    return Order("reward", descending=False, rows=np.arange(rows)[::-1].copy(), chosen_here=False)


def test_the_best_median_and_worst_rows_are_chosen() -> None:
    found = chosen_rows(order(101), 3)
    assert [(row.rank, row.kind) for row in found] == [
        (1, "best"),
        (2, "best"),
        (3, "best"),
        (50, "median"),
        (51, "median"),
        (52, "median"),
        (99, "worst"),
        (100, "worst"),
        (101, "worst"),
    ]
    assert found[0].number == 100


@pytest.mark.parametrize("rows", range(12))
def test_each_row_is_chosen_once_where_there_are_few(rows: int) -> None:
    found = chosen_rows(order(rows), 3)
    assert len({row.number for row in found}) == len(found) == min(rows, 9)
    if rows:
        assert Counter(row.kind for row in found)["best"] == min(3, rows)
