"""Weights as 8-bit integers: which steps they take, and what that costs in exactness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Seven bits for weights: without VNNI, x86 adds two products of an unsigned and a signed byte in 16 bits, and
# 255 · 127 · 2 does not fit there. It saturates without a word; 255 · 63 · 2 fits, and every CPU gives the same number.
COLUMN_LEVELS = 63
ROW_LEVELS = 127  # tables are only looked up, never multiplied as integers


def quantize_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A product's weight (in, out) as int8 of the same shape, and the scale of each column, float32 (out,)."""
    return _quantize(weight, axis=0, levels=COLUMN_LEVELS)


def quantize_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """An embedding table (rows, size) as int8 of the same shape, and the scale of each row, float32 (rows, 1)."""
    values, scales = _quantize(table, axis=1, levels=ROW_LEVELS)
    return values, scales[:, None]


def _quantize(array: NDArray[np.float32], axis: int, levels: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    largest = np.abs(array).max(axis=axis, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(levels), np.float32(1)).astype(np.float32)
    return np.rint(array / scales).astype(np.int8), scales.squeeze(axis)
