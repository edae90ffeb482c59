"""Builds a graph node by node in one precision; weights are read when the file is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from instructmining.errors import ExportError
from instructmining_export.graphs.precision import FP32, Precision
from instructmining_export.graphs.quantization import quantize_columns, quantize_rows
from instructmining_export.graphs.tensors import Change, key_of, lazy, mark_rows, rows_of, to_half

OPSET = 24  # the first whose Attention takes the lengths of padded rows
CONTRIB = "com.microsoft"  # onnxruntime's own operators, such as fused attention

Attribute: TypeAlias = int | float | str | Sequence[int] | ir.TensorProtocol
DeviceKind: TypeAlias = Literal["cpu", "cuda"]
Weights: TypeAlias = Callable[[str], NDArray[np.float32]]
Unit: TypeAlias = Literal["token", "scored", "row"]  # a padded token, a scored position, a row of a batch


class GraphBuilder:
    """Collects the nodes of one graph; weights stay on disk until the graph is saved.

    Values are *full* (float32) or *narrow* (float16 in an fp16 graph, else float32). Products and attention take and
    return narrow values; everything else is full. :meth:`narrow` and :meth:`full` convert between them.
    """

    def __init__(self, name: str, weights: Weights, precision: Precision = FP32, *, device: DeviceKind = "cpu") -> None:
        """Start an empty graph.

        Args:
            name: of the graph.
            weights: reads one tensor of the checkpoint by name, as float32.
            precision: of the matrix products.
            device: whose operators are used where none is fast on both.
        """
        self.precision = precision
        self.device = device
        self.products: dict[str, ir.Value] = {}  # key of each product → its input, in graph order
        self.tables: list[str] = []  # keys of the embedding tables
        self._name = name
        self._weights = weights
        self._tape = Tape()
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._known: dict[str, ir.Value] = {}
        self._once: dict[tuple[object, ...], ir.Value] = {}
        self._product_weights: dict[str, Callable[[], NDArray[np.float32]]] = {}
        self._quantized: dict[int, tuple[ir.Value, ir.Value]] = {}
        self._counted: Counter[Unit] = Counter()
        self._unit: Unit | None = "token"

    # Inputs, weights and constants

    def input(self, name: str, *dimensions: str | int) -> ir.Value:
        """Declare an int64 input; a named dimension is dynamic."""
        value = ir.Value(name=name, shape=ir.Shape(dimensions), type=ir.TensorType(ir.DataType.INT64))
        self._inputs.append(value)
        return value

    def weight(
        self,
        *names: str,
        shape: tuple[int, ...],
        transpose: bool = False,
        narrow: bool = False,
        change: Change | None = None,
    ) -> ir.Value:
        """Return an initializer that holds one tensor, or several stacked on their first axis.

        Args:
            names: the checkpoint's names.
            shape: of the stacked tensor in the checkpoint, before any change or transpose.
            transpose: swap the two axes, as MatMul wants a Linear's weight.
            narrow: store as a narrow value; else float32.
            change: applied to the stacked tensor; keeps its shape.
        """
        key = key_of(names, change) + (".T" if transpose else "")
        half = narrow and self.precision.name == "fp16"
        stored_name = key + ".fp16" if half else key
        if stored_name in self._known:
            return self._known[stored_name]

        def read() -> ir.TensorProtocol:
            array = self._read(names, shape, change)
            array = np.ascontiguousarray(array.T if transpose else array)
            return ir.tensor(to_half(array, key) if half else array, name=stored_name)

        kind = ir.DataType.FLOAT16 if half else ir.DataType.FLOAT
        stored_shape = ir.Shape(shape[::-1] if transpose else shape)
        return self._initializer(stored_name, ir.LazyTensor(read, dtype=kind, shape=stored_shape, name=stored_name))

    def constant(self, name: str, array: NDArray[np.generic], *, narrow: bool = False) -> ir.Value:
        """Return an initializer that holds the array; ``narrow`` stores floats as a narrow value."""
        if narrow and self.precision.name == "fp16":
            name, array = name + ".fp16", array.astype(np.float16)
        return self._known.get(name) or self._initializer(name, ir.tensor(array, name=name))

    def integers(self, *values: int) -> ir.Value:
        """Return a constant int64 vector, for shapes and axes."""
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    # Nodes

    def call(
        self, op: str, *inputs: ir.Value | None, domain: str = "", attributes: Mapping[str, Attribute] | None = None
    ) -> ir.Value:
        """Add a node and return its first output."""
        return self._tape.op(op, inputs, attributes, domain=domain)

    def call_many(
        self,
        op: str,
        *inputs: ir.Value | None,
        outputs: int,
        domain: str = CONTRIB,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Sequence[ir.Value]:
        """Add a node, by default an onnxruntime operator, and return all its outputs."""
        return self._tape.op_multi_out(op, inputs, attributes, domain=domain, num_outputs=outputs)

    def once(
        self, op: str, *inputs: ir.Value, domain: str = "", attributes: Mapping[str, Attribute] | None = None
    ) -> ir.Value:
        """Like :meth:`call`, but add the same node only once."""
        key = (op, domain, *(id(value) for value in inputs), *sorted((attributes or {}).items()))
        if key not in self._once:
            self._once[key] = self.call(op, *inputs, domain=domain, attributes=attributes)
        return self._once[key]

    def cast(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        """Convert a value to another type."""
        return self.once("Cast", value, attributes={"to": int(kind)})

    def narrow(self, value: ir.Value) -> ir.Value:
        """Convert a full value to a narrow one, the type that products and attention take."""
        return self.cast(value, ir.DataType.FLOAT16) if self.precision.name == "fp16" else value

    def full(self, value: ir.Value) -> ir.Value:
        """Convert a narrow value to float32."""
        return self.cast(value, ir.DataType.FLOAT) if self.precision.name == "fp16" else value

    def embedding(self, name: str, ids: ir.Value, *, shape: tuple[int, int], change: Change | None = None) -> ir.Value:
        """Look up rows of a table stored in the graph's precision; returns full (..., size).

        Args:
            name: the checkpoint's name of the table.
            ids: int64 (...) row numbers.
            shape: the table's, (rows, size).
            change: applied to the table.
        """
        key = key_of((name,), change)
        self.tables.append(f"{key}.rows")
        if self.precision.name != "int8" or self.tables[-1] in self.precision.kept:
            return self.full(self.call("Gather", self.weight(name, shape=shape, narrow=True, change=change), ids))

        def read() -> NDArray[np.float32]:
            return self._read((name,), shape, change)

        table, scales = self._quantized_weight(
            key + ".rows", (shape, (shape[0], 1)), lambda: quantize_rows(read())[0], lambda: quantize_rows(read())[1]
        )
        rows = self.call("Cast", self.call("Gather", table, ids), attributes={"to": int(ir.DataType.FLOAT)})
        return self.call("Mul", rows, self.call("Gather", scales, ids))

    def linear(
        self,
        value: ir.Value,
        *names: str,
        shape: tuple[int, int],
        bias: Sequence[str] = (),
        inputs_first: bool = False,
        keep: bool = False,
        change: Change | None = None,
    ) -> ir.Value:
        """Add a Linear layer, or several on one input with their outputs side by side.

        Args:
            value: narrow (..., in); full where ``keep``.
            names: weights of shape (out, in), stacked on their first axis.
            shape: of the stacked weight, always (out, in).
            bias: names of the biases, stacked likewise; empty for a layer without bias.
            inputs_first: the checkpoint stores the weight as (in, out), as GPT-2 does; takes one name only.
            keep: compute in float32 in every precision.
            change: applied to the stacked weight and to the stacked bias.

        Returns:
            narrow (..., out); full where ``keep``.
        """
        out, size = shape
        self.count(out * size)
        key = key_of(names, change)
        quantized = self.precision.name == "int8" and not keep and key not in self.precision.kept
        stored_shape = (size, out) if inputs_first else (out, size)
        if not keep:

            def read() -> NDArray[np.float32]:
                stored = self._read(names, stored_shape, change)
                return stored if inputs_first else stored.T

            self._product(key, value, read)
        if quantized:
            result = self._integer_product(value, key, (size, out))
        else:
            in_float32 = keep or key in self.precision.kept
            weight = self.weight(
                *names, shape=stored_shape, transpose=not inputs_first, narrow=not in_float32, change=change
            )
            result = self.call("MatMul", self.full(value) if in_float32 and not keep else value, weight)
            result = self.narrow(result) if in_float32 and not keep else result
        if bias:
            result = self.call("Add", result, self.weight(*bias, shape=(out,), narrow=not keep, change=change))
        return result

    def vocabulary(self, states: ir.Value, name: str, *, shape: tuple[int, int], words: tuple[int, int]) -> ir.Value:
        """Compute logits over some words, full (n, end - begin); shares its table with :meth:`embedding`.

        Args:
            states: full (n, size).
            name: the checkpoint's name of the output embedding.
            shape: of the table, (words, size).
            words: begin and end of the words.
        """
        begin, end = words
        with self.each("scored"):
            self.count((end - begin) * shape[1])
        self._product(name, states, lambda: self._read((name,), shape, None).T)
        if self.precision.name == "int8" and name not in self.precision.kept:
            return self._integer_product(states, name, shape[::-1], axis=1, columns=words)
        table = self._rows(self.weight(name, shape=shape, narrow=True), shape, words)
        return self.full(self.call("Gemm", self.narrow(states), table, attributes={"transB": 1}))

    def _rows(self, table: ir.Value, shape: tuple[int, int], rows: tuple[int, int]) -> ir.Value:
        """Return some rows of a weight; they are read from the weight's own data, which is stored once."""
        if rows == (0, shape[0]):
            return table
        part = rows_of(table, rows)
        value = self._initializer(str(part.name), part)
        mark_rows(value, table, rows[0])
        return value

    # Cost of the products

    @contextmanager
    def each(self, unit: Unit | None) -> Iterator[None]:
        """Count products inside the block once per unit; outside any block they count once per padded token.

        Args:
            unit: None where products depend on weights alone and are computed once per session.
        """
        before, self._unit = self._unit, unit
        yield
        self._unit = before

    def count(self, multiply_adds: int) -> None:
        """Count a product with weights that neither :meth:`linear` nor :meth:`vocabulary` added.

        Args:
            multiply_adds: per unit set by :meth:`each`.
        """
        if self._unit is not None:
            self._counted[self._unit] += multiply_adds

    @property
    def multiply_adds(self) -> dict[str, int]:
        """Multiply-adds so far of products with weights, by unit; excludes attention's own products."""
        return {unit: self._counted[unit] for unit in get_args(Unit)}

    def output(self, name: str, value: ir.Value, kind: ir.DataType = ir.DataType.FLOAT) -> None:
        """Declare an output."""
        value.name = name
        value.type = ir.TensorType(kind)
        self._outputs.append(value)

    @property
    def operators(self) -> list[str]:
        """The types of the nodes, in order."""
        return [node.op_type for node in self._tape.nodes]

    def probe(self, value: ir.Value) -> str:
        """Declare a full value as another output, for calibration; returns its name."""
        if value not in self._outputs:
            self.output(f"probe_{len(self._outputs)}", value)
        return str(value.name)

    def product_weight(self, key: str) -> NDArray[np.float32]:
        """Read the weight of one of :attr:`products`, float32 (in, out)."""
        return self._product_weights[key]()

    def model(self) -> ir.Model:
        """Return the graph as a model; without inputs that no node reads."""
        read = {id(value) for node in self._tape.nodes for value in node.inputs}
        graph = ir.Graph(
            [value for value in self._inputs if id(value) in read],
            self._outputs,
            nodes=self._tape.nodes,
            initializers=list(self._known.values()),
            opset_imports={"": OPSET, CONTRIB: 1},
            name=self._name,
        )
        return ir.Model(graph, ir_version=12, producer_name="instructmining")

    def _product(self, key: str, value: ir.Value, weight: Callable[[], NDArray[np.float32]]) -> None:
        self.products[key] = value
        self._product_weights[key] = weight

    def _integer_product(
        self,
        value: ir.Value,
        key: str,
        shape: tuple[int, int],
        *,
        axis: int = -1,
        columns: tuple[int, int] | None = None,
    ) -> ir.Value:
        """Multiply in integers; each row is divided by its largest magnitude, so results do not depend on the batch.

        Args:
            value: (..., in).
            key: of the product.
            shape: of the weight, (in, out).
            axis: the input's last, counted from the front where the input may have no rows: onnxruntime's reductions
                over a negative axis of an empty tensor return a wrong shape.
            columns: begin and end of the outputs to compute; None for all.
        """
        smoothing = self.precision.smoothing.get(key)
        if id(value) not in self._quantized:
            self._quantized[id(value)] = self._quantized_rows(value, key, smoothing, axis)
        rows, largest = self._quantized[id(value)]

        def divided() -> NDArray[np.float32]:
            weight = self.product_weight(key)
            return weight if smoothing is None else weight * smoothing[:, None]

        weight, scales = self._quantized_weight(
            key,
            (shape, (shape[1],)),
            lambda: quantize_columns(divided(), self.precision.inputs.get(key))[0],
            lambda: quantize_columns(divided())[1],
        )
        if columns not in {None, (0, shape[1])}:
            weight, scales = (self._columns(value, columns, axis) for value, axis in ((weight, 1), (scales, 0)))
        scale, zero = self._row_scale()
        product = self.call("MatMulIntegerToFloat", rows, weight, scale, scales, zero, domain=CONTRIB)
        return self.call("Mul", product, largest)

    def _columns(self, values: ir.Value, columns: tuple[int, int], axis: int) -> ir.Value:
        """Return some columns of a product's integers or scales; onnxruntime copies them when the session opens."""
        return self.call("Slice", values, *(self.integers(end) for end in columns), self.integers(axis))

    def _quantized_rows(
        self, value: ir.Value, key: str, smoothing: NDArray[np.float32] | None, axis: int
    ) -> tuple[ir.Value, ir.Value]:
        if smoothing is not None:
            value = self.call("Mul", value, self.constant(f"{key}.smoothing", 1 / smoothing))
        largest = self.call("ReduceMax", self.call("Abs", value), self.integers(axis), attributes={"keepdims": 1})
        # A row of zeros stays zero.
        largest = self.call("Max", largest, self.constant("tiny", np.array(1e-30, dtype=np.float32)))
        return self.call("QuantizeLinear", self.call("Div", value, largest), *self._row_scale()), largest

    def _row_scale(self) -> tuple[ir.Value, ir.Value]:
        """Return scale and zero point; inputs are unsigned because signed kernels are four times slower on x86."""
        return (
            self.constant("row_scale", np.array(1 / 127, dtype=np.float32)),
            self.constant("row_zero", np.array(128, dtype=np.uint8)),
        )

    def _quantized_weight(
        self,
        key: str,
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        integers: Callable[[], NDArray[np.int8]],
        scales: Callable[[], NDArray[np.float32]],
    ) -> tuple[ir.Value, ir.Value]:
        """Return initializers of the integers and their scales, each computed when the file is written."""
        names = (key + ".int8", key + ".scales")
        if names[0] not in self._known:
            self._initializer(names[0], lazy(names[0], ir.DataType.INT8, shapes[0], integers))
            self._initializer(names[1], lazy(names[1], ir.DataType.FLOAT, shapes[1], scales))
        return self._known[names[0]], self._known[names[1]]

    def _read(self, names: Sequence[str], shape: tuple[int, ...], change: Change | None) -> NDArray[np.float32]:
        parts = [self._weights(name) for name in names]
        array = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if array.shape != shape:
            raise ExportError(f"{'+'.join(names)}: found shape {array.shape}, the config says {shape}")
        return array if change is None else change.apply(array)

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = self._tape.initializer(tensor, name=name)
        self._known[name] = value
        return value
