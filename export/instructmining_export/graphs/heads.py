"""What a role wants from the hidden states: token NLLs, a reward, a sentence embedding."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from instructmining_export.graphs.tape import GraphTape


def token_nll(
    tape: GraphTape, hidden: ir.Value, input_ids: ir.Value, scored: ir.Value, vocabulary: ir.Value
) -> ir.Value:
    """Negative log likelihood of each scored token, float32 (n,), in nats.

    Only the hidden states before a scored token meet the vocabulary matrix, so padding and prompts cost nothing there.
    LogSoftmax and a gather, not ReduceLogSumExp: the latter is biased by up to 1e-4 over 49,152 words on the CPU.

    Args:
        tape: the graph.
        hidden: float32 (rows, width, size).
        input_ids: int64 (rows, width).
        scored: int64 (n, 2), each the row and the position of a token to score; position at least 1.
        vocabulary: float32 (words, size), the output embedding.
    """
    before = tape.call("Sub", scored, tape.integers(0, 1))
    states = tape.call("GatherND", hidden, before)
    targets = tape.call("Unsqueeze", tape.call("GatherND", input_ids, scored), tape.integers(1))
    logits = tape.call("Gemm", states, vocabulary, attributes={"transB": 1})
    chosen = tape.call(
        "GatherElements", tape.call("LogSoftmax", logits, attributes={"axis": -1}), targets, attributes={"axis": 1}
    )
    return tape.call("Neg", tape.call("Squeeze", chosen, tape.integers(1)))


def last_token(tape: GraphTape, hidden: ir.Value, position_ids: ir.Value) -> ir.Value:
    """Hidden state of each row's last token, float32 (rows, size); padding has position 0."""
    last = tape.call("ArgMax", position_ids, attributes={"axis": 1, "keepdims": 1})
    return tape.call("GatherND", hidden, last, attributes={"batch_dims": 1})


def linear_reward(tape: GraphTape, state: ir.Value, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> ir.Value:
    """Reward of each row, float32 (rows,), over a state of shape (rows, size); a head of k > 1 outputs gives (rows, k).

    Computed in float64: it costs nothing, and a single row takes another float32 path than several, 5e-5 apart.
    """
    logits = tape.call(
        "Gemm",
        tape.call("Cast", state, attributes={"to": int(ir.DataType.DOUBLE)}),
        tape.constant("out_proj.weight", weight.astype(np.float64)),
        tape.constant("out_proj.bias", bias.astype(np.float64)),
        attributes={"transB": 1},
    )
    reward = tape.call("Cast", logits, attributes={"to": int(ir.DataType.FLOAT)})
    return tape.call("Squeeze", reward, tape.integers(1)) if len(weight) == 1 else reward


def mean_embedding(tape: GraphTape, hidden: ir.Value, attention_mask: ir.Value) -> ir.Value:
    """Mean over attended tokens, then L2 norm: float32 (rows, size) of unit vectors."""
    mask = tape.call(
        "Unsqueeze", tape.call("Cast", attention_mask, attributes={"to": int(ir.DataType.FLOAT)}), tape.integers(1)
    )
    total = tape.call("Squeeze", tape.call("MatMul", mask, hidden), tape.integers(1))
    # The mean's divisor cancels in the norm; it stays out, and with it one rounding.
    return tape.call("LpNormalization", total, attributes={"axis": -1, "p": 2})
