"""Squared distances in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from instructmining.knn.float64 import smallest, squared_distances


@pytest.mark.parametrize("width", [1.0, 1e-4, 1e-9])
def test_products_are_off_by_less_than_they_say(width: float) -> None:
    points = width * np.random.default_rng(0).normal(size=(50, 384))
    squared, error = squared_distances(points[:20], points)
    exact = ((points[:20, None] - points) ** 2).sum(axis=2)
    assert np.abs(squared - exact).max() < error < 1e-9 * width**2


def test_only_what_decides_is_computed_from_differences() -> None:
    points = np.array([[0.0], [1.0], [2.0], [2.000001], [9.0]])
    asked: list[int] = []

    def differences(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
        asked.extend(columns.tolist())
        return points[columns] - points[rows]

    squared = points.T**2 + 1e-4
    squared[0, 0] = np.inf
    (second,) = smallest(squared, 1e-3, (2,), differences)
    assert asked == [2, 3]
    assert second.tolist() == [4.0]
