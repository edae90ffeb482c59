"""Reward heads: encoders' sequence classifiers with one label."""

from __future__ import annotations

import onnx_ir as ir

from instructmining_export.graphs.graph_builder import GraphBuilder


def tanh_reward(graph: GraphBuilder, state: ir.Value, *, dense: str, output: str, hidden: int) -> ir.Value:
    """Add the head of BERT, RoBERTa and MPNet: linear, tanh, linear.

    Args:
        graph: gets the nodes.
        state: full (rows, hidden).
        dense: the checkpoint's name of the first Linear, without ``.weight``.
        output: name of the last Linear, likewise.
        hidden: size of the state.

    Returns:
        full (rows,).
    """
    active = graph.call("Tanh", dense_layer(graph, state, dense, hidden, bias=True))
    return linear_reward(graph, active, output, hidden)


def dense_layer(graph: GraphBuilder, state: ir.Value, name: str, hidden: int, *, bias: bool) -> ir.Value:
    """Add a Linear from hidden to hidden on one state per row, float32 in every precision; full (rows, hidden)."""
    biases = [f"{name}.bias"] if bias else ()
    with graph.each("row"):
        return graph.linear(state, f"{name}.weight", shape=(hidden, hidden), bias=biases, keep=True)


def linear_reward(graph: GraphBuilder, state: ir.Value, name: str, hidden: int) -> ir.Value:
    """Add a Linear with bias and one output on one state per row; full (rows,).

    Computes in float64 for the reason given in :func:`heads.linear_reward`; stores the weights as float32.
    """
    with graph.each("row"):
        graph.count(hidden)
    double = ir.DataType.DOUBLE
    weight = graph.weight(f"{name}.weight", shape=(1, hidden))
    bias = graph.weight(f"{name}.bias", shape=(1,))
    logit = graph.call(
        "Gemm", *(graph.cast(value, double) for value in (state, weight, bias)), attributes={"transB": 1}
    )
    return graph.call("Squeeze", graph.cast(logit, ir.DataType.FLOAT), graph.integers(1))


def mean_state(graph: GraphBuilder, states: ir.Value, attention_mask: ir.Value) -> ir.Value:
    """Average each row's hidden states over its tokens; full (rows, hidden).

    Args:
        graph: gets the nodes.
        states: full (rows, width, hidden).
        attention_mask: int64 (rows, width); each row has at least one token.
    """
    mask = graph.cast(attention_mask, ir.DataType.FLOAT)
    sums = graph.call("MatMul", graph.call("Unsqueeze", mask, graph.integers(1)), states)
    total = graph.call("Squeeze", sums, graph.integers(1))
    return graph.call("Div", total, graph.call("ReduceSum", mask, graph.integers(1), attributes={"keepdims": 1}))
