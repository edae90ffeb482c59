"""What all causal decoders share: fused attention over right-padded rows, and the heads put on a backbone."""

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
    """One family of decoders; a frozen dataclass of the config's numbers. Tensor names are the base model's."""

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
        """Read a transformers config; ExportError where it asks for what the graph does not have."""

    def states(self, tape: GraphBuilder, input_ids: ir.Value, position_ids: ir.Value) -> ir.Value:
        """Hidden states after the final norm, full (rows, width, hidden)."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """A reward head of one output."""

    weight: NDArray[np.float32]  # (1, hidden)
    bias: NDArray[np.float32]  # (1,)

    @classmethod
    def read(cls, weights: Weights, weight: str, bias: str | None) -> LinearHead:
        """The checkpoint's own head.

        Raises:
            ExportError: it has another number of outputs than one.
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
    """The graph of a decoder with the heads asked for.

    Inputs are right-padded: ``input_ids`` and ``position_ids`` int64 (rows, width), padding at position 0, and for
    the vocabulary head ``scored`` int64 (n, 2). A causal model needs no mask: nothing sees the padding behind it.

    Args:
        backbone: the family with the checkpoint's numbers.
        weights: reads a tensor by its transformers name.
        vocabulary: give ``nll``, float32 (n,).
        reward: give ``reward``, float32 (rows,), of this head on the last token's state.
        precision: of the matrix products.
    """
    tape = GraphBuilder("decoder", weights, precision)
    input_ids = tape.input("input_ids", "rows", "width")
    position_ids = tape.input("position_ids", "rows", "width")
    states = backbone.states(tape, input_ids, position_ids)
    if vocabulary:
        scored = tape.input("scored", "n", 2)
        shape = (backbone.words, backbone.hidden)
        nll = heads.token_nll(tape, states, input_ids, scored, output_embedding=backbone.output_embedding, shape=shape)
        tape.output("nll", nll)
    if reward is not None:
        state = heads.last_token(tape, states, position_ids)
        tape.output("reward", heads.linear_reward(tape, state, reward.weight, reward.bias))
    return tape


@dataclass(frozen=True, slots=True)
class CausalAttention:
    """onnxruntime's GroupQueryAttention, with the rotary embedding inside where there is one."""

    heads: int
    key_value_heads: int
    head_size: int
    rotary: Rotary | None = None
    window: int = -1  # tokens that a token sees, itself included; -1 for all before it
    scale: float | None = None  # of the products of queries and keys; None for 1/√head_size

    def __post_init__(self) -> None:
        """Refuse what the operator cannot do."""
        wanted = 16 if self.rotary else 8
        if self.head_size % wanted:
            message = f"heads of size {self.head_size}: onnxruntime's fused attention wants a multiple of {wanted}"
            raise ExportError(message)
        if self.rotary and len(self.rotary.frequencies) % 8:
            rotated = 2 * len(self.rotary.frequencies)
            raise ExportError(f"{rotated} rotated dimensions: onnxruntime's fused attention wants a multiple of 16")

    def __call__(
        self,
        tape: GraphBuilder,
        input_ids: ir.Value,
        query: ir.Value,
        key: ir.Value | None = None,
        value: ir.Value | None = None,
    ) -> ir.Value:
        """Attend; narrow (rows, width, heads · head_size).

        Args:
            tape: the graph.
            input_ids: gives rows and width.
            query: narrow (rows, width, heads · head_size); or with no key and value, all three side by side.
            key: narrow (rows, width, key_value_heads · head_size).
            value: like the key.
        """
        lengths, total = _lengths(tape, input_ids)
        tables = self.rotary.tables(tape) if self.rotary else ()
        attributes: dict[str, int | float] = {
            "num_heads": self.heads,
            "kv_num_heads": self.key_value_heads,
            "do_rotary": int(self.rotary is not None),
        }
        if self.window > 0:
            attributes["local_window_size"] = self.window
        if self.scale is not None:
            attributes["scale"] = self.scale
        return tape.call_many(
            "GroupQueryAttention",
            *(query, key, value, None, None, lengths, total, *tables),
            outputs=3,
            attributes=attributes,
        )[0]


def _lengths(tape: GraphBuilder, input_ids: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Positions of the last tokens, int32 (rows,), and the width, int32 scalar, as the operator wants them.

    Padding counts as tokens: it stands on the right, and causal attention never looks there.
    """
    rows = tape.once("Shape", input_ids, attributes={"start": 0, "end": 1})
    width = tape.once("Shape", input_ids, attributes={"start": 1, "end": 2})
    narrow = tape.once("Cast", width, attributes={"to": int(ir.DataType.INT32)})
    last = tape.once("Sub", narrow, tape.constant("one_int32", np.array([1], dtype=np.int32)))
    return tape.once("Expand", last, rows), tape.once("Squeeze", narrow, tape.integers(0))
