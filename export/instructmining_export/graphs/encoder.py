"""Post-norm encoders: BERT, RoBERTa, XLM-RoBERTa, CamemBERT and MPNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from instructmining.errors import ExportError
from instructmining_export.graphs import attention, classifiers, heads
from instructmining_export.graphs.graph_builder import CONTRIB, GraphBuilder

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")
_MPNET_BUCKETS = 32  # transformers uses this number and ignores the config's
_MPNET_PADDING = 1  # likewise


@dataclass(frozen=True, slots=True)
class _Names:
    """Names of the attention's tensors, relative to the layer."""

    projections: tuple[str, str, str]
    output: str
    norm: str


_BERT = _Names(
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense",
    "attention.output.LayerNorm",
)
_MPNET = _Names(("attention.attn.q", "attention.attn.k", "attention.attn.v"), "attention.attn.o", "attention.LayerNorm")


@dataclass(frozen=True, slots=True)
class PostNormEncoder:
    """The numbers of a checkpoint's config that decide its graph."""

    family: str
    layers: int
    hidden: int
    inner: int
    heads: int
    words: int
    positions: int  # rows of the position table
    first_position: int  # row of the first token's position
    types: int  # segment types used in a pair; 1 where segments are not marked
    type_rows: int  # rows of the segment table; 0 where there is none
    epsilon: float
    max_length: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> PostNormEncoder:
        """Read a transformers config.

        Raises:
            ExportError: the graph does not support the family or a setting, or ``max_length`` exceeds the positions
                of the checkpoint.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ExportError(f"an encoder of family {family!r} was given; wanted one of {', '.join(FAMILIES)}")
        _check(config)
        padding = {"bert": -1, "mpnet": _MPNET_PADDING}.get(family, config.get("pad_token_id"))
        if padding is None:
            raise ExportError(f"an encoder of family {family!r} without pad_token_id: positions are counted from it")
        positions = config["max_position_embeddings"]
        if max_length > positions - padding - 1:
            raise ExportError(
                f"texts of up to {max_length} tokens for an encoder of {positions - padding - 1} positions; "
                f"give --max-length {positions - padding - 1} or less"
            )
        return cls(
            family=family,
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            heads=config["num_attention_heads"],
            words=config["vocab_size"],
            positions=positions,
            first_position=padding + 1,
            # RoBERTa checkpoints may hold a second row, but their tokenizers never use it.
            types=config["type_vocab_size"] if family == "bert" else 1,
            type_rows=0 if family == "mpnet" else config["type_vocab_size"],
            epsilon=config["layer_norm_eps"],
            max_length=max_length,
        )

    def states(
        self, graph: GraphBuilder, input_ids: ir.Value, attention_mask: ir.Value, segments: ir.Value | None
    ) -> ir.Value:
        """Return the last hidden states, full (rows, width, hidden)."""
        hidden = self._embed(graph, input_ids, segments)
        lengths = attention.lengths(graph, attention_mask)
        added = self._relative_bias(graph, input_ids) if self.family == "mpnet" else None
        for layer in range(self.layers):
            prefix = f"encoder.layer.{layer}"
            hidden = self._attend(graph, prefix, hidden, lengths, added)
            hidden = self._feed_forward(graph, prefix, hidden)
        return hidden

    def reward(self, graph: GraphBuilder, states: ir.Value, attention_mask: ir.Value) -> ir.Value:  # noqa: ARG002
        """Return the logit of the family's ``…ForSequenceClassification`` on the first token, full (rows,)."""
        bert = self.family == "bert"
        return classifiers.tanh_reward(
            graph,
            heads.first_token(graph, states),
            dense="pooler.dense" if bert else "classifier.dense",
            output="classifier" if bert else "classifier.out_proj",
            hidden=self.hidden,
        )

    def _embed(self, graph: GraphBuilder, input_ids: ir.Value, segments: ir.Value | None) -> ir.Value:
        """Return the normalized sum of word, position and segment embeddings, full (rows, width, hidden)."""
        words = graph.embedding("embeddings.word_embeddings.weight", input_ids, shape=(self.words, self.hidden))
        first = graph.integers(self.first_position)
        end = graph.once("Add", attention.width(graph, input_ids), first)
        table = graph.weight("embeddings.position_embeddings.weight", shape=(self.positions, self.hidden))
        # Rows are right-padded, so their positions are one slice of the table.
        positions = graph.call("Slice", table, first, end, graph.integers(0))
        segment = None
        if self.type_rows:
            types = graph.weight("embeddings.token_type_embeddings.weight", shape=(self.type_rows, self.hidden))
            if segments is None:
                segment = graph.call("Gather", types, graph.constant("zero", np.array(0, dtype=np.int64)))
            else:
                words = graph.call("Add", words, graph.call("Gather", types, segments))
        return self._add_and_norm(graph, "embeddings.LayerNorm", words, positions, segment)

    def _relative_bias(self, graph: GraphBuilder, input_ids: ir.Value) -> ir.Value:
        """Return the bias that every MPNet layer adds to its scores, narrow (1, heads, width, width)."""
        reach = self.max_length - 1
        buckets = MPNetEncoder.relative_position_bucket(torch.arange(-reach, reach + 1), num_buckets=_MPNET_BUCKETS)
        name, shape = "encoder.relative_attention_bias.weight", (_MPNET_BUCKETS, self.heads)
        table = graph.weight(name, shape=shape, transpose=True, narrow=True)
        by_distance = graph.call("Gather", table, graph.constant("buckets", buckets.numpy()), attributes={"axis": 1})
        places = graph.call("Add", attention.distances(graph, input_ids), graph.integers(reach))
        bias = graph.call("Gather", by_distance, places, attributes={"axis": 1})
        return graph.call("Unsqueeze", bias, graph.integers(0))

    def _attend(
        self, graph: GraphBuilder, prefix: str, hidden: ir.Value, lengths: ir.Value, added: ir.Value | None
    ) -> ir.Value:
        names = _MPNET if self.family == "mpnet" else _BERT
        size = self.hidden
        projections = [f"{prefix}.{name}" for name in names.projections]
        packed = graph.linear(
            graph.narrow(hidden),
            *(f"{name}.weight" for name in projections),
            shape=(3 * size, size),
            bias=[f"{name}.bias" for name in projections],
        )
        parts = attention.split(graph, packed, [size] * 3)
        attended = attention.multi_head(graph, parts, heads=self.heads, lengths=lengths, added=added)
        projected = graph.linear(attended, f"{prefix}.{names.output}.weight", shape=(size, size))
        bias = graph.weight(f"{prefix}.{names.output}.bias", shape=(size,))
        return self._add_and_norm(graph, f"{prefix}.{names.norm}", graph.full(projected), hidden, bias)

    def _feed_forward(self, graph: GraphBuilder, prefix: str, hidden: ir.Value) -> ir.Value:
        first, last = f"{prefix}.intermediate.dense", f"{prefix}.output.dense"
        inner = graph.linear(graph.narrow(hidden), f"{first}.weight", shape=(self.inner, self.hidden))
        bias = graph.weight(f"{first}.bias", shape=(self.inner,), narrow=True)
        active = graph.call("BiasGelu", inner, bias, domain=CONTRIB)
        projected = graph.linear(active, f"{last}.weight", shape=(self.hidden, self.inner))
        bias = graph.weight(f"{last}.bias", shape=(self.hidden,))
        return self._add_and_norm(graph, f"{prefix}.output.LayerNorm", graph.full(projected), hidden, bias)

    def _add_and_norm(
        self, graph: GraphBuilder, name: str, value: ir.Value, added: ir.Value, bias: ir.Value | None
    ) -> ir.Value:
        """Return the layer norm of value + added + bias, full; ``added`` may be one row for all."""
        return graph.call(
            "SkipLayerNormalization",
            *(value, added),
            graph.weight(f"{name}.weight", shape=(self.hidden,)),
            graph.weight(f"{name}.bias", shape=(self.hidden,)),
            *([bias] if bias is not None else []),
            domain=CONTRIB,
            attributes={"epsilon": self.epsilon},
        )


def _check(config: Mapping[str, Any]) -> None:
    """Refuse settings that the graph does not support.

    Raises:
        ExportError: there is such a setting.
    """
    wanted = {
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "relative_attention_num_buckets": _MPNET_BUCKETS,
    }
    for name, value in wanted.items():
        if (found := config.get(name, value)) != value:
            raise ExportError(f"this encoder's config says {name} = {found!r}: not supported, wanted {value!r}")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise ExportError(
            f"this encoder's config says hidden_size = {config['hidden_size']}: "
            f"wanted a multiple of num_attention_heads, {config['num_attention_heads']}"
        )
