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

_INSIDE = 256  # bytes up to which a weight is stored in the graph's own file
_ROWS_OF = "rows_of"


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
    initializers = model.graph.initializers
    parts = [value for value in initializers.values() if _ROWS_OF in value.meta]
    for part in parts:
        del initializers[str(part.name)]
    ir.external_data.unload_from_model(model, path.parent, data.name, size_threshold_bytes=_INSIDE)
    for part in parts:
        _store_in_whole(part)
        initializers.add(part)
    _drop_unread(model)
    ir.save(model, path)
    return [path, *([data] if data.exists() else [])]


def rows_of(table: ir.Value, rows: tuple[int, int]) -> ir.TensorProtocol:
    """Return some rows of an initializer, from a row to before another."""
    whole, (begin, end) = table.const_value, rows
    assert whole is not None  # every weight has one
    shape = (end - begin, *whole.shape.numpy()[1:])
    return lazy(f"{table.name}.rows_{begin}_{end}", whole.dtype, shape, lambda: whole.numpy()[begin:end])


def mark_rows(part: ir.Value, whole: ir.Value, row: int) -> None:
    """Make :func:`save` store an initializer where its rows lie in another's data, from a row on."""
    part.meta[_ROWS_OF] = (whole, row)


def _store_in_whole(part: ir.Value) -> None:
    whole, row = part.meta[_ROWS_OF]
    stored, read = whole.const_value, part.const_value
    assert read is not None  # every weight has one
    if isinstance(stored, ir.ExternalTensor):  # else a small one, which the graph's file holds
        part.const_value = ir.ExternalTensor(
            stored.location,
            (stored.offset or 0) + stored.nbytes // stored.shape.numpy()[0] * row,
            read.nbytes,
            read.dtype,
            name=str(part.name),
            shape=ir.Shape(read.shape.numpy()),
            base_dir=stored.base_dir,
        )


def _drop_unread(model: ir.Model) -> None:
    """Leave out the initializers that no node reads, such as a weight of which only parts are."""
    for name, value in list(model.graph.initializers.items()):
        if not value.uses():
            del model.graph.initializers[name]


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
    _drop_unread(model)
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
