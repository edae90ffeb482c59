"""GPT-NeoX: Pythia, its relatives, and OpenAssistant's reward models built on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from instructmining.errors import ExportError
from instructmining_export.graphs.decoder_attention import DecoderAttention
from instructmining_export.graphs.graph_builder import CONTRIB, GraphBuilder
from instructmining_export.graphs.heads import PLAIN, Logits
from instructmining_export.graphs.layer_norm import LayerNorm
from instructmining_export.graphs.rotary import Rotary
from instructmining_export.graphs.tensors import Change

# The second is OpenAssistant's reward model: the same model with a Linear ``out_proj`` on the last token.
FAMILIES = ("gpt_neox", "gpt_neox_reward_model")
# Activation → the operator that adds the bias and applies it: exact gelu, or its tanh approximation.
_ACTIVATIONS = {"gelu": "BiasGelu", "gelu_new": "FastGelu", "gelu_fast": "FastGelu", "gelu_pytorch_tanh": "FastGelu"}
_ROTARY_STEP = 8  # the fused attention requires tables with a multiple of this many columns


@dataclass(frozen=True, slots=True)
class GPTNeoX:
    """The numbers of a checkpoint's config that decide its graph."""

    logits: ClassVar[Logits] = PLAIN

    layers: int
    hidden: int
    inner: int
    words: int
    norm: LayerNorm
    attention: DecoderAttention
    rotated: int  # dimensions of each head that rotate; the attention's tables may hold more, of frequency 0
    tied: bool
    activation: str = "BiasGelu"  # or "FastGelu"
    attention_bias: bool = True
    parallel: bool = True  # attention and feed-forward both read the residual before the layer

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> GPTNeoX:
        """Read a transformers config.

        Raises:
            ExportError: the graph does not support the family, the activation or another setting.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ExportError(f"a decoder of family {family!r} was given; wanted one of {', '.join(FAMILIES)}")
        if config["hidden_act"] not in _ACTIVATIONS:
            raise ExportError(f"activation {config['hidden_act']!r}: wanted one of {', '.join(_ACTIVATIONS)}")
        if config.get("pooling", "last") != "last":
            raise ExportError(f"a reward from pooling {config['pooling']!r}: wanted 'last', the last token's state")
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        theta = config.get("rope_theta", config.get("rotary_emb_base"))
        rotary = Rotary.from_config({**config, "rope_theta": theta}, max_length=max_length)
        return cls(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            inner=config["intermediate_size"],
            words=config["vocab_size"],
            norm=LayerNorm(hidden, config["layer_norm_eps"]),
            attention=DecoderAttention(
                heads=heads, key_value_heads=heads, head_size=hidden // heads, rotary=_widened(rotary)
            ),
            rotated=2 * len(rotary.frequencies),
            tied=bool(config.get("tie_word_embeddings", False)),
            activation=_ACTIVATIONS[config["hidden_act"]],
            attention_bias=bool(config.get("attention_bias", True)),
            parallel=bool(config.get("use_parallel_residual", True)),
        )

    @property
    def output_embedding(self) -> str:
        """The checkpoint's name of the vocabulary matrix."""
        return "embed_in.weight" if self.tied else "embed_out.weight"

    def states(self, graph: GraphBuilder, input_ids: ir.Value, position_ids: ir.Value) -> ir.Value:  # noqa: ARG002
        """Return hidden states after the final norm, full (rows, width, hidden); the attention counts positions."""
        residual = graph.embedding("embed_in.weight", input_ids, shape=(self.words, self.hidden))
        norm = self.norm(graph, residual, "layers.0.input_layernorm")
        for layer in range(self.layers):
            prefix = f"layers.{layer}"
            attended = self._attend(graph, input_ids, f"{prefix}.attention", graph.narrow(norm))
            inner_norm = f"{prefix}.post_attention_layernorm"
            if self.parallel:
                norm = self.norm(graph, residual, inner_norm)
                residual = graph.call("Add", residual, graph.full(attended))
            else:
                norm, residual = self.norm.add_and_norm(graph, residual, graph.full(attended), inner_norm)
            fed = self._feed_forward(graph, f"{prefix}.mlp", graph.narrow(norm))
            final = layer + 1 == self.layers
            following = "final_layer_norm" if final else f"layers.{layer + 1}.input_layernorm"
            bias = f"{prefix}.mlp.dense_4h_to_h.bias"
            norm, residual = self.norm.add_and_norm(graph, residual, graph.full(fed), following, bias=bias)
        return norm

    def _attend(self, graph: GraphBuilder, input_ids: ir.Value, prefix: str, norm: ir.Value) -> ir.Value:
        packed = graph.linear(
            norm,
            f"{prefix}.query_key_value.weight",
            shape=(3 * self.hidden, self.hidden),
            bias=[f"{prefix}.query_key_value.bias"] if self.attention_bias else (),
            change=Change("by_part", self._by_part),
        )
        attended = self.attention(graph, input_ids, packed)
        bias = [f"{prefix}.dense.bias"] if self.attention_bias else ()
        return graph.linear(attended, f"{prefix}.dense.weight", shape=(self.hidden, self.hidden), bias=bias)

    def _feed_forward(self, graph: GraphBuilder, prefix: str, norm: ir.Value) -> ir.Value:
        """Add the feed-forward layers without their output bias, which the following norm adds."""
        wide = graph.linear(norm, f"{prefix}.dense_h_to_4h.weight", shape=(self.inner, self.hidden))
        bias = graph.weight(f"{prefix}.dense_h_to_4h.bias", shape=(self.inner,), narrow=True)
        active = graph.call(self.activation, wide, bias, domain=CONTRIB)
        return graph.linear(active, f"{prefix}.dense_4h_to_h.weight", shape=(self.hidden, self.inner))

    def _by_part(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Reorder rows from (heads, 3, head_size) to (3, heads, head_size): all queries, all keys, all values.

        The rotary operator pairs dimension i with dimension i + n of a head, n being the number of its tables' columns.
        Where the tables were widened, the second half of the rotated dimensions of queries and keys moves to that
        place. Queries and keys are reordered alike, so their products stay the same.
        """
        size = self.attention.head_size
        query, key, value = np.moveaxis(tensor.reshape(self.attention.heads, 3, size, -1), 1, 0)
        gap = -(self.rotated // 2) % _ROTARY_STEP
        first, second = np.split(np.arange(self.rotated), 2)
        fixed = np.arange(self.rotated, size)
        order = np.concatenate([first, fixed[:gap], second, fixed[gap:]])
        return np.stack([query[:, order], key[:, order], value]).reshape(tensor.shape)


def _widened(rotary: Rotary) -> Rotary:
    """Add dimensions of frequency 0 up to the next size that the fused attention takes.

    Raises:
        ExportError: the embedding also scales the dimensions it rotates, and would scale the added ones too.
    """
    gap = -len(rotary.frequencies) % _ROTARY_STEP
    if gap and rotary.scale != 1.0:
        raise ExportError(
            f"a rotary embedding of {2 * len(rotary.frequencies)} dimensions scaled by {rotary.scale:.3g}: "
            f"wanted a multiple of {2 * _ROTARY_STEP} dimensions, or no scale"
        )
    return replace(rotary, frequencies=rotary.frequencies + (0.0,) * gap)
