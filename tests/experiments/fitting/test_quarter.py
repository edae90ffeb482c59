from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from made_up_runs import plan_of

from instructmining.rules import Rule
from instructmining_experiments.fitting.finished import Finished
from instructmining_experiments.fitting.quarter import held_out_runs, scores


def test_of_every_eight_subsets_one_random_and_one_tilted_are_held_out() -> None:
    plan = plan_of(40, replicates=8, seed=3)
    held_out = held_out_runs(plan)
    kinds = {run.name: run.kind for run in plan.runs}
    assert Counter(kinds[name] for name in held_out) == {"random": 5, "tilted": 5}
    assert Counter((int(name[1:]) - 1) // 8 for name in held_out) == dict.fromkeys(range(5), 2)
    assert held_out != held_out_runs(plan_of(40, seed=4))


@pytest.mark.parametrize("subsets", range(1, 41))
def test_a_longer_plan_holds_out_what_a_shorter_one_does(subsets: int) -> None:
    longest = held_out_runs(plan_of(48, seed=5))
    names = {run.name for run in plan_of(subsets).runs}
    assert held_out_runs(plan_of(subsets, replicates=min(subsets, 2), seed=5)) == tuple(
        name for name in longest if name in names
    )


def finished(losses: list[float], values: list[float]) -> Finished:
    names = tuple(f"r{number:03d}" for number in range(len(losses)))
    return Finished(names, np.exp(losses), {"ifd": np.array(values)}, "")


def test_figures_are_those_of_a_hand() -> None:
    fitted = finished([0.0, 0.2], [0.0, 1.0])  # mean 0.1
    held_out = finished([0.0, 0.1, 0.2, 0.4, 0.5], [0.0, 1.0, 2.0, 3.0, 4.0])
    rules = {"rule": Rule("r", 0.0, {"ifd": 0.1}), "flat": Rule("f", 0.3, {"ifd": 0.0})}
    found = scores(fitted, held_out, rules, seed=0)
    assert list(found) == ["rule", "flat", "mean"]
    # Errors of the rule 0, 0, 0, 0.1, 0.1; of the mean −0.1, 0, 0.1, 0.3, 0.4.
    rule, flat, mean = found.values()
    assert (rule.squared_error, mean.squared_error) == pytest.approx((0.02 / 5, 0.27 / 5))
    assert rule.r2 == pytest.approx(1 - 0.02 / 0.27)
    assert (rule.spearman, flat.spearman, mean.spearman) == (pytest.approx(1.0), None, None)
    assert rule.saved == pytest.approx(0.05)
    assert rule.saved_interval is not None
    assert 0 < rule.saved_interval[0] < 0.05 < rule.saved_interval[1] < 0.15
    assert rule.is_found
    # Errors 0.3, 0.2, 0.1, 0.1, 0.2: saves 0.08 over all, none of it beyond chance.
    assert flat.saved == pytest.approx((0.27 - 0.19) / 5)
    assert not flat.is_found
    assert (mean.r2, mean.saved, mean.saved_interval) == (0.0, 0.0, None)
    assert not mean.is_found
    assert scores(fitted, held_out, rules, seed=0) == found


def test_four_held_out_runs_have_no_interval_and_find_nothing() -> None:
    held_out = finished([0.0, 0.1, 0.2, 0.3], [0.0, 1.0, 2.0, 3.0])
    rule = scores(finished([0.9], [0.0]), held_out, {"rule": Rule("r", 0.0, {"ifd": 0.1})}, seed=0)["rule"]
    assert (rule.saved_interval, rule.is_found) == (None, False)
    assert rule.saved > 0


def test_held_out_runs_that_all_have_the_mean_leave_r2_undefined() -> None:
    flat = finished([0.0] * 5, [0.0, 1.0, 2.0, 3.0, 4.0])
    found = scores(flat, flat, {"rule": Rule("r", 0.0, {"ifd": 0.1})}, seed=0)["rule"]
    assert (found.r2, found.spearman) == (None, None)
