"""What all bidirectional encoders share: inputs, pooling into a sentence embedding, and the reward head's place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, Self, TypeAlias, get_args

import onnx_ir as ir

from instructmining_export.graphs import heads
from instructmining_export.graphs.graph_builder import FP32, GraphBuilder, Precision, Weights

Pooling: TypeAlias = Literal["mean", "cls", "last"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


class BidirectionalBackbone(Protocol):
    """One family of encoders; a frozen dataclass of the config's numbers. Tensor names are the base model's."""

    @property
    def types(self) -> int:
        """Kinds of segments that the embeddings know; more than 1 where a pair's second text is marked."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> Self:
        """Read a transformers config; ExportError where it asks for what the graph does not have."""

    def states(
        self, tape: GraphBuilder, input_ids: ir.Value, attention_mask: ir.Value, segments: ir.Value | None
    ) -> ir.Value:
        """Last hidden states, full (rows, width, hidden).

        Args:
            tape: the graph.
            input_ids: int64 (rows, width), right-padded with 0.
            attention_mask: int64 (rows, width), 1 where there is a token.
            segments: int64 (rows, width), 0 or 1; None where every text is a single one.
        """

    def reward(self, tape: GraphBuilder, states: ir.Value, attention_mask: ir.Value) -> ir.Value:
        """Logit of the family's sequence classifier with one label, full (rows,)."""


def build_embedding(
    backbone: BidirectionalBackbone, weights: Weights, *, pooling: Pooling, precision: Precision = FP32
) -> GraphBuilder:
    """The graph of a sentence encoder, with pooling and unit length inside.

    Inputs ``input_ids`` and ``attention_mask``, int64 (rows, width), right-padded; output ``embedding``, float32
    (rows, hidden).

    Args:
        backbone: the family with the checkpoint's numbers.
        weights: reads a tensor by its transformers name.
        pooling: of the last hidden states.
        precision: of the matrix products.
    """
    tape = GraphBuilder("encoder", weights, precision)
    input_ids, attention_mask = _inputs(tape)
    states = backbone.states(tape, input_ids, attention_mask, None)
    tape.output("embedding", heads.sentence_embedding(tape, states, attention_mask, pooling))
    return tape


def build_reward(
    backbone: BidirectionalBackbone, weights: Weights, *, separator: int | None, precision: Precision = FP32
) -> GraphBuilder:
    """The graph of a sequence classifier of one label; inputs as for an embedding, output ``reward`` float32 (rows,).

    Args:
        backbone: the family with the checkpoint's numbers.
        weights: reads a tensor by its transformers name.
        separator: id of the token behind a pair's first text; None where texts are single.
        precision: of the matrix products.
    """
    tape = GraphBuilder("classifier", weights, precision)
    input_ids, attention_mask = _inputs(tape)
    marked = separator is not None and backbone.types > 1
    segments = heads.segments(tape, input_ids, attention_mask, separator or 0) if marked else None
    states = backbone.states(tape, input_ids, attention_mask, segments)
    tape.output("reward", backbone.reward(tape, states, attention_mask))
    return tape


def _inputs(tape: GraphBuilder) -> tuple[ir.Value, ir.Value]:
    return tape.input("input_ids", "rows", "width"), tape.input("attention_mask", "rows", "width")
