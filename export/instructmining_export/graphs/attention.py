"""ONNX's Attention over rows padded on the right, and the positions that masks and biases are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from instructmining_export.graphs.graph_builder import Attribute, GraphBuilder

# Added to the scores of tokens that a query does not see: softmax turns it into 0, and fp16 can hold it.
HIDDEN_SCORE = -1e4


def multi_head(
    graph: GraphBuilder,
    parts: Sequence[ir.Value],
    *,
    heads: int,
    lengths: ir.Value | None = None,
    added: ir.Value | None = None,
    causal: bool = False,
    scale: float | None = None,
    softcap: float = 0.0,
) -> ir.Value:
    """Add the attention; on CUDA no other form of a padding mask is open to all of the fused kernels.

    Args:
        graph: gets the node.
        parts: query, key and value, each (rows, width, heads · head size) of one type.
        heads: number of heads.
        lengths: tokens of each row, int64 (rows,), which hide the keys after them; None where no token looks there.
        added: added to the scores, of the parts' type; (queries, keys), or with heads and rows before them, each of its
            size or 1.
        causal: hide the tokens after each query.
        scale: factor of query-key products; None for 1/√head_size.
        softcap: bound of the scores, c · tanh(score / c); 0 for none.

    Returns:
        Of the shape and type of the query.
    """
    attributes: dict[str, Attribute] = {"q_num_heads": heads, "kv_num_heads": heads, "is_causal": int(causal)}
    if scale is not None:
        attributes["scale"] = scale
    if softcap:
        attributes["softcap"] = softcap
    past = (None, None)
    return graph.call("Attention", *parts, added, *(() if lengths is None else (*past, lengths)), attributes=attributes)


def split(graph: GraphBuilder, packed: ir.Value, sizes: Sequence[int]) -> Sequence[ir.Value]:
    """Split the last dimension into values of these sizes."""
    parts = graph.integers(*sizes)
    return graph.call_many("Split", packed, parts, outputs=len(sizes), domain="", attributes={"axis": -1})


def lengths(graph: GraphBuilder, attention_mask: ir.Value) -> ir.Value:
    """Count the tokens of each row, int64 (rows,)."""
    return graph.once("ReduceSum", attention_mask, graph.integers(1), attributes={"keepdims": 0})


def width(graph: GraphBuilder, input_ids: ir.Value) -> ir.Value:
    """Return the padded width of the batch, int64 (1,)."""
    return graph.once("Shape", input_ids, attributes={"start": 1, "end": 2})


def distances(graph: GraphBuilder, input_ids: ir.Value) -> ir.Value:
    """Return key position minus query position, int64 (width, width): a row per query, a column per key."""
    zero, one = (graph.constant(name, np.array(number, dtype=np.int64)) for number, name in enumerate(("zero", "one")))
    end = graph.once("Squeeze", width(graph, input_ids), graph.integers(0))
    positions = graph.once("Range", zero, end, one)
    return graph.once("Sub", positions, graph.once("Unsqueeze", positions, graph.integers(1)))


def hidden_where(graph: GraphBuilder, far: ir.Value) -> ir.Value:
    """Return what is added to scores so that these tokens are not seen, narrow, of the shape of the booleans given."""
    return graph.once(
        "Where",
        far,
        graph.constant("hidden_score", np.array(HIDDEN_SCORE, dtype=np.float32), narrow=True),
        graph.constant("seen_score", np.array(0.0, dtype=np.float32), narrow=True),
    )
