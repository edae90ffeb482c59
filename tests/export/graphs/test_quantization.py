from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from instructmining_export.graphs.quantization import LEVELS, quantize_columns, quantize_rows

Matrix = NDArray[np.float32]


def random(*shape: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_each_columns_largest_weight_takes_the_whole_range() -> None:
    weight = random(40, 7) * np.float32([1, 10, 100, 1e-3, 1, 1, 1])
    values, scales = quantize_columns(weight)
    assert values.dtype == np.int8
    assert scales.shape == (7,)
    np.testing.assert_array_equal(np.abs(values.astype(int)).max(axis=0), LEVELS)
    assert (np.abs(values * scales - weight).max(axis=0) <= scales * 0.5001).all()


def test_each_row_of_a_table_has_its_scale() -> None:
    table = random(7, 40) * np.float32([[1], [10], [100], [1e-3], [1], [1], [1]])
    values, scales = quantize_rows(table)
    assert scales.shape == (7, 1)
    assert (np.abs(values * scales - table).max(axis=1) <= scales[:, 0] * 0.5001).all()


def test_a_column_of_zeros_stays_zero() -> None:
    values, scales = quantize_columns(np.zeros((5, 2), dtype=np.float32))
    assert not values.any()
    assert np.isfinite(scales).all()


def test_rounding_together_makes_less_noise_on_inputs_that_it_has_not_seen() -> None:
    mixing = random(60, 300, seed=1)
    inputs, others = (random(900, 60, seed=seed) @ mixing + random(900, 300, seed=seed + 5) for seed in (2, 3))
    weight = random(300, 50, seed=4)
    exact = others @ weight

    def noise(values: NDArray[np.int8], scales: Matrix) -> float:
        return float(np.linalg.norm(others @ (values * scales) - exact) / np.linalg.norm(exact))

    alone, together = noise(*quantize_columns(weight)), noise(*quantize_columns(weight, inputs))
    assert together < 0.75 * alone


@pytest.mark.parametrize("rows", [1, 3, 400])
def test_rounding_together_takes_inputs_that_are_few_or_empty_in_a_dimension(rows: int) -> None:
    inputs = random(rows, 150)
    inputs[:, :20] = 0
    weight = random(150, 6, seed=1)
    values, scales = quantize_columns(weight, inputs)
    assert np.abs(values.astype(int)).max() <= LEVELS
    assert np.isfinite(scales).all()
    exact = inputs @ weight
    assert np.linalg.norm(inputs @ (values * scales) - exact) < 0.02 * np.linalg.norm(exact)


def test_the_scales_do_not_depend_on_the_inputs() -> None:
    weight = random(30, 4)
    np.testing.assert_array_equal(quantize_columns(weight)[1], quantize_columns(weight, random(50, 30))[1])
