"""What all bidirectional encoders share: inputs, sentence embedding and reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, Self, TypeAlias, get_args

import onnx_ir as ir

from instructmining_export.graphs import heads
from instructmining_export.graphs.graph_builder import DeviceKind, GraphBuilder, Weights
from instructmining_export.graphs.heads import Dense
from instructmining_export.graphs.precision import FP32, Precision

Pooling: TypeAlias = Literal["mean", "cls", "last"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


class SentenceBackbone(Protocol):
    """One family whose states are pooled to vectors: a frozen dataclass of the config's numbers.

    Tensor names are the base model's.
    """

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> Self:
        """Read a transformers config.

        Raises:
            ExportError: the graph does not support one of its settings.
        """

    def states(
        self, graph: GraphBuilder, input_ids: ir.Value, attention_mask: ir.Value, segments: ir.Value | None
    ) -> ir.Value:
        """Return the last hidden states, full (rows, width, hidden).

        Args:
            graph: gets the nodes.
            input_ids: int64 (rows, width), right-padded with 0.
            attention_mask: int64 (rows, width), 1 at tokens, 0 at padding.
            segments: int64 (rows, width), 0 or 1; None where no text is a pair.
        """


class BidirectionalBackbone(SentenceBackbone, Protocol):
    """One family of encoders."""

    @property
    def types(self) -> int:
        """Number of segment types; more than 1 where a pair's second text is marked."""

    def reward(self, graph: GraphBuilder, states: ir.Value, attention_mask: ir.Value) -> ir.Value:
        """Return the logit of the family's sequence classifier with one label, full (rows,)."""


def build_embedding(
    backbone: SentenceBackbone,
    weights: Weights,
    *,
    pooling: Pooling,
    dense: Sequence[Dense] = (),
    precision: Precision = FP32,
    device: DeviceKind = "cpu",
) -> GraphBuilder:
    """Build the graph of a sentence encoder, including pooling and normalization to unit length.

    Inputs ``input_ids`` and ``attention_mask``, int64 (rows, width), right-padded; output ``embedding``, float32
    (rows, size).

    Args:
        backbone: the family with the checkpoint's numbers.
        weights: reads a tensor by its transformers name.
        pooling: of the last hidden states.
        dense: layers after the pooling.
        precision: of the matrix products.
        device: whose operators are used where none is fast on both.
    """
    graph = GraphBuilder("encoder", weights, precision, device=device)
    input_ids, attention_mask = _inputs(graph)
    states = backbone.states(graph, input_ids, attention_mask, None)
    graph.output("embedding", heads.sentence_embedding(graph, states, attention_mask, pooling, dense))
    return graph


def build_reward(
    backbone: BidirectionalBackbone,
    weights: Weights,
    *,
    separator: int | None,
    precision: Precision = FP32,
    device: DeviceKind = "cpu",
) -> GraphBuilder:
    """Build the graph of a sequence classifier with one label.

    Inputs as for an embedding; output ``reward``, float32 (rows,).

    Args:
        backbone: the family with the checkpoint's numbers.
        weights: reads a tensor by its transformers name.
        separator: id of the token after a pair's first text; None where texts are not pairs.
        precision: of the matrix products.
        device: whose operators are used where none is fast on both.
    """
    graph = GraphBuilder("classifier", weights, precision, device=device)
    input_ids, attention_mask = _inputs(graph)
    marked = separator is not None and backbone.types > 1
    segments = heads.segments(graph, input_ids, attention_mask, separator or 0) if marked else None
    states = backbone.states(graph, input_ids, attention_mask, segments)
    graph.output("reward", backbone.reward(graph, states, attention_mask))
    return graph


def _inputs(graph: GraphBuilder) -> tuple[ir.Value, ir.Value]:
    return graph.input("input_ids", "rows", "width"), graph.input("attention_mask", "rows", "width")
