"""Layer normalization with a bias, of a value or of a residual sum."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from instructmining_export.graphs.graph_builder import GraphBuilder


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """The layer norms of one model; they differ only by their weights, ``NAME.weight`` and ``NAME.bias``."""

    size: int
    epsilon: float

    def __call__(self, graph: GraphBuilder, value: ir.Value, name: str) -> ir.Value:
        """Normalize a full value (..., size); returns a full value."""
        attributes = {"epsilon": self.epsilon, "axis": -1}
        return graph.call("LayerNormalization", value, *self._weights(graph, name), attributes=attributes)

    def add_and_norm(
        self, graph: GraphBuilder, residual: ir.Value, value: ir.Value, name: str, *, bias: str | None = None
    ) -> tuple[ir.Value, ir.Value]:
        """Return the norm of residual + value + bias, and that sum, both full.

        Args:
            graph: gets the node.
            residual: full (rows, width, size).
            value: full (rows, width, size), a layer's output.
            name: of the norm.
            bias: name of that layer's bias, if its output does not include it.
        """
        outputs = graph.call_many(
            "SkipLayerNormalization",
            *(residual, value, *self._weights(graph, name)),
            graph.weight(bias, shape=(self.size,)) if bias else None,
            outputs=4,
            attributes={"epsilon": self.epsilon},
        )
        return outputs[0], outputs[3]

    def _weights(self, graph: GraphBuilder, name: str) -> tuple[ir.Value, ir.Value]:
        return graph.weight(f"{name}.weight", shape=(self.size,)), graph.weight(f"{name}.bias", shape=(self.size,))
