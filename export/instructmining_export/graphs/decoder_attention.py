"""Attention of decoders, in which most see only the token itself and those before it; padding is on the right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from instructmining.errors import ExportError
from instructmining_export.graphs import attention
from instructmining_export.graphs.graph_builder import CONTRIB, Attribute, GraphBuilder
from instructmining_export.graphs.rotary import Rotary

_ONE = ir.tensor(np.array([1], dtype=np.int32))


@dataclass(frozen=True, slots=True)
class DecoderAttention:
    """One layer's attention, with the rotary embedding where there is one."""

    heads: int
    key_value_heads: int
    head_size: int
    rotary: Rotary | None = None
    window: int = -1  # tokens that a token sees to either side it looks to, itself included; -1 for all
    scale: float | None = None  # factor of query-key products; None for 1/√head_size
    softcap: float = 0.0  # bound of the scores, c · tanh(score / c); 0 for none
    causal: bool = True  # whether a token sees only those before it

    def __post_init__(self) -> None:
        """Refuse sizes that the operator does not support."""
        wanted = 16 if self.rotary else 8
        if self.head_size % wanted:
            message = f"heads of size {self.head_size}: onnxruntime's fused attention wants a multiple of {wanted}"
            raise ExportError(message)
        if self.rotary and len(self.rotary.frequencies) % 8:
            rotated = 2 * len(self.rotary.frequencies)
            raise ExportError(f"{rotated} rotated dimensions: onnxruntime's fused attention wants a multiple of 16")

    def __call__(
        self,
        graph: GraphBuilder,
        input_ids: ir.Value,
        query: ir.Value,
        key: ir.Value | None = None,
        value: ir.Value | None = None,
        *,
        lengths: ir.Value | None = None,
    ) -> ir.Value:
        """Add the attention.

        Args:
            graph: gets the nodes.
            input_ids: only its shape is used, for rows and width.
            query: narrow (rows, width, heads · head_size); without key and value, all three side by side.
            key: narrow (rows, width, key_value_heads · head_size).
            value: like the key.
            lengths: tokens of each row, int64 (rows,); only attention that is not causal needs them.

        Returns:
            narrow (rows, width, heads · head_size).
        """
        if not self.causal or (graph.device == "cuda" and graph.precision.name == "fp32"):
            size, fewer = self.heads * self.head_size, self.key_value_heads * self.head_size
            if key is None or value is None:
                query, key, value = attention.split(graph, query, (size, fewer, fewer))
            return self._unpacked(graph, input_ids, (query, key, value), lengths)
        last, total = _last(graph, input_ids)
        tables = self.rotary.tables(graph) if self.rotary else ()
        attributes: dict[str, Attribute] = {
            "num_heads": self.heads,
            "kv_num_heads": self.key_value_heads,
            "do_rotary": int(self.rotary is not None),
        }
        if self.window > 0:
            attributes["local_window_size"] = self.window
        if self.scale is not None:
            attributes["scale"] = self.scale
        if self.softcap:
            attributes["softcap"] = self.softcap
        return graph.call_many(
            "GroupQueryAttention",
            *(query, key, value, None, None, last, total, *tables),
            outputs=3,
            attributes=attributes,
        )[0]

    def _unpacked(
        self,
        graph: GraphBuilder,
        input_ids: ir.Value,
        parts: tuple[ir.Value, ir.Value, ir.Value],
        lengths: ir.Value | None,
    ) -> ir.Value:
        """Add the attention as single operators: GroupQueryAttention is causal, and on CUDA not in float32."""
        query, key, value = parts
        if self.rotary:
            query = self._rotated(graph, self.rotary, query, self.heads)
            key = self._rotated(graph, self.rotary, key, self.key_value_heads)
        if self.key_value_heads < self.heads:  # the fused kernel wants a key and a value for each query
            key, value = self._repeated(graph, key), self._repeated(graph, value)
        return attention.multi_head(
            graph,
            (query, key, value),
            heads=self.heads,
            lengths=None if self.causal else lengths,
            added=self._far(graph, input_ids) if self.window > 0 else None,
            causal=self.causal,
            scale=self.scale,
            softcap=self.softcap,
        )

    def _rotated(self, graph: GraphBuilder, rotary: Rotary, value: ir.Value, heads: int) -> ir.Value:
        attributes = {"num_heads": heads, "rotary_embedding_dim": 2 * len(rotary.frequencies)}
        # A single position id is the position of every row's first token.
        inputs = (value, graph.integers(0), *rotary.tables(graph))
        return graph.call("RotaryEmbedding", *inputs, domain=CONTRIB, attributes=attributes)

    def _repeated(self, graph: GraphBuilder, value: ir.Value) -> ir.Value:
        """Repeat each head of keys or values for the queries that share it, (rows, width, heads · head_size)."""
        each = self.heads // self.key_value_heads
        split = graph.call("Reshape", value, graph.integers(0, 0, self.key_value_heads, 1, self.head_size))
        repeated = graph.call("Expand", split, graph.integers(1, 1, 1, each, 1))
        return graph.call("Reshape", repeated, graph.integers(0, 0, self.heads * self.head_size))

    def _far(self, graph: GraphBuilder, input_ids: ir.Value) -> ir.Value:
        """Return what hides the tokens outside of a query's window, narrow (width, width)."""
        distances = attention.distances(graph, input_ids)
        away = graph.once("Neg" if self.causal else "Abs", distances)
        far = graph.once("GreaterOrEqual", away, graph.constant(f"window_{self.window}", np.array(self.window)))
        return attention.hidden_where(graph, far)


def _last(graph: GraphBuilder, input_ids: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the position of each row's last token, int32 (rows,), and the width, int32 scalar.

    Padding counts as tokens: it is on the right, where causal attention never looks. The first is counted on the device
    that the graph runs on: a CUDA graph cannot record a copy from the host.
    """
    shape = graph.once("Shape", input_ids)
    ones = graph.once("ConstantOfShape", shape, attributes={"value": _ONE})
    widths = graph.once("ReduceSum", ones, graph.integers(1), attributes={"keepdims": 0})
    last = graph.once("Sub", widths, graph.constant("one_int32", _ONE.numpy()))
    width = graph.cast(attention.width(graph, input_ids), ir.DataType.INT32)
    return last, graph.once("Squeeze", width, graph.integers(0))
