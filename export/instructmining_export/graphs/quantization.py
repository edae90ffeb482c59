"""Weights as 8-bit integers: which steps they take, and what that costs in exactness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Symmetric, so that no zero point has to be subtracted. Without VNNI, x86 adds two products of an unsigned and a signed
# byte in 16 bits, where they saturate without a word; the engine's sessions tell onnxruntime to take an exact kernel
# there (session.x64quantprecision), so that every CPU gives the same number.
LEVELS = 127


def quantize_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A product's weight (in, out) as int8 of the same shape, and the scale of each column, float32 (out,)."""
    return _quantize(weight, axis=0)


def quantize_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """An embedding table (rows, size) as int8 of the same shape, and the scale of each row, float32 (rows, 1)."""
    values, scales = _quantize(table, axis=1)
    return values, scales[:, None]


def _quantize(array: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    largest = np.abs(array).max(axis=axis, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(LEVELS), np.float32(1)).astype(np.float32)
    return np.rint(array / scales).astype(np.int8), scales.squeeze(axis)
