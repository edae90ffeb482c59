"""The one way a graph is put together: inputs, weights read when the file is written, nodes in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from instructmining.errors import ExportError

OPSET = 18  # every operator used here is in it, and onnxruntime knows it since 1.14
CONTRIB = "com.microsoft"  # onnxruntime's own operators: attention, normalization with its residual

Attribute: TypeAlias = int | float | str | Sequence[int]
Weights: TypeAlias = Callable[[str], NDArray[np.float32]]


class GraphTape:
    """Collects the nodes of one graph; weights stay on disk until the graph is saved."""

    def __init__(self, name: str, weights: Weights) -> None:
        """Start an empty graph.

        Args:
            name: name of the graph.
            weights: reads one tensor of the checkpoint by name, as float32.
        """
        self._name = name
        self._weights = weights
        self._tape = Tape()
        self._inputs: list[ir.Value] = []
        self._known: dict[str, ir.Value] = {}

    def input(self, name: str, *dimensions: str | int) -> ir.Value:
        """Declare an int64 input; a named dimension is dynamic."""
        value = ir.Value(name=name, shape=ir.Shape(dimensions), type=ir.TensorType(ir.DataType.INT64))
        self._inputs.append(value)
        return value

    def weight(self, *names: str, shape: tuple[int, ...], transpose: bool = False) -> ir.Value:
        """A float32 initializer of one tensor, or of several stacked on their first axis.

        Args:
            names: the checkpoint's names.
            shape: the shape of the stacked tensor, before it is transposed.
            transpose: swap the two axes, as MatMul wants a Linear's weight.
        """
        key = "+".join(names) + (".T" if transpose else "")
        if key in self._known:
            return self._known[key]

        def read() -> ir.TensorProtocol:
            parts = [self._weights(name) for name in names]
            array = parts[0] if len(parts) == 1 else np.concatenate(parts)
            if array.shape != shape:
                raise ExportError(f"{key}: found shape {array.shape}, the config says {shape}")
            return ir.tensor(np.ascontiguousarray(array.T if transpose else array), name=key)

        stored = ir.Shape(shape[::-1] if transpose else shape)
        return self._initializer(key, ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=stored, name=key))

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """An initializer given by value."""
        return self._known.get(name) or self._initializer(name, ir.tensor(array, name=name))

    def integers(self, *values: int) -> ir.Value:
        """An int64 vector, as shapes and axes are given."""
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def call(
        self, op: str, *inputs: ir.Value | None, domain: str = "", attributes: Mapping[str, Attribute] | None = None
    ) -> ir.Value:
        """Add a node and return its first output."""
        return self._tape.op(op, inputs, attributes, domain=domain)

    def call_many(
        self, op: str, *inputs: ir.Value | None, outputs: int, attributes: Mapping[str, Attribute] | None = None
    ) -> Sequence[ir.Value]:
        """Add one of onnxruntime's own nodes and return all its outputs."""
        return self._tape.op_multi_out(op, inputs, attributes, domain=CONTRIB, num_outputs=outputs)

    def finish(self, outputs: dict[str, ir.Value]) -> ir.Model:
        """The whole graph, with float32 outputs of the given names."""
        for name, value in outputs.items():
            value.name = name
            value.type = ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph(
            self._inputs,
            list(outputs.values()),
            nodes=self._tape.nodes,
            initializers=list(self._known.values()),
            opset_imports={"": OPSET, CONTRIB: 1},
            name=self._name,
        )
        return ir.Model(graph, ir_version=10, producer_name="instructmining")

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = self._tape.initializer(tensor, name=name)
        self._known[name] = value
        return value


def save(model: ir.Model, path: Path) -> list[Path]:
    """Write a graph and its weights beside it; returns the files written."""
    data = path.with_suffix(".onnx.data")
    ir.save(model, path, external_data=data.name, max_workers=1)
    return [path, *([data] if data.exists() else [])]
