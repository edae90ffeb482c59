from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import lines_of, plan_of, write_runs

from instructmining_experiments.fitting.finished import Finished
from instructmining_experiments.fitting.noise_floor import NoiseFloor


def floor_of(folder: Path, log_losses: dict[str, float], replicates: int) -> NoiseFloor:
    plan = plan_of(4, replicates=replicates)
    lines = [line | {"loss": math.exp(log_losses[str(line["name"])])} for line in lines_of(plan, {})]
    lines = [line for line in lines if math.isfinite(log_losses[str(line["name"])])]
    return NoiseFloor.of(plan, Finished.read(write_runs(folder, plan, lines), plan))


def test_the_noise_is_pooled_within_runs_on_the_same_rows(tmp_path: Path) -> None:
    losses = {"r001": 0.0, "r002": 0.1, "r003": 0.2, "r004": 0.3, "r001-2": 0.02, "r002-2": 0.06, "r003-2": math.nan}
    found = floor_of(tmp_path, losses, replicates=3)
    # Squared distances from the means 0.01 and 0.08: 2 (0.01² + 0.02²), of 2 degrees of freedom.
    assert found.freedom == 2
    assert found.noise == pytest.approx(math.sqrt(0.0005))
    # The 2.5 % and 97.5 % points of chi-square with 2 degrees of freedom are −2 ln of 0.975 and 0.025.
    wanted = [math.sqrt(0.001 / (-2 * math.log(tail))) for tail in (0.025, 0.975)]
    assert found.interval == pytest.approx(wanted)
    variance = 0.05 / 3  # of 0, 0.1, 0.2, 0.3
    assert found.between == pytest.approx(math.sqrt(variance))
    assert found.most_r2 == pytest.approx(1 - 0.0005 / variance)
    assert found.most_r2_interval == pytest.approx([max(0, 1 - bound**2 / variance) for bound in reversed(wanted)])


def test_two_replicates_of_a_run_that_failed_are_compared() -> None:
    plan = plan_of(4, replicates=1)
    plan = replace(plan, runs=(*plan.runs, replace(plan.runs[-1], name="r001-3")))
    runs = Finished(("r002", "r001-2", "r001-3"), np.exp([0.5, 0.0, 0.1]), {}, "")
    found = NoiseFloor.of(plan, runs)
    assert (found.noise, found.freedom) == (pytest.approx(math.sqrt(0.005)), 1)
    assert found.between is None


def test_without_replicates_the_noise_is_not_known(tmp_path: Path) -> None:
    found = floor_of(tmp_path, {"r001": 0.0, "r002": 0.1, "r003": 0.2, "r004": 0.3}, replicates=0)
    assert (found.noise, found.interval, found.freedom) == (None, None, 0)
    assert (found.most_r2, found.most_r2_interval) == (None, None)
    assert found.between == pytest.approx(math.sqrt(0.05 / 3))


def test_noise_larger_than_the_spread_leaves_nothing_to_reach(tmp_path: Path) -> None:
    losses = {"r001": 0.0, "r002": 0.1, "r003": 0.0, "r004": 0.1, "r001-2": 0.5, "r002-2": 0.9}
    assert floor_of(tmp_path, losses, replicates=2).most_r2 == 0
