"""What all causal decoders share: inputs, and the heads on a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from instructmining.errors import ExportError
from instructmining_export.graphs import heads
from instructmining_export.graphs.graph_builder import DeviceKind, GraphBuilder, Weights
from instructmining_export.graphs.precision import FP32, Precision


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

    @property
    def logits(self) -> heads.Logits:
        """What the family makes of its vocabulary product."""

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
    device: DeviceKind = "cpu",
) -> GraphBuilder:
    """Build the graph of a decoder with the heads asked for.

    Inputs are right-padded: ``input_ids`` and, where a node reads it, ``position_ids``, int64 (rows, width), padding at
    position 0; for the vocabulary head also ``scored``, int64 (n, 2), and ``best_of``, int64 (m,), indices into it. A
    causal model needs no mask: no token sees the padding after it.

    Args:
        backbone: the family with the checkpoint's numbers.
        weights: reads a tensor by its transformers name.
        vocabulary: adds the outputs ``nll``, float32 (n,), and of the positions in ``best_of`` the likeliest token,
            ``best_token``, int64 (m,), and its ``best_log_probability``, float32 (m,).
        reward: adds the output ``reward``, float32 (rows,): this head on the last token's state.
        precision: of the matrix products.
        device: whose operators are used where none is fast on both.
    """
    graph = GraphBuilder("decoder", weights, precision, device=device)
    input_ids = graph.input("input_ids", "rows", "width")
    position_ids = graph.input("position_ids", "rows", "width")
    states = backbone.states(graph, input_ids, position_ids)
    if vocabulary:
        scored = graph.input("scored", "n", 2)
        shape = (backbone.words, backbone.hidden)
        name = backbone.output_embedding
        best_of = graph.input("best_of", "m")
        found = heads.token_likelihoods(
            graph,
            states,
            input_ids,
            scored,
            best_of,
            output_embedding=name,
            shape=shape,
            logits=backbone.logits,
        )
        graph.output("nll", found.nll)
        graph.output("best_token", found.best_token, ir.DataType.INT64)
        graph.output("best_log_probability", found.best_log_probability)
    if reward is not None:
        state = heads.last_token(graph, states, position_ids)
        graph.output("reward", heads.linear_reward(graph, state, reward.weight, reward.bias))
    return graph
