"""The heads of encoders' sequence classifiers, with one label, as a reward."""

from __future__ import annotations

import onnx_ir as ir

from instructmining_export.graphs.graph_builder import GraphBuilder


def tanh_reward(tape: GraphBuilder, state: ir.Value, *, dense: str, output: str, hidden: int) -> ir.Value:
    """Linear, tanh, linear: the heads of BERT, RoBERTa and MPNet; full (rows,).

    Args:
        tape: the graph.
        state: full (rows, hidden).
        dense: the checkpoint's name of the first Linear, without ``.weight``.
        output: of the last one.
        hidden: size of the state.
    """
    active = tape.call("Tanh", dense_layer(tape, state, dense, hidden, bias=True))
    return linear_reward(tape, active, output, hidden)


def dense_layer(tape: GraphBuilder, state: ir.Value, name: str, hidden: int, *, bias: bool) -> ir.Value:
    """A Linear from hidden to hidden on one state a row, in float32 in every precision; full (rows, hidden)."""
    biases = [f"{name}.bias"] if bias else ()
    with tape.each("row"):
        return tape.linear(state, f"{name}.weight", shape=(hidden, hidden), bias=biases, keep=True)


def linear_reward(tape: GraphBuilder, state: ir.Value, name: str, hidden: int) -> ir.Value:
    """A Linear with bias and one output on one state a row; full (rows,).

    In float64 for the reason given in :func:`heads.linear_reward`; the weights are stored as float32.
    """
    with tape.each("row"):
        tape.count(hidden)
    double = ir.DataType.DOUBLE
    weight = tape.weight(f"{name}.weight", shape=(1, hidden))
    bias = tape.weight(f"{name}.bias", shape=(1,))
    logit = tape.call("Gemm", *(tape.cast(value, double) for value in (state, weight, bias)), attributes={"transB": 1})
    return tape.call("Squeeze", tape.cast(logit, ir.DataType.FLOAT), tape.integers(1))


def mean_state(tape: GraphBuilder, states: ir.Value, attention_mask: ir.Value) -> ir.Value:
    """Mean of each row's hidden states over its tokens; full (rows, hidden).

    Args:
        tape: the graph.
        states: full (rows, width, hidden).
        attention_mask: int64 (rows, width); each row has a token.
    """
    mask = tape.cast(attention_mask, ir.DataType.FLOAT)
    rowwise = tape.call("MatMul", tape.call("Unsqueeze", mask, tape.integers(1)), states)
    total = tape.call("Squeeze", rowwise, tape.integers(1))
    return tape.call("Div", total, tape.call("ReduceSum", mask, tape.integers(1), attributes={"keepdims": 1}))
