"""Decoders with rotary attention and gated feed-forward: Llama and its descendants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from instructmining.errors import ExportError
from instructmining_export.graphs import attention
from instructmining_export.graphs.decoder_attention import DecoderAttention
from instructmining_export.graphs.decoder_families import FAMILIES, Family, attentions
from instructmining_export.graphs.graph_builder import CONTRIB, GraphBuilder
from instructmining_export.graphs.heads import PLAIN, Logits
from instructmining_export.graphs.tensors import Change

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_FROM_ONE = Change("plus_one", lambda weight: weight + np.float32(1))


@dataclass(frozen=True, slots=True)
class GatedDecoder:
    """The numbers of a checkpoint's config that decide its graph."""

    family: Family
    layers: tuple[DecoderAttention, ...]  # the attention of each
    hidden: int
    inner: int
    words: int
    epsilon: float
    tied: bool
    activation: str = "silu"  # or "gelu_tanh"
    query_key_value_bias: bool = False
    output_bias: bool = False  # on the attention's output projection
    embedding_scale: float = 1.0
    residual_scale: float = 1.0  # factor of what a layer's two parts add
    logits: Logits = PLAIN

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> GatedDecoder:
        """Read a transformers config.

        Raises:
            ExportError: the graph does not support the family, the activation or another setting.
        """
        name = str(config.get("model_type"))
        if name not in FAMILIES:
            raise ExportError(f"a decoder of family {name!r} was given; wanted one of {', '.join(FAMILIES)}")
        family = FAMILIES[name]
        activation = config.get(family.activation) or family.usual_activation
        if activation not in _ACTIVATIONS:
            raise ExportError(f"activation {activation!r}: wanted one of {', '.join(_ACTIVATIONS)}")
        if config.get("mlp_bias"):
            raise ExportError("this decoder has biases in its feed-forward layers: not supported")
        if config.get("is_causal") is False:
            raise ExportError("this decoder's config says is_causal = false, which transformers' own class ignores")
        biased = bool(config.get("attention_bias"))
        words_scale = config["hidden_size"] ** 0.5 if family.scaled_words else 1.0
        return cls(
            family=family,
            layers=attentions(config, family, max_length=max_length),
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            words=config["vocab_size"],
            epsilon=config["rms_norm_eps"],
            tied=bool(config.get("tie_word_embeddings", family.tied)),
            activation=_ACTIVATIONS[activation],
            query_key_value_bias=biased if family.biased is None else family.biased,
            output_bias=biased and family.biased is None,
            embedding_scale=float(config.get("embedding_multiplier", words_scale)),
            residual_scale=float(config.get("residual_multiplier", 1.0)),
            logits=Logits(
                divisor=float(config.get("logits_scaling", 1.0)),
                cap=float(config.get("final_logit_softcapping") or 0.0),
            ),
        )

    @property
    def output_embedding(self) -> str:
        """The checkpoint's name of the vocabulary matrix."""
        return "embed_tokens.weight" if self.tied else "lm_head.weight"

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return all(layer.causal for layer in self.layers)

    def states(self, graph: GraphBuilder, input_ids: ir.Value, position_ids: ir.Value) -> ir.Value:  # noqa: ARG002
        """Return hidden states after the final norm, full (rows, width, hidden); the attention counts positions.

        Raises:
            ExportError: a token sees those after it too.
        """
        if not self.causal:
            raise ExportError("this decoder has use_bidirectional_attention: it is one for the role embedding only")
        return self.encoded(graph, input_ids, None)

    def encoded(self, graph: GraphBuilder, input_ids: ir.Value, lengths: ir.Value | None) -> ir.Value:
        """Return hidden states after the final norm, full (rows, width, hidden).

        Args:
            graph: gets the nodes.
            input_ids: int64 (rows, width), padding on the right.
            lengths: tokens of each row, int64 (rows,); only a decoder that is not causal needs them.
        """
        residual = graph.embedding("embed_tokens.weight", input_ids, shape=(self.words, self.hidden))
        if self.embedding_scale != 1.0:
            scale = graph.constant("embedding_scale", np.array(self.embedding_scale, dtype=np.float32))
            residual = graph.call("Mul", residual, scale)
        norms = self.family.norms
        state = self._norm(graph, residual, _of_layer(0, norms.before_attention))
        for layer in range(len(self.layers)):
            attended = self._attend(graph, input_ids, lengths, layer, graph.narrow(state))
            attended = self._norm(graph, graph.full(attended), _of_layer(layer, norms.after_attention))
            state, residual = self._add_and_norm(graph, residual, attended, _of_layer(layer, norms.before_feed_forward))
            fed = self._feed_forward(graph, f"layers.{layer}.mlp", graph.narrow(state))
            fed = self._norm(graph, graph.full(fed), _of_layer(layer, norms.after_feed_forward))
            final = layer + 1 == len(self.layers)
            following = "norm" if final else _of_layer(layer + 1, norms.before_attention)
            state, residual = self._add_and_norm(graph, residual, fed, following)
        return state

    def _attend(
        self, graph: GraphBuilder, input_ids: ir.Value, lengths: ir.Value | None, layer: int, state: ir.Value
    ) -> ir.Value:
        prefix, attend = f"layers.{layer}.self_attn", self.layers[layer]
        query, key = attend.heads * attend.head_size, attend.key_value_heads * attend.head_size
        parts = ("qkv_proj",) if self.family.packed else ("q_proj", "k_proj", "v_proj")
        packed = graph.linear(
            state,
            *(f"{prefix}.{part}.weight" for part in parts),
            shape=(query + 2 * key, self.hidden),
            bias=[f"{prefix}.{part}.bias" for part in parts] if self.query_key_value_bias else (),
        )
        if self.family.query_key_norm is None:
            attended = attend(graph, input_ids, packed, lengths=lengths)
        else:
            queries, keys, values = attention.split(graph, packed, (query, key, key))
            queries = self._norm_heads(graph, queries, f"{prefix}.q_norm.weight", query, attend.head_size)
            keys = self._norm_heads(graph, keys, f"{prefix}.k_norm.weight", key, attend.head_size)
            attended = attend(graph, input_ids, queries, keys, values, lengths=lengths)
        return graph.linear(
            attended,
            f"{prefix}.o_proj.weight",
            shape=(self.hidden, query),
            bias=[f"{prefix}.o_proj.bias"] if self.output_bias else (),
            change=self._residual_change,
        )

    def _norm_heads(self, graph: GraphBuilder, value: ir.Value, name: str, size: int, head_size: int) -> ir.Value:
        """Return the norm of queries or keys, narrow (rows, width, size)."""
        by_head = self.family.query_key_norm == "head"
        if by_head:
            value = graph.call("Reshape", value, graph.integers(0, 0, -1, head_size))
        norm = graph.call(
            "SimplifiedLayerNormalization",  # sums in float32 whatever its input is
            value,
            self._norm_weight(graph, name, head_size if by_head else size, narrow=True),
            attributes={"epsilon": self.epsilon, "axis": -1},
        )
        return graph.call("Reshape", norm, graph.integers(0, 0, size)) if by_head else norm

    def _feed_forward(self, graph: GraphBuilder, prefix: str, state: ir.Value) -> ir.Value:
        if self.family.packed:
            both = graph.linear(state, f"{prefix}.gate_up_proj.weight", shape=(2 * self.inner, self.hidden))
            gate, up = attention.split(graph, both, (self.inner, self.inner))
        else:
            gate, up = (
                graph.linear(state, f"{prefix}.{part}_proj.weight", shape=(self.inner, self.hidden))
                for part in ("gate", "up")
            )
        if self.activation == "silu":
            active = graph.call("QuickGelu", gate, domain=CONTRIB, attributes={"alpha": 1.0})
        else:
            active = graph.call("FastGelu", gate, domain=CONTRIB)
        gated = graph.call("Mul", active, up)
        name = f"{prefix}.down_proj.weight"
        return graph.linear(gated, name, shape=(self.hidden, self.inner), change=self._residual_change)

    @property
    def _residual_change(self) -> Change | None:
        """What multiplies a projection into the residual."""
        scale = np.float32(self.residual_scale)
        return None if scale == 1.0 else Change("scaled", lambda weight: weight * scale)

    def _norm(self, graph: GraphBuilder, value: ir.Value, name: str | None) -> ir.Value:
        """Return the RMS norm, full; the value itself where there is none."""
        if name is None:
            return value
        weight = self._norm_weight(graph, f"{name}.weight", self.hidden)
        return graph.call(
            "SimplifiedLayerNormalization", value, weight, attributes={"epsilon": self.epsilon, "axis": -1}
        )

    def _add_and_norm(
        self, graph: GraphBuilder, residual: ir.Value, value: ir.Value, name: str | None
    ) -> tuple[ir.Value, ir.Value]:
        """Return the RMS norm of residual + value, and that sum, both full; where there is no norm the sum twice."""
        if name is None:
            total = graph.call("Add", residual, value)
            return total, total
        outputs = graph.call_many(
            "SkipSimplifiedLayerNormalization",
            *(residual, value, self._norm_weight(graph, f"{name}.weight", self.hidden)),
            outputs=4,
            attributes={"epsilon": self.epsilon},
        )
        return outputs[0], outputs[3]

    def _norm_weight(self, graph: GraphBuilder, name: str, size: int, *, narrow: bool = False) -> ir.Value:
        change = _FROM_ONE if self.family.norms.from_one else None
        return graph.weight(name, shape=(size,), change=change, narrow=narrow)


@dataclass(frozen=True, slots=True)
class SentenceDecoder:
    """A gated decoder whose states are pooled to the vector of a text."""

    decoder: GatedDecoder

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> SentenceDecoder:
        """Read a transformers config.

        Raises:
            ExportError: as for :meth:`GatedDecoder.from_config`.
        """
        return cls(GatedDecoder.from_config(config, max_length=max_length))

    def states(
        self,
        graph: GraphBuilder,
        input_ids: ir.Value,
        attention_mask: ir.Value,
        segments: ir.Value | None,  # noqa: ARG002 - these families have none
    ) -> ir.Value:
        """Return hidden states after the final norm, full (rows, width, hidden)."""
        lengths = None if self.decoder.causal else attention.lengths(graph, attention_mask)
        return self.decoder.encoded(graph, input_ids, lengths)


def _of_layer(layer: int, name: str | None) -> str | None:
    return None if name is None else f"layers.{layer}.{name}"
