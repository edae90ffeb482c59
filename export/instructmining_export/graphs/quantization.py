"""Rounds weights to 8-bit integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Symmetric, so that no zero point is needed. Without VNNI, x86 adds two products of an unsigned and a signed byte in 16
# bits, which saturate silently; the engine's sessions make onnxruntime use an exact kernel there
# (session.x64quantprecision), so that every CPU computes the same numbers.
LEVELS = 127
_DAMPING = 0.01  # share of the inputs' mean square; keeps errors off dimensions that hardly vary
_BLOCK = 128


def quantize_columns(
    weight: NDArray[np.float32], inputs: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a product's weight to int8, with one scale per column.

    Args:
        weight: float32 (in, out).
        inputs: sample of the product's inputs, float32 (rows, in). If given, the rounding error of each dimension is
            compensated in the dimensions rounded after it, as far as their inputs correlate.

    Returns:
        int8 (in, out) and float32 (out,).

    Source:
        Frantar et al., GPTQ, arXiv 2210.17323.
    """
    values, scales = _quantize(weight, axis=0)
    return values if inputs is None else _rounded_together(weight, scales, inputs), scales


def quantize_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round an embedding table (rows, size) to int8, with one scale per row, float32 (rows, 1)."""
    values, scales = _quantize(table, axis=1)
    return values, scales[:, None]


def _quantize(array: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    largest = np.abs(array).max(axis=axis, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(LEVELS), np.float32(1)).astype(np.float32)
    return np.rint(array / scales).astype(np.int8), scales.squeeze(axis)


def _rounded_together(
    weight: NDArray[np.float32], scales: NDArray[np.float32], inputs: NDArray[np.float32]
) -> NDArray[np.int8]:
    gram = inputs.T.astype(np.float64) @ inputs
    size = len(gram)
    gram[np.diag_indices(size)] += _DAMPING * max(float(np.trace(gram)) / size, 1e-30)
    # The upper factor U of the inverse, UᵀU: row i says how later dimensions compensate the error of dimension i.
    factor = np.linalg.cholesky(np.linalg.inv(gram)).T.astype(np.float32)
    remaining = weight.copy()
    values = np.empty(weight.shape, dtype=np.int8)
    for begin in range(0, size, _BLOCK):
        end = min(begin + _BLOCK, size)
        errors = np.empty((end - begin, weight.shape[1]), dtype=np.float32)
        for row in range(begin, end):
            values[row] = np.clip(np.rint(remaining[row] / scales), -LEVELS, LEVELS).astype(np.int8)
            errors[row - begin] = (remaining[row] - values[row] * scales) / factor[row, row]
            remaining[row + 1 : end] -= factor[row, row + 1 : end, None] * errors[row - begin]
        remaining[end:] -= factor[begin:end, end:].T @ errors
    return values
