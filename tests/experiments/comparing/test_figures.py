from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from instructmining_experiments.comparing.figures import figures_of, sentence
from instructmining_experiments.comparing.selections import Selection
from instructmining_experiments.state.runs import Result

TOKENS = np.random.default_rng(1).integers(20, 200, 60).astype(np.float64)  # of each evaluation row
HARD = np.random.default_rng(2).normal(0, 0.5, 60)  # what a row's loss differs by, for every model


def a_run(method: str, number: int, loss: float, *, noise: float = 0.001) -> tuple[Selection, Result]:
    rng = np.random.default_rng([number, len(method)])
    rows = (loss + HARD + rng.normal(0, noise, 60)) * TOKENS
    evaluation = {name: {"loss": 0.0, "tokens": int(TOKENS.sum()), "rows": list(zip(rows, TOKENS, strict=True))}
                  for name in ("first", "second")}  # fmt: skip
    result = Result(f"{method}-{number}", 1, 1e-5, 3, 300, 200, (2.0, 1.9), evaluation, "cpu", 1.0, 1.0)
    return Selection(result.name, method, (1, 2, 3), 1, 300), result


def compared(**losses: Sequence[float]) -> tuple[list[Selection], dict[str, Result]]:
    runs = [
        a_run(method.replace("_", "-"), number + 1, loss)
        for method, of_method in losses.items()
        for number, loss in enumerate(of_method)
    ]
    return [selection for selection, _ in runs], {result.name: result for _, result in runs}


def test_the_loss_of_a_run_is_the_mean_over_tokens() -> None:
    figures = figures_of(*compared(rule=[2.0], random=[2.1]), ["first"], seed=0)
    rule = next(one for one in figures if one.method == "rule")
    assert rule.losses[0] == pytest.approx(2 + (HARD * TOKENS).sum() / TOKENS.sum(), abs=1e-3)
    assert rule.deviation is None


def test_a_difference_is_paired_over_the_rows() -> None:
    figures = figures_of(*compared(rule=[2.0, 2.001], random=[2.02, 2.021, 2.019]), ["first", "second"], seed=0)
    rule = next(one for one in figures if one.method == "rule")
    assert rule.minus_random is not None
    assert rule.minus_random.value == pytest.approx(-0.0195, abs=1e-3)
    # Rows differ by 0.5 from one another, which the same rows of both methods cancel.
    assert -0.022 < rule.minus_random.low < rule.minus_random.high < -0.017
    assert rule.minus_random.is_lower
    assert [one.evaluation_set for one in figures] == ["first"] * 2 + ["second"] * 2


def test_an_interval_widens_with_the_spread_between_runs() -> None:
    narrow = figures_of(*compared(rule=[2.0, 2.0, 2.0], random=[2.01, 2.01]), ["first"], seed=0)
    wide = figures_of(*compared(rule=[1.9, 2.0, 2.1], random=[2.01, 2.01]), ["first"], seed=0)
    (low, high), (lower, higher) = (
        (one.minus_random.low, one.minus_random.high) for one in (narrow[0], wide[0]) if one.minus_random is not None
    )
    assert lower < low < high < 0 < higher


def test_methods_share_what_their_runs_differ_by_and_one_run_alone_shows_nothing() -> None:
    spread = [1.95, 2.05]
    alone = figures_of(*compared(rule=[2.0], random=[2.01, 2.01]), ["first"], seed=0)
    beside = figures_of(*compared(rule=[2.0], random=[2.01, 2.01], longest=spread), ["first"], seed=0)
    assert alone[0].minus_random is None
    assert sentence(alone).startswith("Nothing is known yet")
    assert beside[0].minus_random is not None
    assert beside[0].minus_random.low < -0.05 < 0.05 < beside[0].minus_random.high


def test_methods_without_a_finished_run_are_left_out() -> None:
    selections, results = compared(rule=[2.0], random=[2.1], longest=[2.2])
    del results["longest-1"]
    assert [one.method for one in figures_of(selections, results, ["first"], seed=0)] == ["rule", "random"]


def test_all_rows_at_once_are_compared_with_nothing() -> None:
    figures = figures_of(*compared(rule=[2.0, 2.0], random=[2.1, 2.1], all=[1.5]), ["first"], seed=0)
    assert [(one.method, one.minus_random is None, one.minus_rule is None) for one in figures] == [
        ("rule", False, True),
        ("random", True, False),
        ("all", True, True),
    ]


@pytest.mark.parametrize(
    ("rule", "random", "verdict"),
    [
        ([2.0, 2.0], [2.1, 2.1], "train a better model than random ones: a loss of"),
        ([2.1, 2.1], [2.0, 2.0], "train a worse model than random ones: a loss of"),
        ([2.0, 2.1], [2.05, 2.06], "train no better model than random ones: a loss of"),
    ],
)
def test_the_sentence_says_what_was_found(rule: list[float], random: list[float], verdict: str) -> None:
    assert verdict in sentence(figures_of(*compared(rule=rule, random=random), ["first"], seed=0))


def test_the_sentence_names_what_is_better_than_the_rule() -> None:
    found = sentence(
        figures_of(*compared(rule=[2.0, 2.0], random=[2.1, 2.1], longest=[1.9], nearest=[2.05]), ["first"], seed=0)
    )
    assert " Better than the rule's: longest (-0.0998, 95 % interval " in found
    assert "nearest" not in found
    assert sentence([]).startswith("Nothing is known yet")
