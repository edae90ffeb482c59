"""ModernBERT: a pre-norm encoder with rotary positions, a sliding window in most layers and gated feed-forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from instructmining.errors import ExportError
from instructmining_export.graphs import attention, classifiers, heads
from instructmining_export.graphs.graph_builder import CONTRIB, GraphBuilder
from instructmining_export.graphs.rotary import Rotary

FAMILIES = ("modernbert",)


@dataclass(frozen=True, slots=True)
class ModernBert:
    """The numbers of a checkpoint's config that decide its graph."""

    types: ClassVar[int] = 1  # a pair's second text is not marked

    hidden: int
    inner: int
    heads: int
    words: int
    epsilon: float
    windowed: tuple[bool, ...]  # for each layer, whether it has a sliding window
    reach: int  # tokens that a window spans on either side
    global_rotary: Rotary
    local_rotary: Rotary  # of the layers with a window
    max_length: int
    attention_bias: bool = False
    inner_bias: bool = False
    norm_bias: bool = False
    classifier_bias: bool = False
    classifier_pooling: str = "cls"  # or "mean"
    classifier_activation: str = "gelu"

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> ModernBert:
        """Read a transformers config.

        Raises:
            ExportError: the graph does not support the family or a setting, or ``max_length`` exceeds the positions
                of the checkpoint.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ExportError(f"an encoder of family {family!r} was given; wanted one of {', '.join(FAMILIES)}")
        if config["hidden_activation"] != "gelu":
            found = config["hidden_activation"]
            raise ExportError(f"this encoder's config says hidden_activation = {found!r}: wanted 'gelu'")
        if config["hidden_size"] % config["num_attention_heads"]:
            raise ExportError(
                f"this encoder's config says hidden_size = {config['hidden_size']}: "
                f"wanted a multiple of num_attention_heads, {config['num_attention_heads']}"
            )
        if max_length > config["max_position_embeddings"]:
            positions = config["max_position_embeddings"]
            raise ExportError(
                f"texts of up to {max_length} tokens for an encoder of {positions} positions; "
                f"give --max-length {positions} or less"
            )
        return cls(
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            heads=config["num_attention_heads"],
            words=config["vocab_size"],
            epsilon=config["norm_eps"],
            windowed=_windowed(config),
            reach=config["local_attention"] // 2,
            global_rotary=_rotary(config, "global_rope_theta", "full_attention", max_length),
            local_rotary=_rotary(config, "local_rope_theta", "sliding_attention", max_length),
            max_length=max_length,
            attention_bias=bool(config["attention_bias"]),
            inner_bias=bool(config["mlp_bias"]),
            norm_bias=bool(config["norm_bias"]),
            classifier_bias=bool(config["classifier_bias"]),
            classifier_pooling=config["classifier_pooling"],
            classifier_activation=config["classifier_activation"],
        )

    def states(
        self,
        graph: GraphBuilder,
        input_ids: ir.Value,
        attention_mask: ir.Value,
        segments: ir.Value | None,  # noqa: ARG002 - this family has none
    ) -> ir.Value:
        """Return the last hidden states, full (rows, width, hidden)."""
        words = graph.embedding("embeddings.tok_embeddings.weight", input_ids, shape=(self.words, self.hidden))
        # The first layer has no attention norm: the normalized embeddings are both its input and its residual.
        norm = residual = self._norm(graph, words, "embeddings.norm")
        lengths = attention.lengths(graph, attention_mask)
        nearby = self._nearby(graph, input_ids) if any(self.windowed) else None
        for layer, windowed in enumerate(self.windowed):
            prefix = f"layers.{layer}"
            rotary = (self.local_rotary if windowed else self.global_rotary).tables(graph)
            added = nearby if windowed else None
            attended = self._attend(graph, f"{prefix}.attn", graph.narrow(norm), lengths, added=added, rotary=rotary)
            norm, residual = self._add_and_norm(graph, residual, attended, f"{prefix}.mlp_norm")
            fed = self._feed_forward(graph, f"{prefix}.mlp", graph.narrow(norm))
            final = layer + 1 == len(self.windowed)
            following = "final_norm" if final else f"layers.{layer + 1}.attn_norm"
            norm, residual = self._add_and_norm(graph, residual, fed, following)
        return norm

    def reward(self, graph: GraphBuilder, states: ir.Value, attention_mask: ir.Value) -> ir.Value:
        """Return the logit of ``ModernBertForSequenceClassification``, full (rows,).

        Raises:
            ExportError: the graph does not support the head's activation.
        """
        if self.classifier_activation != "gelu":
            found = self.classifier_activation
            raise ExportError(f"this encoder's config says classifier_activation = {found!r}: wanted 'gelu'")
        if self.classifier_pooling == "mean":
            state = classifiers.mean_state(graph, states, attention_mask)
        else:
            state = heads.first_token(graph, states)
        dense = classifiers.dense_layer(graph, state, "head.dense", self.hidden, bias=self.classifier_bias)
        norm = self._norm(graph, graph.call("Gelu", dense, domain=CONTRIB), "head.norm")
        return classifiers.linear_reward(graph, norm, "classifier", self.hidden)

    def _nearby(self, graph: GraphBuilder, input_ids: ir.Value) -> ir.Value | None:
        """Return what layers with a window add to their scores, narrow (width, width); None where it spans any text."""
        if self.reach + 1 >= self.max_length:
            return None
        reach = graph.constant("reach", np.array(self.reach, dtype=np.int64))
        far = graph.call("Greater", graph.call("Abs", attention.distances(graph, input_ids)), reach)
        return attention.hidden_where(graph, far)

    def _attend(
        self,
        graph: GraphBuilder,
        prefix: str,
        norm: ir.Value,
        lengths: ir.Value,
        *,
        added: ir.Value | None,
        rotary: tuple[ir.Value, ir.Value],
    ) -> ir.Value:
        size = self.hidden
        bias = [f"{prefix}.Wqkv.bias"] if self.attention_bias else ()
        packed = graph.linear(norm, f"{prefix}.Wqkv.weight", shape=(3 * size, size), bias=bias)
        query, key, value = attention.split(graph, packed, [size] * 3)
        query, key = (
            # A single position id is the position of every row's first token.
            graph.call("RotaryEmbedding", part, graph.integers(0), *rotary, domain=CONTRIB)
            for part in (query, key)
        )
        attended = attention.multi_head(graph, (query, key, value), heads=self.heads, lengths=lengths, added=added)
        bias = [f"{prefix}.Wo.bias"] if self.attention_bias else ()
        return graph.linear(attended, f"{prefix}.Wo.weight", shape=(size, size), bias=bias)

    def _feed_forward(self, graph: GraphBuilder, prefix: str, norm: ir.Value) -> ir.Value:
        bias = [f"{prefix}.Wi.bias"] if self.inner_bias else ()
        both = graph.linear(norm, f"{prefix}.Wi.weight", shape=(2 * self.inner, self.hidden), bias=bias)
        value, gate = attention.split(graph, both, [self.inner] * 2)
        gated = graph.call("Mul", graph.call("Gelu", value, domain=CONTRIB), gate)
        bias = [f"{prefix}.Wo.bias"] if self.inner_bias else ()
        return graph.linear(gated, f"{prefix}.Wo.weight", shape=(self.hidden, self.inner), bias=bias)

    def _norm(self, graph: GraphBuilder, value: ir.Value, name: str) -> ir.Value:
        attributes = {"epsilon": self.epsilon, "axis": -1}
        return graph.call("LayerNormalization", value, *self._norm_weights(graph, name), attributes=attributes)

    def _add_and_norm(
        self, graph: GraphBuilder, residual: ir.Value, value: ir.Value, name: str
    ) -> tuple[ir.Value, ir.Value]:
        """Return the layer norm of residual + value, and that sum, both full."""
        outputs = graph.call_many(
            "SkipLayerNormalization",
            *(residual, graph.full(value), *self._norm_weights(graph, name)),
            outputs=4,
            attributes={"epsilon": self.epsilon},
        )
        return outputs[0], outputs[3]

    def _norm_weights(self, graph: GraphBuilder, name: str) -> tuple[ir.Value, ...]:
        parts = ("weight", "bias") if self.norm_bias else ("weight",)
        return tuple(graph.weight(f"{name}.{part}", shape=(self.hidden,)) for part in parts)


def _windowed(config: Mapping[str, Any]) -> tuple[bool, ...]:
    """Return which layers have a window: transformers 5 writes a list, 4 the interval of layers without one."""
    layers = config["num_hidden_layers"]
    if kinds := config.get("layer_types"):
        return tuple(kind == "sliding_attention" for kind in kinds)
    return tuple(layer % config["global_attn_every_n_layers"] != 0 for layer in range(layers))


def _rotary(config: Mapping[str, Any], theta: str, kind: str, max_length: int) -> Rotary:
    """Read the rotary embedding of one kind of layer, as transformers 4 or 5 writes it."""
    by_kind = config.get("rope_parameters") or {}
    parameters = by_kind.get(kind) or {}
    base = parameters.get("rope_theta") or config.get(theta) or config["global_rope_theta"]
    return Rotary.from_config(
        {**config, "rope_theta": base, "rope_parameters": parameters or None},
        max_length=max_length,
        name=f"rotary_{kind}",
    )
