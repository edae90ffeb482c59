"""In what numbers a graph computes its matrix products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import PrecisionName


@dataclass(frozen=True, slots=True)
class Precision:
    """Number format of the matrix products; norms, softmax, residuals and losses are always float32."""

    name: PrecisionName = "fp32"
    kept: frozenset[str] = frozenset()  # keys of products and tables that stay in float32
    smoothing: Mapping[str, NDArray[np.float32]] = field(
        default_factory=dict
    )  # product → divisor of each input dimension
    inputs: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # product → sample of its inputs, divided


FP32 = Precision()
