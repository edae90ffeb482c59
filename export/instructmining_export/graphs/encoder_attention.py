"""Attention of bidirectional encoders, in which every token sees every other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from instructmining_export.graphs.graph_builder import CONTRIB, Attribute, GraphBuilder

# Added to the scores of hidden tokens, as onnxruntime does for padding: softmax turns it into 0, and fp16 can hold it.
HIDDEN_SCORE = -1e4


def multi_head(
    graph: GraphBuilder,
    parts: Sequence[ir.Value],
    *,
    heads: int,
    bias: ir.Value | None = None,
    lengths: ir.Value | None = None,
    added: ir.Value | None = None,
) -> ir.Value:
    """Add the fused MultiHeadAttention.

    Args:
        graph: gets the node.
        parts: query, key and value, each narrow (rows, width, hidden).
        heads: number of heads that share ``hidden``.
        bias: of query, key and value, narrow (3 · hidden,); None where they already include it, or have none.
        lengths: tokens of each row, int32 (rows,); None where ``added`` hides the padding.
        added: narrow (1 or rows, 1 or heads, width, width), added to the scores; queries on the third axis, keys on the
            last.

    Returns:
        narrow (rows, width, hidden).
    """
    attributes: dict[str, Attribute] = {"num_heads": heads}
    return graph.call("MultiHeadAttention", *parts, bias, lengths, added, domain=CONTRIB, attributes=attributes)


def split(graph: GraphBuilder, packed: ir.Value, parts: int, size: int) -> Sequence[ir.Value]:
    """Split (..., parts · size) into values of one size."""
    sizes = graph.integers(*[size] * parts)
    return graph.call_many("Split", packed, sizes, outputs=parts, domain="", attributes={"axis": -1})


def lengths(graph: GraphBuilder, attention_mask: ir.Value) -> ir.Value:
    """Count the tokens of each row, int32 (rows,)."""
    counted = graph.once("ReduceSum", attention_mask, graph.integers(1), attributes={"keepdims": 0})
    return graph.cast(counted, ir.DataType.INT32)


def width(graph: GraphBuilder, input_ids: ir.Value) -> ir.Value:
    """Return the padded width of the batch, int64 (1,)."""
    return graph.once("Shape", input_ids, attributes={"start": 1, "end": 2})


def distances(graph: GraphBuilder, input_ids: ir.Value) -> ir.Value:
    """Return key position minus query position, int64 (width, width): a row per query, a column per key."""
    zero, one = (graph.constant(name, np.array(number, dtype=np.int64)) for number, name in enumerate(("zero", "one")))
    end = graph.once("Squeeze", width(graph, input_ids), graph.integers(0))
    positions = graph.once("Range", zero, end, one)
    return graph.once("Sub", positions, graph.once("Unsqueeze", positions, graph.integers(1)))
