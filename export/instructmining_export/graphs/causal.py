"""What all causal decoders share: fused attention over right-padded rows, and the heads on a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from instructmining.errors import ExportError
from instructmining_export.graphs import heads
from instructmining_export.graphs.graph_builder import FP32, GraphBuilder, Precision, Weights
from instructmining_export.graphs.rotary import Rotary


class CausalBackbone(Protocol):
    """One family of decoders: a frozen dataclass of the config's numbers. Tensor names are the base model's."""

    @property
    def hidden(self) -> int:
        """Size of a hidden state."""

    @property
    def words(self) -> int:
        """Rows of the vocabulary matrix."""

    @property
    def output_embedding(self) -> str:
        """Name of the vocabulary matrix (words, hidden)."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> Self:
        """Read a transformers config.

        Raises:
            ExportError: the graph does not support one of its settings.
        """

    def states(self, graph: GraphBuilder, input_ids: ir.Value, position_ids: ir.Value) -> ir.Value:
        """Return hidden states after the final norm, full (rows, width, hidden)."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """A reward head with one output."""

    weight: NDArray[np.float32]  # (1, hidden)
    bias: NDArray[np.float32]  # (1,)

    @classmethod
    def read(cls, weights: Weights, weight: str, bias: str | None) -> LinearHead:
        """Read the checkpoint's own head.

        Raises:
            ExportError: the head does not have exactly one output.
        """
        matrix = weights(weight)
        if len(matrix) != 1:
            raise ExportError(f"{weight}: a head of {len(matrix)} outputs; a reward model has one")
        return cls(matrix, weights(bias) if bias is not None else np.zeros(1, dtype=np.float32))


def build(
    backbone: CausalBackbone,
    weights: Weights,
    *,
    vocabulary: bool,
    reward: LinearHead | None,
    precision: Precision = FP32,
) -> GraphBuilder:
    """Build the graph of a decoder with the heads asked for.

    Inputs are right-padded: ``input_ids`` and ``position_ids`` int64 (rows, width), padding at position 0, and for
    the vocabulary head ``scored`` int64 (n, 2). A causal model needs no mask: no token sees the padding after it.

    Args:
        backbone: the family with the checkpoint's numbers.
        weights: reads a tensor by its transformers name.
        vocabulary: adds the output ``nll``, float32 (n,).
        reward: adds the output ``reward``, float32 (rows,): this head on the last token's state.
        precision: of the matrix products.
    """
    graph = GraphBuilder("decoder", weights, precision)
    input_ids = graph.input("input_ids", "rows", "width")
    position_ids = graph.input("position_ids", "rows", "width")
    states = backbone.states(graph, input_ids, position_ids)
    if vocabulary:
        scored = graph.input("scored", "n", 2)
        shape = (backbone.words, backbone.hidden)
        nll = heads.token_nll(graph, states, input_ids, scored, output_embedding=backbone.output_embedding, shape=shape)
        graph.output("nll", nll)
    if reward is not None:
        state = heads.last_token(graph, states, position_ids)
        graph.output("reward", heads.linear_reward(graph, state, reward.weight, reward.bias))
    return graph


@dataclass(frozen=True, slots=True)
class CausalAttention:
    """onnxruntime's GroupQueryAttention, including the rotary embedding where there is one."""

    heads: int
    key_value_heads: int
    head_size: int
    rotary: Rotary | None = None
    window: int = -1  # tokens that a token sees, itself included; -1 for all before it
    scale: float | None = None  # factor of query-key products; None for 1/√head_size

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
    ) -> ir.Value:
        """Add the attention.

        Args:
            graph: gets the nodes.
            input_ids: only its shape is used, for rows and width.
            query: narrow (rows, width, heads · head_size); without key and value, all three side by side.
            key: narrow (rows, width, key_value_heads · head_size).
            value: like the key.

        Returns:
            narrow (rows, width, heads · head_size).
        """
        lengths, total = _lengths(graph, input_ids)
        tables = self.rotary.tables(graph) if self.rotary else ()
        attributes: dict[str, int | float] = {
            "num_heads": self.heads,
            "kv_num_heads": self.key_value_heads,
            "do_rotary": int(self.rotary is not None),
        }
        if self.window > 0:
            attributes["local_window_size"] = self.window
        if self.scale is not None:
            attributes["scale"] = self.scale
        return graph.call_many(
            "GroupQueryAttention",
            *(query, key, value, None, None, lengths, total, *tables),
            outputs=3,
            attributes=attributes,
        )[0]


def _lengths(graph: GraphBuilder, input_ids: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the position of each row's last token, int32 (rows,), and the width, int32 scalar.

    Padding counts as tokens: it is on the right, where causal attention never looks.
    """
    rows = graph.once("Shape", input_ids, attributes={"start": 0, "end": 1})
    width = graph.once("Shape", input_ids, attributes={"start": 1, "end": 2})
    width_int32 = graph.once("Cast", width, attributes={"to": int(ir.DataType.INT32)})
    last = graph.once("Sub", width_int32, graph.constant("one_int32", np.array([1], dtype=np.int32)))
    return graph.once("Expand", last, rows), graph.once("Squeeze", width_int32, graph.integers(0))
