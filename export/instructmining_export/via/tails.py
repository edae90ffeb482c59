"""Our outputs on an exported graph: token NLLs, a reward, a sentence embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from instructmining.errors import ExportError
from instructmining_export.graphs import heads
from instructmining_export.graphs.bidirectional import Pooling
from instructmining_export.graphs.causal import LinearHead
from instructmining_export.graphs.graph_builder import GraphBuilder, Weights
from instructmining_export.via import vocabulary
from instructmining_export.via.extended_graph import ExtendedGraph


def likelihoods(exported: ir.Model, weights: Weights) -> GraphBuilder:
    """Put token likelihoods on a causal language model's graph.

    Where its logits are a product of hidden states, that is cut off and computed in slices, of scored positions only.
    Where a bias, a scale or a soft cap follows the product, it stays and gets the scored positions only. Where it is
    not found, the logits of all positions are computed.

    Args:
        exported: with the output ``logits``, float32 (rows, width, words).
        weights: of the checkpoint.

    Raises:
        ExportError: the graph is not as described.
    """
    words = _words(exported)
    graph, values = _begin(exported, weights)
    logits = graph.exported("logits", values)
    scored, best_of = graph.input("scored", "n", 2), graph.input("best_of", "m")
    product = vocabulary.find(logits)
    graph.count_products(besides=product)
    if product is not None and len(product.after) == 1:
        name = graph.vocabulary_table(product)
        found = heads.token_likelihoods(
            graph, product.states, values["input_ids"], scored, best_of, output_embedding=name, shape=product.shape
        )
    else:
        if product is not None:
            with graph.each("scored"):
                graph.count(math.prod(product.shape))
            product.node.replace_input_with(0, heads.before_scored(graph, product.states, scored))
        else:
            logits = heads.before_scored(graph, logits, scored)
        found = heads.likelihoods_of_logits(graph, logits, values["input_ids"], scored, best_of, words=words)
    graph.output("nll", found.nll)
    graph.output("best_token", found.best_token, ir.DataType.INT64)
    graph.output("best_log_probability", found.best_log_probability)
    return graph


def last_token_reward(exported: ir.Model, weights: Weights, *, head: str) -> GraphBuilder:
    """Put a decoder's reward head on its last token's state.

    Args:
        exported: with the output ``last_hidden_state``, float32 (rows, width, size).
        weights: of the checkpoint.
        head: the checkpoint's name of the head, (1, size).

    Raises:
        ExportError: the graph is not as described, or the head does not have exactly one output.
    """
    linear = LinearHead.read(weights, head, None)
    graph, values = _begin(exported, weights)
    states = graph.exported("last_hidden_state", values)
    graph.count_products()
    state = heads.last_token(graph, states, values["position_ids"])
    graph.output("reward", heads.linear_reward(graph, state, linear.weight, linear.bias))
    return graph


def classifier_reward(exported: ir.Model, weights: Weights, *, separator: int | None) -> GraphBuilder:
    """Take an encoder's one logit as the reward.

    Args:
        exported: with the output ``logits``, float32 (rows, 1).
        weights: of the checkpoint.
        separator: id of the token after a pair's first text; None where texts are not pairs, or not marked.

    Raises:
        ExportError: the graph is not as described.
    """
    graph, values = _begin(exported, weights, separator)
    logits = graph.exported("logits", values)
    graph.count_products()
    graph.output("reward", graph.call("Squeeze", logits, graph.integers(1)))
    return graph


def embedding(
    exported: ir.Model, weights: Weights, *, pooling: Pooling, dense: Sequence[heads.Dense] = ()
) -> GraphBuilder:
    """Pool an encoder's states to a unit vector.

    Args:
        exported: with the output ``last_hidden_state``, float32 (rows, width, size).
        weights: of the checkpoint.
        pooling: of the last hidden states.
        dense: layers after it.

    Raises:
        ExportError: the graph is not as described.
    """
    graph, values = _begin(exported, weights)
    states = graph.exported("last_hidden_state", values)
    graph.count_products()
    graph.output("embedding", heads.sentence_embedding(graph, states, values["attention_mask"], pooling, dense))
    return graph


def _begin(
    exported: ir.Model, weights: Weights, separator: int | None = None
) -> tuple[ExtendedGraph, dict[str, ir.Value]]:
    """Return the graph to extend, with the values of all inputs that the exported one may take."""
    graph = ExtendedGraph(exported, weights)
    values = {name: graph.input(name, "rows", "width") for name in ("input_ids", "attention_mask", "position_ids")}
    ids, mask = values["input_ids"], values["attention_mask"]
    if separator is None:
        values["token_type_ids"] = graph.call("Sub", mask, mask)
    else:
        values["token_type_ids"] = heads.segments(graph, ids, mask, separator)
    return graph, values


def _words(exported: ir.Model) -> int:
    """Return the size of the logits' last dimension."""
    for value in exported.graph.outputs:
        if value.name == "logits" and value.shape is not None and isinstance(words := value.shape[-1], int):
            return words
    raise ExportError("the exported graph does not say how many words its logits are over")
