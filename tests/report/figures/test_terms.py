from __future__ import annotations

from collections.abc import Callable

import pytest

from instructmining.rules import Rule
from instructmining_report.figures.terms import terms_of
from instructmining_report.gathering.scored_set import ScoredSet

RULE = Rule("r", 1.0, {"reward": -2.0, "mtld": 0.5})


def test_each_term_adds_its_coefficient_times_the_value_and_the_shares_add_up(read: Callable[..., ScoredSet]) -> None:
    rows = [{"output": "a", "reward": reward, "mtld": mtld} for reward, mtld in ((0.0, 2.0), (1.0, 2.0), (2.0, 8.0))]
    (figures,) = terms_of(read([*rows, {"output": "a", "reward": 5.0, "mtld": None}], RULE), RULE)
    reward, mtld = figures.terms
    assert (figures.rows, figures.intercept) == (3, 1.0)
    assert (reward.mean, mtld.mean) == (-2.0, 2.0)
    assert reward.quantiles[2] == -2.0
    assert figures.mean == pytest.approx(1.0 - 2.0 + 2.0)
    # Terms 0, −2, −4 and 1, 1, 4 make predictions 2, 0, 1: variance 2/3, covariances 2/3 and 0.
    assert reward.spread == 2.0
    assert reward.share == pytest.approx(1.0)
    assert mtld.share == pytest.approx(0.0)


def test_a_constant_prediction_has_no_shares(read: Callable[..., ScoredSet]) -> None:
    (figures,) = terms_of(read([{"output": "a", "reward": 1.0, "mtld": 1.0}] * 3, RULE), RULE)
    assert [term.share for term in figures.terms] == [None, None]


def test_pairs_have_terms_of_both_sides_and_of_the_margin_without_intercept(read: Callable[..., ScoredSet]) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    for column, chosen, rejected in (("reward", 2.0, 1.0), ("mtld", 4.0, 2.0)):
        row |= {f"chosen.{column}": chosen, f"rejected.{column}": rejected, f"margin.{column}": chosen - rejected}
    found = {figures.part: figures for figures in terms_of(read([row], RULE), RULE)}
    assert {part: figures.mean for part, figures in found.items()} == {
        "chosen.": -1.0,
        "rejected.": 0.0,
        "margin.": -1.0,
    }
    assert found["margin."].intercept == 0.0


def test_no_row_with_all_terms_has_no_figures(read: Callable[..., ScoredSet]) -> None:
    assert terms_of(read([{"output": "a", "reward": 1.0, "mtld": None}], RULE), RULE) == ()
