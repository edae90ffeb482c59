"""Weights as tensors of a graph, and the graph on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from instructmining.errors import ExportError


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a tensor of the checkpoint before it is stored."""

    name: str  # part of the stored tensor's name, so that two changes of one tensor do not meet
    apply: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def save(model: ir.Model, path: Path) -> list[Path]:
    """Write a graph and its weights beside it; returns the files written.

    Raises:
        ExportError: a tensor is missing, or of another shape than the config says.
    """
    data = path.with_suffix(".onnx.data")
    try:
        ir.save(model, path, external_data=data.name, max_workers=1)
    except ir.serde.SerdeError as error:  # around what a weight's reader raised
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ExportError):
            cause = cause.__cause__
        raise cause or error from error
    return [path, *([data] if data.exists() else [])]


def key_of(names: Sequence[str], change: Change | None) -> str:
    """The name under which tensors of the checkpoint, changed, are stored as one."""
    return "+".join(names) + (f".{change.name}" if change is not None else "")


def lazy(name: str, kind: ir.DataType, shape: tuple[int, ...], read: Callable[[], NDArray[Any]]) -> ir.TensorProtocol:
    """A tensor that is read when the graph is written."""

    def tensor() -> ir.TensorProtocol:
        return ir.tensor(np.ascontiguousarray(read()), name=name)

    return ir.LazyTensor(tensor, dtype=kind, shape=ir.Shape(shape), name=name)


def transposed(array: NDArray[np.float32], turned: bool) -> NDArray[np.float32]:
    """A weight as (inputs, outputs), which the checkpoint has so already, or turned."""
    return array if turned else array.T


def to_half(array: NDArray[np.float32], key: str) -> NDArray[np.float16]:
    """A weight in float16.

    Raises:
        ExportError: a number is beyond the largest of float16.
    """
    limit = float(np.finfo(np.float16).max)
    if np.abs(array).max(initial=0.0) > limit:
        raise ExportError(f"{key}: has weights beyond {limit:.0f}, the largest number of fp16; use --precision fp32")
    return array.astype(np.float16)
