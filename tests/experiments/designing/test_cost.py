from __future__ import annotations

import numpy as np
import pytest

from instructmining_experiments.designing.cost import Cost, Spread, spreads
from instructmining_experiments.state.plan import Run


def test_hours_follow_from_the_speed() -> None:
    assert Cost(90, 110, 216_000, 50).hours(60) == 1


def test_the_spread_is_the_standard_deviation_of_the_means_without_replicates() -> None:
    runs = (
        Run("r001", "random", (0, 1), 0, 2),
        Run("r002", "tilted", (2, 3), 0, 2),
        Run("r003", "random", (2, 3), 0, 2),
        Run("r001-2", "replicate", (0, 1), 1, 2, "r001"),
    )
    found = spreads(runs, {"x": np.array([1.0, 3.0, 5.0, 7.0])})["x"]
    assert found == Spread(pytest.approx(np.std([2, 6], ddof=1)), None)
