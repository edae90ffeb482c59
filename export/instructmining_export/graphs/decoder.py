"""Pre-norm decoders with rotary attention and gated feed-forward: Llama and its descendants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from instructmining.errors import ExportError
from instructmining_export.graphs import attention
from instructmining_export.graphs.causal_attention import CausalAttention
from instructmining_export.graphs.graph_builder import CONTRIB, GraphBuilder
from instructmining_export.graphs.rotary import Rotary
from instructmining_export.graphs.tensors import Change

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3")
_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
# Gemma stores its norms' weights minus one.
_FROM_ONE = Change("plus_one", lambda weight: weight + np.float32(1))


@dataclass(frozen=True, slots=True)
class GatedDecoder:
    """The numbers of a checkpoint's config that decide its graph."""

    layers: int
    hidden: int
    inner: int
    words: int
    epsilon: float
    attention: CausalAttention
    tied: bool
    activation: str = "silu"  # or "gelu_tanh"
    query_key_value_bias: bool = False
    output_bias: bool = False  # on the attention's output projection
    query_key_norm: bool = False  # RMS norm of each head's query and key
    packed: bool = False  # query, key and value are one tensor in the checkpoint, and so are gate and up
    norms_from_one: bool = False
    embedding_scale: float = 1.0

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> GatedDecoder:
        """Read a transformers config.

        Raises:
            ExportError: the graph does not support the family, the activation or another setting.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ExportError(f"a decoder of family {family!r} was given; wanted one of {', '.join(FAMILIES)}")
        gemma = family == "gemma"
        activation = (
            (config.get("hidden_activation") or "gelu_pytorch_tanh") if gemma else config.get("hidden_act", "silu")
        )
        if activation not in _ACTIVATIONS:
            raise ExportError(f"activation {activation!r}: wanted one of {', '.join(_ACTIVATIONS)}")
        if config.get("mlp_bias"):
            raise ExportError("this decoder has biases in its feed-forward layers: not supported")
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            words=config["vocab_size"],
            epsilon=config["rms_norm_eps"],
            attention=CausalAttention(
                heads=heads,
                key_value_heads=config.get("num_key_value_heads") or heads,
                head_size=config.get("head_dim") or config["hidden_size"] // heads,
                rotary=Rotary.from_config(config, max_length=max_length),
                window=_window(config, max_length),
            ),
            tied=bool(config.get("tie_word_embeddings", gemma)),
            activation=_ACTIVATIONS[activation],
            query_key_value_bias=family == "qwen2" or bool(config.get("attention_bias")),
            output_bias=family != "qwen2" and bool(config.get("attention_bias")),
            query_key_norm=family == "qwen3",
            packed=family == "phi3",
            norms_from_one=gemma,
            embedding_scale=float(config["hidden_size"] ** 0.5) if gemma else 1.0,
        )

    @property
    def output_embedding(self) -> str:
        """The checkpoint's name of the vocabulary matrix."""
        return "embed_tokens.weight" if self.tied else "lm_head.weight"

    def states(self, graph: GraphBuilder, input_ids: ir.Value, position_ids: ir.Value) -> ir.Value:  # noqa: ARG002
        """Return hidden states after the final norm, full (rows, width, hidden); the attention counts positions."""
        residual = graph.embedding("embed_tokens.weight", input_ids, shape=(self.words, self.hidden))
        if self.embedding_scale != 1.0:
            scale = graph.constant("embedding_scale", np.array(self.embedding_scale, dtype=np.float32))
            residual = graph.call("Mul", residual, scale)
        norm = graph.call(
            "SimplifiedLayerNormalization",
            residual,
            self._norm_weight(graph, "layers.0.input_layernorm.weight"),
            attributes={"epsilon": self.epsilon, "axis": -1},
        )
        for layer in range(self.layers):
            prefix = f"layers.{layer}"
            attended = self._attend(graph, input_ids, f"{prefix}.self_attn", graph.narrow(norm))
            following = f"{prefix}.post_attention_layernorm.weight"
            norm, residual = self._add_and_norm(graph, residual, attended, following)
            fed = self._feed_forward(graph, f"{prefix}.mlp", graph.narrow(norm))
            final = layer + 1 == self.layers
            following = "norm.weight" if final else f"layers.{layer + 1}.input_layernorm.weight"
            norm, residual = self._add_and_norm(graph, residual, fed, following)
        return norm

    def _attend(self, graph: GraphBuilder, input_ids: ir.Value, prefix: str, norm: ir.Value) -> ir.Value:
        query = self.attention.heads * self.attention.head_size
        key = self.attention.key_value_heads * self.attention.head_size
        parts = ("qkv_proj",) if self.packed else ("q_proj", "k_proj", "v_proj")
        packed = graph.linear(
            norm,
            *(f"{prefix}.{part}.weight" for part in parts),
            shape=(query + 2 * key, self.hidden),
            bias=[f"{prefix}.{part}.bias" for part in parts] if self.query_key_value_bias else (),
        )
        if self.query_key_norm:
            split = attention.split(graph, packed, (query, key, key))
            queries = self._norm_heads(graph, split[0], f"{prefix}.q_norm.weight", query)
            keys = self._norm_heads(graph, split[1], f"{prefix}.k_norm.weight", key)
            attended = self.attention(graph, input_ids, queries, keys, split[2])
        else:
            attended = self.attention(graph, input_ids, packed)
        bias = [f"{prefix}.o_proj.bias"] if self.output_bias else ()
        return graph.linear(attended, f"{prefix}.o_proj.weight", shape=(self.hidden, query), bias=bias)

    def _norm_heads(self, graph: GraphBuilder, value: ir.Value, name: str, size: int) -> ir.Value:
        by_head = graph.call("Reshape", value, graph.integers(0, 0, -1, self.attention.head_size))
        norm = graph.call(
            "SimplifiedLayerNormalization",  # sums in float32 whatever its input is
            by_head,
            graph.weight(name, shape=(self.attention.head_size,), narrow=True),
            attributes={"epsilon": self.epsilon, "axis": -1},
        )
        return graph.call("Reshape", norm, graph.integers(0, 0, size))

    def _feed_forward(self, graph: GraphBuilder, prefix: str, norm: ir.Value) -> ir.Value:
        if self.packed:
            both = graph.linear(norm, f"{prefix}.gate_up_proj.weight", shape=(2 * self.inner, self.hidden))
            gate, up = attention.split(graph, both, (self.inner, self.inner))
        else:
            gate, up = (
                graph.linear(norm, f"{prefix}.{part}_proj.weight", shape=(self.inner, self.hidden))
                for part in ("gate", "up")
            )
        if self.activation == "silu":
            active = graph.call("QuickGelu", gate, domain=CONTRIB, attributes={"alpha": 1.0})
        else:
            active = graph.call("FastGelu", gate, domain=CONTRIB)
        gated = graph.call("Mul", active, up)
        return graph.linear(gated, f"{prefix}.down_proj.weight", shape=(self.hidden, self.inner))

    def _add_and_norm(
        self, graph: GraphBuilder, residual: ir.Value, value: ir.Value, name: str
    ) -> tuple[ir.Value, ir.Value]:
        """Return the RMS norm of residual + value, and that sum, both full."""
        outputs = graph.call_many(
            "SkipSimplifiedLayerNormalization",
            *(residual, graph.full(value), self._norm_weight(graph, name)),
            outputs=4,
            attributes={"epsilon": self.epsilon},
        )
        return outputs[0], outputs[3]

    def _norm_weight(self, graph: GraphBuilder, name: str) -> ir.Value:
        return graph.weight(name, shape=(self.hidden,), change=_FROM_ONE if self.norms_from_one else None)


def _window(config: Mapping[str, Any], max_length: int) -> int:
    """Return the tokens of a sliding window that is narrower than the longest text; -1 for none.

    Raises:
        ExportError: only some layers have a window.
    """
    window = config.get("sliding_window")
    if not window or window >= max_length or config.get("use_sliding_window") is False:
        return -1
    if config.get("model_type") in {"qwen2", "qwen3"}:
        raise ExportError(f"a sliding window of {window} in some layers only; give --max-length {window} or less")
    return int(window)
