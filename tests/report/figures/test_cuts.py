from __future__ import annotations

from collections.abc import Callable

import pytest

from instructmining import compare, select
from instructmining_report.figures.cuts import cuts_of
from instructmining_report.figures.ordering import order_of
from instructmining_report.gathering.scored_set import ScoredSet
from instructmining_report.options import ReportOptions

ROWS: list[dict[str, object]] = [
    {"output": "a", "source": source, "input_length": 1, "output_length": length, "predicted_log_loss": predicted}
    for source, length, predicted in (("x", 10, 0.4), ("y", 20, 0.1), ("x", 30, 0.2), ("y", 40, None), ("x", 50, 0.3))
]


def test_the_figures_of_a_cut_are_those_of_the_rows_it_keeps(read: Callable[..., ScoredSet]) -> None:
    one = read(ROWS)
    order = order_of(one, ReportOptions())
    assert order is not None
    assert order.rows.tolist() == [1, 2, 4, 0]
    cuts = cuts_of(one, order, one.groups["source"])
    half, all_of_them, first = 49, 99, 0
    assert cuts.candidates == 4
    assert (cuts.rows[first], cuts.rows[half], cuts.rows[all_of_them]) == (0, 2, 4)
    assert (cuts.border[first], cuts.border[half], cuts.border[all_of_them]) == (None, 0.2, 0.4)
    assert cuts.tokens is not None
    assert (cuts.tokens[half], cuts.tokens[all_of_them]) == (52, 114)
    assert cuts.means["output_length"][half] == 25.0
    assert cuts.means["output_length"][first] is None
    assert {name: kept[half] for name, kept in cuts.groups.items()} == {"x": 1, "y": 1}


@pytest.mark.parametrize("percent", [1, 10, 33, 50, 99])
def test_a_cut_keeps_what_select_keeps(read: Callable[..., ScoredSet], percent: int) -> None:
    rows: list[dict[str, object]] = [{"output": "a", "predicted_log_loss": (row * 37 % 50) / 10} for row in range(83)]
    one = read(rows)
    order = order_of(one, ReportOptions())
    assert order is not None
    cuts = cuts_of(one, order, None)
    kept = select(rows, fraction=percent / 100)
    assert cuts.rows[percent - 1] == kept.kept
    assert cuts.border[percent - 1] == kept.worst


@pytest.mark.parametrize("percent", [10, 50, 90])
def test_a_difference_is_divided_by_what_compare_divides_it_by(read: Callable[..., ScoredSet], percent: int) -> None:
    rows: list[dict[str, object]] = [
        {"output": str(row), "mtld": float(row * 29 % 41), "predicted_log_loss": (row * 37 % 50) / 10}
        for row in range(60)
    ]
    one = read(rows)
    order = order_of(one, ReportOptions())
    assert order is not None
    cuts = cuts_of(one, order, None)
    kept = [rows[row] for row in order.rows[: cuts.rows[percent - 1]].tolist()]
    wanted = compare(rows, kept).columns["mtld"].standardized
    moved, deviation = cuts.means["mtld"][percent - 1], cuts.deviations["mtld"][percent - 1]
    assert moved is not None
    assert deviation is not None
    assert wanted is not None
    assert (moved - (cuts.means["mtld"][-1] or 0.0)) / deviation == pytest.approx(wanted, rel=1e-12)


def test_the_order_is_by_reward_where_nothing_is_predicted(read: Callable[..., ScoredSet]) -> None:
    order = order_of(read([{"output": "a", "reward": value} for value in (1.0, 3.0, 2.0)]), ReportOptions())
    assert order is not None
    assert (order.column, order.descending, order.chosen_here) == ("reward", True, True)
    assert order.rows.tolist() == [1, 2, 0]
