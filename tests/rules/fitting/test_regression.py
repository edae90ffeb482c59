from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from instructmining.rules.fitting import regression
from instructmining.rules.fitting.regression import Projection, bootstrapped

Values = NDArray[np.float64]


def made_up(runs: int = 14, terms: int = 4, seed: int = 3) -> tuple[Values, Values]:
    """Columns in very different units, correlated, and a target that two of them explain."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(runs, terms)) + 0.6 * rng.normal(size=(runs, 1))
    target = 0.3 + 0.05 * values[:, 0] - 0.04 * values[:, -1] + rng.normal(scale=0.02, size=runs)
    return values * 10.0 ** np.arange(terms) + 100, target


def prediction_without(values: Values, target: Values, gone: list[int], run: int) -> float:
    """Of one run, by a fit to all but some: another way, another library call."""
    design = np.column_stack([np.ones(len(target)), (values - values.mean(axis=0)) / values.std(axis=0)])
    found = np.linalg.lstsq(np.delete(design, gone, axis=0), np.delete(target, gone))[0]
    return float(design[run] @ found)


def projection(values: Values, target: Values) -> Projection:
    found = Projection.of(values, target)
    assert found is not None
    return found


def test_errors_of_runs_left_out_equal_those_of_as_many_refits() -> None:
    values, target = made_up()
    wanted = [target[run] - prediction_without(values, target, [run], run) for run in range(len(target))]
    assert projection(values, target).left_out == pytest.approx(np.array(wanted), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(runs=st.integers(6, 12), terms=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_errors_of_pairs_left_out_equal_those_of_refits_on_any_runs(runs: int, terms: int, seed: int) -> None:
    values, target = made_up(runs, terms, seed)
    wanted = [
        sum(
            (target[other] - prediction_without(values, target, [run, other], other)) ** 2
            for other in range(runs)
            if other != run
        )
        for run in range(runs)
    ]
    assert projection(values, target).left_out_press() == pytest.approx(np.array(wanted), rel=1e-6)


def test_residual_sums_of_squares_without_a_run_equal_those_of_refits() -> None:
    values, target = made_up()
    wanted = []
    for run in range(len(target)):
        others = [other for other in range(len(target)) if other != run]
        wanted.append(sum((target[at] - prediction_without(values, target, [run], at)) ** 2 for at in others))
    assert projection(values, target).left_out_rss() == pytest.approx(np.array(wanted), rel=1e-9)


def test_a_run_that_alone_decides_a_coefficient_has_no_error_when_it_is_left_out() -> None:
    values, target = made_up(terms=2)
    values[:, 1] = 0.0
    values[5, 1] = 1.0
    found = projection(values, target).left_out
    assert np.isinf(found).tolist() == [run == 5 for run in range(len(target))]


def test_every_subset_comes_once_and_small_ones_first() -> None:
    values, target = made_up()
    found = [columns for columns, _ in regression.subsets(values, target, 3)]
    assert found == [columns for size in (1, 2, 3) for columns in combinations(range(4), size)]


def test_subsets_with_a_column_that_others_make_up_are_passed_over() -> None:
    values, target = made_up(terms=3)
    values[:, 2] = 5 - 0.25 * values[:, 0] / values[:, 0].std() + 3 * values[:, 1] / values[:, 1].std()
    found = [columns for columns, _ in regression.subsets(values, target, 3)]
    assert found == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("criterion", ["loo", "adjusted-r2"])
def test_a_search_within_leave_one_out_equals_searching_again_without_each_run(criterion: str) -> None:
    values, target = made_up(runs=12, terms=4, seed=8)
    runs = len(target)

    def score(found: Projection) -> Values:
        return found.left_out_press() if criterion == "loo" else found.left_out_rss() / (runs - found.terms - 2)

    wanted, chosen = [], set()
    for run in range(runs):
        inside, others = np.delete(values, run, axis=0), np.delete(target, run)
        scores: dict[tuple[int, ...], float] = {}
        for columns in (columns for size in range(1, 5) for columns in combinations(range(4), size)):
            errors = [
                others[at] - prediction_without(inside[:, columns], others, [at] if criterion == "loo" else [], at)
                for at in range(runs - 1)
            ]
            free = 1 if criterion == "loo" else runs - 1 - len(columns) - 1
            scores[columns] = float(np.sum(np.square(errors))) / free
        best = min(scores, key=lambda columns: scores[columns])
        chosen.add(best)
        wanted.append(target[run] - prediction_without(values[:, best], target, [run], run))
    assert len(chosen) > 1  # else the search within would show nothing
    found = regression.nested_left_out(values, target, 4, score)
    assert found == pytest.approx(np.array(wanted), abs=1e-10)


def test_bootstrap_coefficients_equal_refits_to_the_runs_drawn() -> None:
    values, target = made_up(runs=20, terms=2)
    found = regression.bootstrapped(values, target, resamples=1500, seed=11)
    drawn = np.random.default_rng(11).integers(20, size=(1500, 20))
    design = np.column_stack([np.ones(20), values])
    assert found.shape == (1500, 3)
    for at in (0, 1, 1023, 1024, 1499):
        wanted = np.linalg.lstsq(design[drawn[at]], target[drawn[at]])[0]
        assert found[at] == pytest.approx(wanted, rel=1e-7)


def test_resamples_that_do_not_decide_every_coefficient_are_left_out() -> None:
    values, target = made_up(runs=8, terms=2)
    values[:, 1] = 0.0
    values[3, 1] = 1.0
    drawn = np.random.default_rng(0).integers(8, size=(400, 8))
    found = regression.bootstrapped(values, target, resamples=400, seed=0)
    assert len(found) == np.sum((drawn == 3).any(axis=1) & ([len(set(draw) - {3}) >= 2 for draw in drawn.tolist()]))


def test_the_condition_number_is_that_of_the_correlations_and_knows_no_units() -> None:
    values, _ = made_up(runs=40, terms=4)
    wanted = np.sqrt(np.linalg.cond(np.corrcoef(values, rowvar=False)))
    assert regression.condition_number(values) == pytest.approx(wanted, rel=1e-9)
    assert regression.condition_number(values * [1e-3, 1, 1e3, 7]) == pytest.approx(wanted, rel=1e-9)
    assert regression.condition_number(values[:, :1]) == 1.0


def test_the_memory_of_a_bootstrap_does_not_grow_with_runs_and_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    values, target = rng.normal(size=(60, 4)), rng.normal(size=60)
    at_once = bootstrapped(values, target, resamples=50, seed=5)
    for cells in (1, 200, 1800):  # one at a time; three; several, and products at once
        monkeypatch.setattr(regression, "_CELLS", cells)
        np.testing.assert_allclose(bootstrapped(values, target, resamples=50, seed=5), at_once, rtol=1e-9)
