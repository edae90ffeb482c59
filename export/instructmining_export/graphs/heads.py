"""Heads on hidden states: token NLLs, a reward, a sentence embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from instructmining_export.graphs.graph_builder import GraphBuilder

_SLICES = 8  # of a large vocabulary; with what is kept of each, its logits take about a quarter of the memory
_SLICE_WORDS = 2048  # fewer words are no slice of their own


@dataclass(frozen=True, slots=True)
class Logits:
    """What a family makes of its vocabulary product before the softmax."""

    divisor: float = 1.0
    cap: float = 0.0  # bound of the logits, c · tanh(logit / c); 0 for none


PLAIN = Logits()


@dataclass(frozen=True, slots=True)
class Dense:
    """A layer between the pooling and the vector, as sentence-transformers has them."""

    weight: NDArray[np.float32]  # (out, in)
    bias: NDArray[np.float32]  # (out,)
    activation: Literal["Tanh"] | None = None


@dataclass(frozen=True, slots=True)
class TokenLikelihoods:
    """What the vocabulary product gives for scored positions."""

    nll: ir.Value  # float32 (n,), negative log likelihood of the token there, in nats
    best_token: ir.Value  # int64 (m,), the likeliest token of some of them
    best_log_probability: ir.Value  # float32 (m,), of that token


def token_likelihoods(
    graph: GraphBuilder,
    hidden: ir.Value,
    input_ids: ir.Value,
    scored: ir.Value,
    best_of: ir.Value,
    *,
    output_embedding: str,
    shape: tuple[int, int],
    logits: Logits = PLAIN,
) -> TokenLikelihoods:
    """Compute the likelihood of each scored token.

    Only the hidden states before scored tokens are multiplied with the vocabulary matrix, so padding and prompts cost
    nothing there. The vocabulary is computed in slices, whose memory is reused: log p is the token's log p in its slice
    plus the slice's log p among the slices. Sums over a whole vocabulary are less exact in float32: 2e-5 for
    LogSoftmax, 1e-4 for ReduceLogSumExp on a CPU.

    Args:
        graph: gets the nodes.
        hidden: full (rows, width, size).
        input_ids: int64 (rows, width).
        scored: int64 (n, 2), row and position of each token to score; position at least 1.
        best_of: int64 (m,), indices into ``scored`` of the positions whose likeliest token is computed. onnxruntime
            computes every output of a graph, whichever it returns; of no position it costs nothing.
        output_embedding: the checkpoint's name of the vocabulary matrix.
        shape: its shape, (words, size).
        logits: what the family makes of the product.
    """
    states = before_scored(graph, hidden, scored)
    if (divisor := logits.divisor * (logits.cap or 1.0)) != 1.0:
        states = graph.call("Mul", states, graph.constant("logits_scale", np.array(1 / divisor, dtype=np.float32)))

    def some(words: tuple[int, int]) -> ir.Value:
        product = graph.vocabulary(states, output_embedding, shape=shape, words=words)
        return _capped(graph, product, logits.cap)

    return _likelihoods(graph, some, input_ids, scored, best_of, shape[0])


def likelihoods_of_logits(
    graph: GraphBuilder,
    logits: ir.Value,
    input_ids: ir.Value,
    scored: ir.Value,
    best_of: ir.Value,
    *,
    words: int,
) -> TokenLikelihoods:
    """Compute the likelihood of each scored token from logits over the whole vocabulary.

    Args:
        graph: gets the nodes.
        logits: full (n, words), at the positions before the scored ones.
        input_ids: as for :func:`token_likelihoods`.
        scored: as there.
        best_of: as there.
        words: of the vocabulary.
    """

    def some(columns: tuple[int, int]) -> ir.Value:
        begin, end = map(graph.integers, columns)
        return logits if columns == (0, words) else graph.call("Slice", logits, begin, end, graph.integers(1))

    return _likelihoods(graph, some, input_ids, scored, best_of, words)


def before_scored(graph: GraphBuilder, values: ir.Value, scored: ir.Value) -> ir.Value:
    """Return what stands at the positions before the scored ones, (n, size), of (rows, width, size)."""
    return graph.call("GatherND", values, graph.call("Sub", scored, graph.integers(0, 1)))


def _likelihoods(
    graph: GraphBuilder,
    logits: Callable[[tuple[int, int]], ir.Value],
    input_ids: ir.Value,
    scored: ir.Value,
    best_of: ir.Value,
    words: int,
) -> TokenLikelihoods:
    """Compute likelihoods from the logits over slices of the vocabulary, each given by its begin and end."""
    targets = graph.call("Unsqueeze", graph.call("GatherND", input_ids, scored), graph.integers(1))
    step = slice_words(words)
    columns = [
        _slice(graph, targets, logits(part), part, best_of)
        for part in ((begin, min(begin + step, words)) for begin in range(0, words, step))
    ]
    log_sum, chosen, best_inside, best_tokens = _parts(graph, columns, scored, best_of)
    among = _log_softmax(graph, log_sum)
    number = graph.call("Div", targets, graph.integers(step))
    nll = graph.call("Neg", graph.call("Add", _at(graph, chosen, number), _at(graph, among, number)))
    likeliest = graph.call("Add", best_inside, graph.call("Gather", among, best_of))
    best = graph.call("ArgMax", likeliest, attributes={"axis": 1, "keepdims": 1})
    token = graph.cast(_at(graph, best_tokens, best), ir.DataType.INT64)
    squeezed = (graph.call("Squeeze", found, graph.integers(1)) for found in (nll, token, _at(graph, likeliest, best)))
    return TokenLikelihoods(*squeezed)


def _capped(graph: GraphBuilder, logits: ir.Value, cap: float) -> ir.Value:
    """Return c · tanh of logits that are already divided by c; without a cap the logits themselves."""
    if not cap:
        return logits
    return graph.call("Mul", graph.call("Tanh", logits), graph.constant("logits_cap", np.array(cap, dtype=np.float32)))


def slice_words(words: int) -> int:
    """Return the words in a slice of the vocabulary: all of a small one, else a multiple of 64 for fast products."""
    slices = min(_SLICES, words // _SLICE_WORDS)
    return words if slices < 2 else -(-words // slices // 64) * 64


def _slice(
    graph: GraphBuilder, targets: ir.Value, logits: ir.Value, words: tuple[int, int], best_of: ir.Value
) -> ir.Value:
    """Return what is kept of the logits over some words in a row, float32 (2 n + 2 m, 1).

    In this order: for each scored position the log of the sum of exp(logit), and log p in the slice of its target, or
    of another word where the target is in another slice; for each position in ``best_of`` log p in the slice of its
    likeliest word, and that word. All in one value, because onnxruntime computes single ones when they are needed and
    keeps every slice's logits until then; words are exact in float32 up to 2²⁴.
    """
    begin, end = words
    inside = _log_softmax(graph, logits)
    place = graph.call("Sub", targets, graph.integers(begin))
    place = graph.call("Max", graph.call("Min", place, graph.integers(end - begin - 1)), graph.integers(0))
    chosen = _at(graph, inside, place)
    some = graph.call("Gather", inside, best_of)
    best = graph.call("ArgMax", some, attributes={"axis": 1, "keepdims": 1})
    parts = (
        graph.call("Sub", _at(graph, logits, place), chosen),
        chosen,
        _at(graph, some, best),
        graph.cast(graph.call("Add", best, graph.integers(begin)), ir.DataType.FLOAT),
    )
    return graph.call("Concat", *parts, attributes={"axis": 0})


def _parts(
    graph: GraphBuilder, columns: Sequence[ir.Value], scored: ir.Value, best_of: ir.Value
) -> tuple[ir.Value, ...]:
    """Return the four parts of the slices' columns, each (n or m, slices)."""
    joined = graph.call("Concat", *columns, attributes={"axis": 1})
    n, m = (graph.call("Shape", value, attributes={"start": 0, "end": 1}) for value in (scored, best_of))
    both = graph.call("Add", n, n)
    ends = (graph.integers(0), n, both, graph.call("Add", both, m), graph.call("Add", both, graph.call("Add", m, m)))
    return tuple(graph.call("Slice", joined, begin, end, graph.integers(0)) for begin, end in pairwise(ends))


def _log_softmax(graph: GraphBuilder, values: ir.Value) -> ir.Value:
    return graph.call("LogSoftmax", values, attributes={"axis": -1})


def _at(graph: GraphBuilder, values: ir.Value, places: ir.Value) -> ir.Value:
    """Return the value of each row at its place, (n, 1)."""
    return graph.call("GatherElements", values, places, attributes={"axis": 1})


def last_token(graph: GraphBuilder, hidden: ir.Value, position_ids: ir.Value) -> ir.Value:
    """Return the hidden state of each row's last token, float32 (rows, size); padding has position 0."""
    last = graph.call("ReduceMax", position_ids, graph.integers(1), attributes={"keepdims": 1})
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


def sentence_embedding(
    graph: GraphBuilder, hidden: ir.Value, attention_mask: ir.Value, pooling: str, dense: Sequence[Dense] = ()
) -> ir.Value:
    """Pool hidden states to one unit vector per row, float32 (rows, size).

    Args:
        graph: gets the nodes.
        hidden: full (rows, width, size).
        attention_mask: int64 (rows, width).
        pooling: "mean" over the tokens, "cls" for the first token, "last" for the last one.
        dense: layers after the pooling.
    """
    if pooling == "mean":
        mask = graph.call("Unsqueeze", graph.cast(attention_mask, ir.DataType.FLOAT), graph.integers(1))
        pooled = graph.call("Squeeze", graph.call("MatMul", mask, hidden), graph.integers(1))
        if dense:  # else the sum serves: the divisor cancels in the norm, and leaving it out saves a rounding
            pooled = graph.call("Div", pooled, graph.cast(_lengths(graph, attention_mask), ir.DataType.FLOAT))
    elif pooling == "cls":
        pooled = first_token(graph, hidden)
    else:
        last = graph.call("Sub", _lengths(graph, attention_mask), graph.integers(1))
        pooled = graph.call("GatherND", hidden, last, attributes={"batch_dims": 1})
    for number, layer in enumerate(dense):
        pooled = _dense(graph, pooled, layer, f"dense_{number}")
    return graph.call("LpNormalization", pooled, attributes={"axis": -1, "p": 2})


def _lengths(graph: GraphBuilder, attention_mask: ir.Value) -> ir.Value:
    """Return the tokens of each row, int64 (rows, 1)."""
    return graph.call("ReduceSum", attention_mask, graph.integers(1), attributes={"keepdims": 1})


def _dense(graph: GraphBuilder, value: ir.Value, layer: Dense, name: str) -> ir.Value:
    """Apply a layer to full values (rows, in), in float32 in every precision; returns full (rows, out)."""
    with graph.each("row"):
        graph.count(layer.weight.size)
    weight, bias = graph.constant(f"{name}.weight", layer.weight), graph.constant(f"{name}.bias", layer.bias)
    result = graph.call("Gemm", value, weight, bias, attributes={"transB": 1})
    return result if layer.activation is None else graph.call(layer.activation, result)


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
