"""Attention in which every token sees every other: what bidirectional encoders share around the fused operator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from instructmining_export.graphs.graph_builder import CONTRIB, Attribute, GraphBuilder

# Added to the scores of hidden tokens; what onnxruntime adds for padding too. Softmax makes it 0, and fp16 holds it.
HIDDEN_SCORE = -1e4


def multi_head(
    tape: GraphBuilder,
    parts: Sequence[ir.Value],
    *,
    heads: int,
    bias: ir.Value | None = None,
    lengths: ir.Value | None = None,
    added: ir.Value | None = None,
) -> ir.Value:
    """The fused MultiHeadAttention; narrow (rows, width, hidden).

    Args:
        tape: the graph.
        parts: query, key and value, each narrow (rows, width, hidden).
        heads: that share hidden.
        bias: of query, key and value, narrow (3 · hidden,); None where they have it already, or have none.
        lengths: tokens of each row, int32 (rows,); None where ``added`` hides the padding.
        added: narrow (1 or rows, 1 or heads, width, width), added to the scores of each query (third) with each key.
    """
    attributes: dict[str, Attribute] = {"num_heads": heads}
    return tape.call("MultiHeadAttention", *parts, bias, lengths, added, domain=CONTRIB, attributes=attributes)


def split(tape: GraphBuilder, packed: ir.Value, parts: int, size: int) -> Sequence[ir.Value]:
    """Values of one size that lie side by side, (..., parts · size), as values of their own."""
    sizes = tape.integers(*[size] * parts)
    return tape.call_many("Split", packed, sizes, outputs=parts, domain="", attributes={"axis": -1})


def lengths(tape: GraphBuilder, attention_mask: ir.Value) -> ir.Value:
    """Tokens of each row, int32 (rows,)."""
    counted = tape.once("ReduceSum", attention_mask, tape.integers(1), attributes={"keepdims": 0})
    return tape.cast(counted, ir.DataType.INT32)


def width(tape: GraphBuilder, input_ids: ir.Value) -> ir.Value:
    """Tokens of the longest row, int64 (1,)."""
    return tape.once("Shape", input_ids, attributes={"start": 1, "end": 2})


def distances(tape: GraphBuilder, input_ids: ir.Value) -> ir.Value:
    """How far each key (second) stands behind each query (first), int64 (width, width); negative before it."""
    zero, one = (tape.constant(name, np.array(n, dtype=np.int64)) for n, name in enumerate(("zero", "one")))
    end = tape.once("Squeeze", width(tape, input_ids), tape.integers(0))
    positions = tape.once("Range", zero, end, one)
    return tape.once("Sub", positions, tape.once("Unsqueeze", positions, tape.integers(1)))
