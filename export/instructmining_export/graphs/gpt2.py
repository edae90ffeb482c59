"""GPT-2: learned positions, weights stored as (in, out)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import onnx_ir as ir

from instructmining.errors import ExportError
from instructmining_export.graphs.decoder_attention import DecoderAttention
from instructmining_export.graphs.graph_builder import CONTRIB, GraphBuilder
from instructmining_export.graphs.heads import PLAIN, Logits
from instructmining_export.graphs.layer_norm import LayerNorm

FAMILIES = ("gpt2",)
_ACTIVATIONS = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")  # three names for one function


@dataclass(frozen=True, slots=True)
class GPT2:
    """The numbers of a checkpoint's config that decide its graph."""

    logits: ClassVar[Logits] = PLAIN

    layers: int
    hidden: int
    inner: int
    words: int
    positions: int
    norm: LayerNorm
    attention: DecoderAttention
    tied: bool
    scaled_by_layer: bool = False  # query-key products are divided by the layer's number, counted from 1

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> GPT2:
        """Read a transformers config.

        ``reorder_and_upcast_attn`` is ignored: it concerns half precision in transformers, and the fused attention
        always computes its softmax in float32.

        Raises:
            ExportError: the graph does not support the family, the activation or another setting.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ExportError(f"a decoder of family {family!r} was given; wanted {FAMILIES[0]}")
        activation = config["activation_function"]
        if activation not in _ACTIVATIONS:
            raise ExportError(f"activation {activation!r}: wanted one of {', '.join(_ACTIVATIONS)}")
        if config.get("add_cross_attention"):
            raise ExportError("add_cross_attention: this decoder reads an encoder's states too: not supported")
        if config["n_positions"] < max_length:
            raise ExportError(f"{config['n_positions']} learned positions; give --max-length {config['n_positions']}")
        hidden, heads = config["n_embd"], config["n_head"]
        return cls(
            layers=config["n_layer"],
            hidden=hidden,
            inner=config.get("n_inner") or 4 * hidden,
            words=config["vocab_size"],
            positions=config["n_positions"],
            norm=LayerNorm(hidden, config["layer_norm_epsilon"]),
            attention=DecoderAttention(
                heads=heads,
                key_value_heads=heads,
                head_size=hidden // heads,
                scale=float((hidden // heads) ** -0.5) if config.get("scale_attn_weights", True) else 1.0,
            ),
            tied=bool(config.get("tie_word_embeddings", True)),
            scaled_by_layer=bool(config.get("scale_attn_by_inverse_layer_idx")),
        )

    @property
    def output_embedding(self) -> str:
        """The checkpoint's name of the vocabulary matrix."""
        return "wte.weight" if self.tied else "lm_head.weight"

    def states(self, graph: GraphBuilder, input_ids: ir.Value, position_ids: ir.Value) -> ir.Value:
        """Return hidden states after the final norm, full (rows, width, hidden)."""
        words = graph.embedding("wte.weight", input_ids, shape=(self.words, self.hidden))
        # Float32 in every precision: the table is small and a few of its columns are large.
        table = graph.weight("wpe.weight", shape=(self.positions, self.hidden))
        norm, residual = self.norm.add_and_norm(graph, words, graph.call("Gather", table, position_ids), "h.0.ln_1")
        for layer in range(self.layers):
            prefix = f"h.{layer}"
            attended = self._attend(graph, input_ids, layer, graph.narrow(norm))
            bias = f"{prefix}.attn.c_proj.bias"
            norm, residual = self.norm.add_and_norm(graph, residual, graph.full(attended), f"{prefix}.ln_2", bias=bias)
            fed = self._feed_forward(graph, f"{prefix}.mlp", graph.narrow(norm))
            following = "ln_f" if layer + 1 == self.layers else f"h.{layer + 1}.ln_1"
            bias = f"{prefix}.mlp.c_proj.bias"
            norm, residual = self.norm.add_and_norm(graph, residual, graph.full(fed), following, bias=bias)
        return norm

    def _attend(self, graph: GraphBuilder, input_ids: ir.Value, layer: int, norm: ir.Value) -> ir.Value:
        """Add the attention without its output bias, which the following norm adds."""
        prefix = f"h.{layer}.attn"
        packed = graph.linear(
            norm,
            f"{prefix}.c_attn.weight",
            shape=(3 * self.hidden, self.hidden),
            bias=[f"{prefix}.c_attn.bias"],
            inputs_first=True,
        )
        attention = self.attention
        if self.scaled_by_layer and attention.scale is not None:
            attention = replace(attention, scale=attention.scale / (layer + 1))
        attended = attention(graph, input_ids, packed)
        return graph.linear(attended, f"{prefix}.c_proj.weight", shape=(self.hidden, self.hidden), inputs_first=True)

    def _feed_forward(self, graph: GraphBuilder, prefix: str, norm: ir.Value) -> ir.Value:
        """Add the feed-forward layers without their output bias, which the following norm adds."""
        wide = graph.linear(norm, f"{prefix}.c_fc.weight", shape=(self.inner, self.hidden), inputs_first=True)
        bias = graph.weight(f"{prefix}.c_fc.bias", shape=(self.inner,), narrow=True)
        active = graph.call("FastGelu", wide, bias, domain=CONTRIB)
        return graph.linear(active, f"{prefix}.c_proj.weight", shape=(self.hidden, self.inner), inputs_first=True)
