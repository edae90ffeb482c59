"""What a role wants from the hidden states: token NLLs, a reward, a sentence embedding."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from instructmining_export.graphs.graph_builder import GraphBuilder


def token_nll(
    tape: GraphBuilder,
    hidden: ir.Value,
    input_ids: ir.Value,
    scored: ir.Value,
    *,
    output_embedding: str,
    shape: tuple[int, int],
) -> ir.Value:
    """Negative log likelihood of each scored token, float32 (n,), in nats.

    Only the hidden states before a scored token meet the vocabulary matrix, so padding and prompts cost nothing there.
    LogSoftmax and a gather, not ReduceLogSumExp: the latter is biased by up to 1e-4 over 49,152 words on the CPU.

    Args:
        tape: the graph.
        hidden: full (rows, width, size).
        input_ids: int64 (rows, width).
        scored: int64 (n, 2), each the row and the position of a token to score; position at least 1.
        output_embedding: the checkpoint's name of the vocabulary matrix.
        shape: its shape, (words, size).
    """
    before = tape.call("Sub", scored, tape.integers(0, 1))
    states = tape.call("GatherND", hidden, before)
    targets = tape.call("Unsqueeze", tape.call("GatherND", input_ids, scored), tape.integers(1))
    logits = tape.vocabulary(states, output_embedding, shape=shape)
    chosen = tape.call(
        "GatherElements", tape.call("LogSoftmax", logits, attributes={"axis": -1}), targets, attributes={"axis": 1}
    )
    return tape.call("Neg", tape.call("Squeeze", chosen, tape.integers(1)))


def last_token(tape: GraphBuilder, hidden: ir.Value, position_ids: ir.Value) -> ir.Value:
    """Hidden state of each row's last token, float32 (rows, size); padding has position 0."""
    last = tape.call("ArgMax", position_ids, attributes={"axis": 1, "keepdims": 1})
    return tape.call("GatherND", hidden, last, attributes={"batch_dims": 1})


def linear_reward(
    tape: GraphBuilder, state: ir.Value, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> ir.Value:
    """Reward of each row, float32 (rows,), over a state of shape (rows, size); a head of k > 1 outputs gives (rows, k).

    Computed in float64: it costs nothing, and a single row takes another float32 path than several, 5e-5 apart.
    """
    with tape.each("row"):
        tape.count(weight.size)
    logits = tape.call(
        "Gemm",
        tape.call("Cast", state, attributes={"to": int(ir.DataType.DOUBLE)}),
        tape.constant("out_proj.weight", weight.astype(np.float64)),
        tape.constant("out_proj.bias", bias.astype(np.float64)),
        attributes={"transB": 1},
    )
    reward = tape.call("Cast", logits, attributes={"to": int(ir.DataType.FLOAT)})
    return tape.call("Squeeze", reward, tape.integers(1)) if len(weight) == 1 else reward


def sentence_embedding(tape: GraphBuilder, hidden: ir.Value, attention_mask: ir.Value, pooling: str) -> ir.Value:
    """One unit vector a row, float32 (rows, size).

    Args:
        tape: the graph.
        hidden: full (rows, width, size).
        attention_mask: int64 (rows, width).
        pooling: "mean" over attended tokens, "cls" for the first token, "last" for the last attended one.
    """
    if pooling == "mean":
        mask = tape.call("Unsqueeze", tape.cast(attention_mask, ir.DataType.FLOAT), tape.integers(1))
        # The mean's divisor cancels in the norm; it stays out, and with it one rounding.
        pooled = tape.call("Squeeze", tape.call("MatMul", mask, hidden), tape.integers(1))
    elif pooling == "cls":
        pooled = first_token(tape, hidden)
    else:
        lengths = tape.call("ReduceSum", attention_mask, tape.integers(1), attributes={"keepdims": 1})
        last = tape.call("Sub", lengths, tape.integers(1))
        pooled = tape.call("GatherND", hidden, last, attributes={"batch_dims": 1})
    return tape.call("LpNormalization", pooled, attributes={"axis": -1, "p": 2})


def first_token(tape: GraphBuilder, hidden: ir.Value) -> ir.Value:
    """Hidden state of each row's first token, full (rows, size)."""
    zero = tape.constant("zero", np.array(0, dtype=np.int64))
    return tape.call("Gather", hidden, zero, attributes={"axis": 1})


def segments(tape: GraphBuilder, input_ids: ir.Value, attention_mask: ir.Value, separator: int) -> ir.Value:
    """0 up to each row's first separator, 1 behind it up to the end of the row: int64 (rows, width).

    Text in a row never becomes a separator, because special tokens in it are tokenized as plain text.
    """
    found = tape.call("Equal", input_ids, tape.constant("separator", np.array(separator, dtype=np.int64)))
    before = tape.call("CumSum", tape.cast(found, ir.DataType.INT64), tape.integers(1), attributes={"exclusive": 1})
    return tape.call("Mul", tape.call("Min", before, tape.integers(1)), attention_mask)
