"""Heads on hidden states: token NLLs, a reward, a sentence embedding."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from instructmining_export.graphs.graph_builder import GraphBuilder


def token_nll(
    graph: GraphBuilder,
    hidden: ir.Value,
    input_ids: ir.Value,
    scored: ir.Value,
    *,
    output_embedding: str,
    shape: tuple[int, int],
) -> ir.Value:
    """Compute the negative log likelihood of each scored token, float32 (n,), in nats.

    Only the hidden states before scored tokens are multiplied with the vocabulary matrix, so padding and prompts cost
    nothing there. Uses LogSoftmax and a gather, because ReduceLogSumExp is off by up to 1e-4 over 49,152 words on CPU.

    Args:
        graph: gets the nodes.
        hidden: full (rows, width, size).
        input_ids: int64 (rows, width).
        scored: int64 (n, 2), row and position of each token to score; position at least 1.
        output_embedding: the checkpoint's name of the vocabulary matrix.
        shape: its shape, (words, size).
    """
    before = graph.call("Sub", scored, graph.integers(0, 1))
    states = graph.call("GatherND", hidden, before)
    targets = graph.call("Unsqueeze", graph.call("GatherND", input_ids, scored), graph.integers(1))
    logits = graph.vocabulary(states, output_embedding, shape=shape)
    chosen = graph.call(
        "GatherElements", graph.call("LogSoftmax", logits, attributes={"axis": -1}), targets, attributes={"axis": 1}
    )
    return graph.call("Neg", graph.call("Squeeze", chosen, graph.integers(1)))


def last_token(graph: GraphBuilder, hidden: ir.Value, position_ids: ir.Value) -> ir.Value:
    """Return the hidden state of each row's last token, float32 (rows, size); padding has position 0."""
    last = graph.call("ArgMax", position_ids, attributes={"axis": 1, "keepdims": 1})
    return graph.call("GatherND", hidden, last, attributes={"batch_dims": 1})


def linear_reward(
    graph: GraphBuilder, state: ir.Value, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> ir.Value:
    """Compute the reward of each row, float32 (rows,), from states (rows, size); (rows, k) for a head of k > 1 outputs.

    Uses float64 at no noticeable cost: in float32 a row alone and the same row in a batch differ by up to 5e-5.
    """
    with graph.each("row"):
        graph.count(weight.size)
    logits = graph.call(
        "Gemm",
        graph.call("Cast", state, attributes={"to": int(ir.DataType.DOUBLE)}),
        graph.constant("out_proj.weight", weight.astype(np.float64)),
        graph.constant("out_proj.bias", bias.astype(np.float64)),
        attributes={"transB": 1},
    )
    reward = graph.call("Cast", logits, attributes={"to": int(ir.DataType.FLOAT)})
    return graph.call("Squeeze", reward, graph.integers(1)) if len(weight) == 1 else reward


def sentence_embedding(graph: GraphBuilder, hidden: ir.Value, attention_mask: ir.Value, pooling: str) -> ir.Value:
    """Pool hidden states to one unit vector per row, float32 (rows, size).

    Args:
        graph: gets the nodes.
        hidden: full (rows, width, size).
        attention_mask: int64 (rows, width).
        pooling: "mean" over the tokens, "cls" for the first token, "last" for the last one.
    """
    if pooling == "mean":
        mask = graph.call("Unsqueeze", graph.cast(attention_mask, ir.DataType.FLOAT), graph.integers(1))
        # The sum serves as the mean: the divisor cancels in the norm, and leaving it out saves a rounding.
        pooled = graph.call("Squeeze", graph.call("MatMul", mask, hidden), graph.integers(1))
    elif pooling == "cls":
        pooled = first_token(graph, hidden)
    else:
        lengths = graph.call("ReduceSum", attention_mask, graph.integers(1), attributes={"keepdims": 1})
        last = graph.call("Sub", lengths, graph.integers(1))
        pooled = graph.call("GatherND", hidden, last, attributes={"batch_dims": 1})
    return graph.call("LpNormalization", pooled, attributes={"axis": -1, "p": 2})


def first_token(graph: GraphBuilder, hidden: ir.Value) -> ir.Value:
    """Return the hidden state of each row's first token, full (rows, size)."""
    zero = graph.constant("zero", np.array(0, dtype=np.int64))
    return graph.call("Gather", hidden, zero, attributes={"axis": 1})


def segments(graph: GraphBuilder, input_ids: ir.Value, attention_mask: ir.Value, separator: int) -> ir.Value:
    """Return segment ids, int64 (rows, width): 0 up to each row's first separator, 1 after it, 0 at padding.

    Text never contains the separator: the engine tokenizes special tokens in it as plain text.
    """
    found = graph.call("Equal", input_ids, graph.constant("separator", np.array(separator, dtype=np.int64)))
    before = graph.call("CumSum", graph.cast(found, ir.DataType.INT64), graph.integers(1), attributes={"exclusive": 1})
    return graph.call("Mul", graph.call("Min", before, graph.integers(1)), attention_mask)
