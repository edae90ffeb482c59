"""Names, reads and converts a graph's weights; saves the graph."""

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
    """A change to a tensor of the checkpoint before it is stored."""

    name: str  # part of the stored tensor's name, so that two changes of one tensor stay apart
    apply: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def save(model: ir.Model, path: Path) -> list[Path]:
    """Write a graph, and its weights to a file beside it; returns the files written.

    Raises:
        ExportError: a tensor is missing, or its shape differs from the config.
    """
    data = path.with_suffix(".onnx.data")
    try:
        ir.save(model, path, external_data=data.name, max_workers=1)
    except ir.serde.SerdeError as error:  # wraps the error of a weight's reader
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ExportError):
            cause = cause.__cause__
        raise cause or error from error
    return [path, *([data] if data.exists() else [])]


def save_variant(model: ir.Model, path: Path, *, first: Path) -> None:
    """Write another graph on the weights of one that :func:`save` wrote into the same folder.

    Args:
        model: its initializers that the first has too, by name, stay in the first's file.
        path: where to write it.
        first: the graph that was saved.
    """
    written = ir.load(first).graph.initializers
    for name, value in model.graph.initializers.items():
        known = written.get(name)
        if known is not None and isinstance(known.const_value, ir.ExternalTensor):
            value.const_value = known.const_value
    ir.save(model, path)


def key_of(names: Sequence[str], change: Change | None) -> str:
    """Return the name of the stored tensor: the checkpoint's names, then the change."""
    return "+".join(names) + (f".{change.name}" if change is not None else "")


def lazy(name: str, kind: ir.DataType, shape: tuple[int, ...], read: Callable[[], NDArray[Any]]) -> ir.TensorProtocol:
    """Return a tensor that is read when the graph is written."""

    def tensor() -> ir.TensorProtocol:
        return ir.tensor(np.ascontiguousarray(read()), name=name)

    return ir.LazyTensor(tensor, dtype=kind, shape=ir.Shape(shape), name=name)


def to_half(array: NDArray[np.float32], key: str) -> NDArray[np.float16]:
    """Convert a weight to float16.

    Raises:
        ExportError: a value exceeds float16's largest.
    """
    limit = float(np.finfo(np.float16).max)
    if np.abs(array).max(initial=0.0) > limit:
        raise ExportError(f"{key}: has weights beyond {limit:.0f}, the largest number of fp16; use --precision fp32")
    return array.astype(np.float16)
