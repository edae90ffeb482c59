"""Layer normalization with a bias, of one value or of a residual sum."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from instructmining_export.graphs.graph_builder import GraphBuilder


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """The norms of one model: they differ by their weights alone, ``NAME.weight`` and ``NAME.bias``."""

    size: int
    epsilon: float

    def __call__(self, tape: GraphBuilder, value: ir.Value, name: str) -> ir.Value:
        """Norm of a full value (..., size), full."""
        attributes = {"epsilon": self.epsilon, "axis": -1}
        return tape.call("LayerNormalization", value, *self._weights(tape, name), attributes=attributes)

    def of_sum(
        self, tape: GraphBuilder, residual: ir.Value, value: ir.Value, name: str, *, bias: str | None = None
    ) -> tuple[ir.Value, ir.Value]:
        """Norm of residual + value + bias, and that sum, both full, from one operator.

        Args:
            tape: the graph.
            residual: full (rows, width, size).
            value: full (rows, width, size), a layer's output.
            name: of the norm.
            bias: the bias of that layer, if it was left out there.
        """
        outputs = tape.call_many(
            "SkipLayerNormalization",
            *(residual, value, *self._weights(tape, name)),
            tape.weight(bias, shape=(self.size,)) if bias else None,
            outputs=4,
            attributes={"epsilon": self.epsilon},
        )
        return outputs[0], outputs[3]

    def _weights(self, tape: GraphBuilder, name: str) -> tuple[ir.Value, ir.Value]:
        return tape.weight(f"{name}.weight", shape=(self.size,)), tape.weight(f"{name}.bias", shape=(self.size,))
