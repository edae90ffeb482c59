from __future__ import annotations

import numpy as np
import pytest

from instructmining_experiments.designing.power import POWER
from instructmining_experiments.fitting.quarter_power import detectable_r2, runs_for, share_found


@pytest.mark.parametrize(("runs", "r2"), [(10, 0.8), (16, 0.5), (30, 0.5)])
def test_the_share_found_is_that_of_bootstrapped_experiments(runs: int, r2: float) -> None:
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(400):
        part, rest = np.sqrt(r2) * rng.normal(size=runs), np.sqrt(1 - r2) * rng.normal(size=runs)
        saved = (part + rest) ** 2 - rest**2
        found += np.percentile(saved[rng.integers(runs, size=(500, runs))].mean(axis=1), 2.5) > 0
    assert share_found(runs, r2) == pytest.approx(found / 400, abs=0.07)


def test_the_size_for_an_effect_is_the_effect_for_a_size() -> None:
    for runs in (10, 16, 40):
        r2 = detectable_r2(runs)
        assert r2 is not None
        assert share_found(runs, r2) == pytest.approx(POWER, abs=0.01)
        needed = runs_for(r2, least=5)
        assert needed is not None
        assert abs(needed - runs) <= 2


def test_small_effects_need_many_runs_and_none_needs_no_number() -> None:
    assert runs_for(0.05, least=5) == 613  # (1.960 + 0.842)² (4 − 2 · 0.05) / 0.05
    assert runs_for(0.0, least=5) is None
    assert runs_for(-0.2, least=5) is None
    assert runs_for(1.0, least=5) == 5
