from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from instructmining.scored import distances as module
from instructmining.scored.distances import distances

SAMPLE = st.lists(st.integers(-5, 5).map(lambda n: n / 4) | st.floats(-1e6, 1e6), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(first=SAMPLE, second=SAMPLE, chunk=st.integers(1, 70))
def test_both_distances_are_scipys_also_with_equal_values_and_in_any_chunks(
    first: list[float], second: list[float], chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        ks, wasserstein = distances(np.sort(first), np.sort(second))
    with np.errstate(divide="ignore"):  # in its p-value, of samples of one row
        wanted = stats.ks_2samp(first, second, method="asymp").statistic
    assert ks == pytest.approx(wanted, abs=1e-12)
    assert wasserstein == pytest.approx(stats.wasserstein_distance(first, second), rel=1e-9, abs=1e-9)


def test_samples_that_do_not_overlap_are_a_whole_distribution_apart() -> None:
    assert distances(np.array([0.0, 1.0]), np.array([10.0, 11.0])) == (1.0, 10.0)
