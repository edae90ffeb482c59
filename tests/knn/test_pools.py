"""Neighbours in many small pools at once."""

from __future__ import annotations

import numpy as np
import pytest

from instructmining.knn.pools import pool_distances


@pytest.mark.parametrize("near", [1.0, 1e-3, 1e-6, 1e-8])
def test_pools_at_once_have_the_distances_of_each_alone(near: float) -> None:
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(5, 1, 12)) + near * rng.normal(size=(5, 9, 12))).astype(np.float32)
    found = pool_distances(points, (1, 6))
    distances = np.linalg.norm(points[:, :, None].astype(np.float64) - points[:, None], axis=3)
    np.testing.assert_allclose(found, np.sort(distances, axis=2)[:, :, [1, 6]], rtol=1e-12)


def test_excluded_rows_are_no_neighbours() -> None:
    points = np.array([[[0.0], [1.0], [3.0]]], dtype=np.float32)
    excluded = np.zeros((1, 3, 3), dtype=bool)
    excluded[0, 0, 1] = True
    assert pool_distances(points, (1, 2), excluded).tolist() == [[[3.0, np.inf], [1.0, 2.0], [2.0, 3.0]]]
