"""DeBERTa-v2 and v3: attention over content and over relative positions, told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from instructmining.errors import ExportError
from instructmining_export.graphs import classifiers, heads
from instructmining_export.graphs import encoder_attention as full_attention
from instructmining_export.graphs.graph_builder import CONTRIB, GraphBuilder
from instructmining_export.graphs.layer_norm import LayerNorm

FAMILIES = ("deberta-v2",)
_KINDS = ("c2p", "p2c")  # a query meets the key's relative position; a key meets the query's
_MASKED = float(np.finfo(np.float32).min)  # onnxruntime's own -10,000 is within reach of this family's scores


@dataclass(frozen=True, slots=True)
class RelativePositions:
    """How the distance of two tokens chooses a row of the table of relative positions."""

    kinds: tuple[str, ...]  # of c2p, p2c
    shared: bool  # positions go through the same projections as the tokens
    normalized: bool  # the table goes through a layer norm of its own
    span: int  # the table has 2 · span rows, distance 0 at row span
    buckets: int  # far distances share a row, logarithmically; -1 where each has its own
    longest: int  # distance of the last bucket
    max_length: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> RelativePositions:
        """Read a transformers config, with the defaults of its model for what a config may leave out."""
        longest = config.get("max_relative_positions", -1)
        longest = longest if longest >= 1 else config["max_position_embeddings"]
        buckets = config.get("position_buckets", -1)
        found = config.get("pos_att_type") or ()
        return cls(
            kinds=tuple(kind for kind in _KINDS if kind in found),
            shared=bool(config.get("share_att_key", False)),
            normalized="layer_norm" in [part.strip() for part in config.get("norm_rel_ebd", "none").lower().split("|")],
            span=buckets if buckets > 0 else longest,
            buckets=buckets,
            longest=longest,
            max_length=max_length,
        )

    def rows(self) -> NDArray[np.int64]:
        """Row of the table for each distance from 1 - max_length to max_length - 1, int64 (2 · max_length - 1,).

        By transformers' own function: the last bit of its logarithms decides where a bucket ends.
        """
        distances = torch.arange(1 - self.max_length, self.max_length)
        if self.buckets > 0:
            distances = make_log_bucket_position(distances, self.buckets, self.longest).to(torch.int64)
        return np.asarray(torch.clamp(distances + self.span, 0, 2 * self.span - 1).numpy(), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Reach:
    """Relative positions as all layers share them, and what a batch's width leaves of them."""

    kinds: tuple[str, ...]
    shared: bool
    embeddings: ir.Value  # full (2 · span, hidden)
    low: ir.Value  # int64 (1,), first row of the table that occurs
    high: ir.Value  # int64 (1,), the one behind the last
    rows: ir.Value  # int32 (rows, heads, width, width): of query i and key j, counted from low


@dataclass(frozen=True, slots=True)
class Deberta:
    """The numbers of a checkpoint's config that decide its graph."""

    layers: int
    hidden: int
    inner: int
    heads: int
    words: int
    positions: int  # rows of the table of absolute positions; 0 where tokens have none
    types: int
    epsilon: float
    scale: float  # of all scores
    relative: RelativePositions | None
    pooler_activation: str = "gelu"

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> Deberta:
        """Read a transformers config.

        Raises:
            ExportError: the family or a setting is one that this graph does not have, or the table of absolute
                positions is shorter than ``max_length``.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ExportError(f"an encoder of family {family!r} was given; wanted one of {', '.join(FAMILIES)}")
        _check(config)
        hidden, number = config["hidden_size"], config["num_attention_heads"]
        positions = config["max_position_embeddings"] if config.get("position_biased_input", True) else 0
        if positions and max_length > positions:
            raise ExportError(f"texts of {max_length} tokens, but {positions} positions; give --max-length {positions}")
        kinds = config.get("pos_att_type") or ()
        relative = RelativePositions.from_config(config, max_length=max_length)
        return cls(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            inner=config["intermediate_size"],
            heads=number,
            words=config["vocab_size"],
            positions=positions,
            types=config["type_vocab_size"],
            epsilon=config["layer_norm_eps"],
            scale=float((hidden // number * (1 + len(set(kinds)))) ** -0.5),
            relative=relative if config.get("relative_attention") and relative.kinds else None,
            pooler_activation=config.get("pooler_hidden_act", "gelu"),
        )

    def states(
        self, tape: GraphBuilder, input_ids: ir.Value, attention_mask: ir.Value, segments: ir.Value | None
    ) -> ir.Value:
        """Last hidden states, full (rows, width, hidden); those of padding mean nothing."""
        hidden = self._embed(tape, input_ids, attention_mask, segments)
        lengths = full_attention.lengths(tape, attention_mask)
        reach = self._reach(tape, input_ids, self.relative) if self.relative else None
        for layer in range(self.layers):
            prefix = f"encoder.layer.{layer}"
            attended = self._attend(tape, f"{prefix}.attention.self", hidden, lengths, reach)
            hidden = self._add_and_norm(tape, f"{prefix}.attention.output", attended, hidden, self.hidden)
            name = f"{prefix}.intermediate.dense"
            inner = tape.linear(tape.narrow(hidden), f"{name}.weight", shape=(self.inner, self.hidden))
            bias = tape.weight(f"{name}.bias", shape=(self.inner,), narrow=True)
            active = tape.call("BiasGelu", inner, bias, domain=CONTRIB)
            hidden = self._add_and_norm(tape, f"{prefix}.output", active, hidden, self.inner)
        return hidden

    def reward(self, tape: GraphBuilder, states: ir.Value, attention_mask: ir.Value) -> ir.Value:  # noqa: ARG002
        """Logit of the sequence classifier with one label on the pooled first token, full (rows,).

        Raises:
            ExportError: the pooler has another activation than gelu.
        """
        if self.pooler_activation != "gelu":
            raise ExportError(f"pooler_hidden_act {self.pooler_activation!r}: this encoder's graph has 'gelu' only")
        first = heads.first_token(tape, states)
        pooled = classifiers.dense_layer(tape, first, "pooler.dense", self.hidden, bias=False)
        bias = tape.weight("pooler.dense.bias", shape=(self.hidden,))
        active = tape.call("BiasGelu", pooled, bias, domain=CONTRIB)
        return classifiers.linear_reward(tape, active, "classifier", self.hidden)

    def _embed(
        self, tape: GraphBuilder, input_ids: ir.Value, attention_mask: ir.Value, segments: ir.Value | None
    ) -> ir.Value:
        """Normalized embeddings, full (rows, width, hidden)."""
        hidden = tape.embedding("embeddings.word_embeddings.weight", input_ids, shape=(self.words, self.hidden))
        if self.positions:
            table = tape.weight("embeddings.position_embeddings.weight", shape=(self.positions, self.hidden))
            cut = tape.call("Slice", table, tape.integers(0), full_attention.width(tape, input_ids))
            hidden = tape.call("Add", hidden, cut)
        if self.types:
            types = tape.weight("embeddings.token_type_embeddings.weight", shape=(self.types, self.hidden))
            kinds = tape.integers(0) if segments is None else segments
            hidden = tape.call("Add", hidden, tape.call("Gather", types, kinds))
        hidden = self._norm(tape, hidden, "embeddings.LayerNorm")
        mask = tape.call("Unsqueeze", tape.cast(attention_mask, ir.DataType.FLOAT), tape.integers(2))
        return tape.call("Mul", hidden, mask)

    def _attend(
        self, tape: GraphBuilder, prefix: str, hidden: ir.Value, lengths: ir.Value, reach: _Reach | None
    ) -> ir.Value:
        """Attention before its output projection, narrow (rows, width, hidden); scores and sums are full."""
        packed = tape.linear(
            tape.narrow(hidden),
            *_names(prefix, "weight"),
            shape=(3 * self.hidden, self.hidden),
            bias=_names(prefix, "bias"),
        )
        query, key, value = full_attention.split(tape, tape.full(packed), 3, self.hidden)
        scores = self._position_scores(tape, prefix, query, key, reach) if reach else None
        attended = tape.call(
            "MultiHeadAttention",
            *(query, key, value, None, lengths, scores),
            domain=CONTRIB,
            attributes={"num_heads": self.heads, "scale": self.scale, "mask_filter_value": _MASKED},
        )
        return tape.narrow(attended)

    def _position_scores(
        self, tape: GraphBuilder, prefix: str, query: ir.Value, key: ir.Value, reach: _Reach
    ) -> ir.Value:
        """What relative positions add to the scores, full (rows, heads, width, width)."""
        parts: list[ir.Value] = []
        if "c2p" in reach.kinds:
            table = self._table(tape, prefix, "key_proj", reach)
            products = _product(tape, self._by_head(tape, query), table)
            parts.append(tape.call("GatherElements", products, reach.rows, attributes={"axis": 3}))
        if "p2c" in reach.kinds:
            # With the table on the left, a column is a key, and the result need not be transposed.
            table = self._table(tape, prefix, "query_proj", reach)
            products = _product(tape, table, self._by_head(tape, key))
            parts.append(tape.call("GatherElements", products, reach.rows, attributes={"axis": 2}))
        return tape.call("Add", *parts) if len(parts) > 1 else parts[0]

    def _table(self, tape: GraphBuilder, prefix: str, part: str, reach: _Reach) -> ir.Value:
        """Projected and scaled relative positions that occur in the batch, full (heads, their number, head size).

        All but the last node depend on weights alone: onnxruntime computes them once, when the session opens, and the
        file does not hold the result, 2 · span · hidden numbers for each layer and kind.
        """
        weight = self._position_weight(tape, prefix, part, shared=reach.shared)
        name = f"{prefix}.{part if reach.shared else 'pos_' + part}.bias"
        projected = tape.call("Gemm", reach.embeddings, weight, tape.weight(name, shape=(self.hidden,)))
        scaled = tape.call("Mul", projected, tape.constant("scale", np.array(self.scale, dtype=np.float32)))
        by_head = tape.call("Reshape", scaled, tape.integers(0, self.heads, self.hidden // self.heads))
        turned = tape.call("Transpose", by_head, attributes={"perm": (1, 0, 2)})
        return tape.call("Slice", turned, reach.low, reach.high, tape.integers(1))

    def _position_weight(self, tape: GraphBuilder, prefix: str, part: str, *, shared: bool) -> ir.Value:
        """The weight that projects relative positions, full (hidden, hidden), (in, out).

        Where it is shared it is cut from the initializer of the tokens' product, so that the file holds it once.
        But onnxruntime does not compute integer products when the session opens, so in int8 it is stored once more, as
        the rows of a table.
        """
        square = (self.hidden, self.hidden)
        name = f"{prefix}.{part if shared else 'pos_' + part}.weight"
        if tape.precision.name == "int8":
            rows = tape.constant("hidden_rows", np.arange(self.hidden))
            return tape.call("Transpose", tape.embedding(name, rows, shape=square), attributes={"perm": (1, 0)})
        if not shared:
            return tape.full(tape.weight(name, shape=square, transpose=True, narrow=True))
        names = _names(prefix, "weight")
        packed = tape.full(tape.weight(*names, shape=(3 * self.hidden, self.hidden), transpose=True, narrow=True))
        at = names.index(name) * self.hidden
        return tape.call("Slice", packed, tape.integers(at), tape.integers(at + self.hidden), tape.integers(1))

    def _reach(self, tape: GraphBuilder, input_ids: ir.Value, relative: RelativePositions) -> _Reach:
        embeddings = tape.weight("encoder.rel_embeddings.weight", shape=(2 * relative.span, self.hidden))
        if relative.normalized:
            embeddings = self._norm(tape, embeddings, "encoder.LayerNorm")
        width = full_attention.width(tape, input_ids)
        table = tape.constant("position_rows", relative.rows())
        longest = tape.integers(relative.max_length)
        low = tape.call("Gather", table, tape.call("Sub", longest, width))
        last = tape.call("Gather", table, tape.call("Add", tape.integers(relative.max_length - 2), width))
        behind = tape.call("Neg", full_attention.distances(tape, input_ids))
        at = tape.call("Add", behind, tape.integers(relative.max_length - 1))
        index = tape.cast(tape.call("Sub", tape.call("Gather", table, at), low), ir.DataType.INT32)
        rows = tape.once("Shape", input_ids, attributes={"start": 0, "end": 1})
        shape = tape.call("Concat", rows, tape.integers(self.heads), width, width, attributes={"axis": 0})
        return _Reach(
            kinds=relative.kinds,
            shared=relative.shared,
            embeddings=embeddings,
            low=low,
            high=tape.call("Add", last, tape.integers(1)),
            rows=tape.call("Expand", index, shape),
        )

    def _by_head(self, tape: GraphBuilder, value: ir.Value) -> ir.Value:
        """(rows, heads, width, head size) of (rows, width, hidden)."""
        parted = tape.call("Reshape", value, tape.integers(0, 0, self.heads, self.hidden // self.heads))
        return tape.call("Transpose", parted, attributes={"perm": (0, 2, 1, 3)})

    def _norm(self, tape: GraphBuilder, value: ir.Value, name: str) -> ir.Value:
        return LayerNorm(self.hidden, self.epsilon)(tape, value, name)

    def _add_and_norm(
        self, tape: GraphBuilder, prefix: str, value: ir.Value, residual: ir.Value, size: int
    ) -> ir.Value:
        """Layer norm of residual + linear(value), the linear's bias added by the norm's operator."""
        projected = tape.full(tape.linear(value, f"{prefix}.dense.weight", shape=(self.hidden, size)))
        norm = LayerNorm(self.hidden, self.epsilon)
        return norm.of_sum(tape, residual, projected, f"{prefix}.LayerNorm", bias=f"{prefix}.dense.bias")[0]


def _check(config: Mapping[str, Any]) -> None:
    """Refuse settings that the graph does not have.

    Raises:
        ExportError: names the setting, what was found and what is wanted.
    """
    wanted: dict[str, tuple[object, ...]] = {
        "hidden_act": ("gelu",),
        "conv_kernel_size": (0, None),
        "embedding_size": (config["hidden_size"], None),
        "attention_head_size": (config["hidden_size"] // config["num_attention_heads"], None),
        "pooler_hidden_size": (config["hidden_size"], None),
    }
    for name, values in wanted.items():
        if config.get(name) not in values:
            raise ExportError(f"{name} {config.get(name)!r}: this encoder's graph has {values[0]!r} only")
    kinds = config.get("pos_att_type") or []
    if not set(kinds) <= set(_KINDS):
        raise ExportError(f"pos_att_type {kinds!r}: this encoder's graph has {', '.join(_KINDS)} only")


def _names(prefix: str, kind: str) -> list[str]:
    """The checkpoint's names of query, key and value, in the order in which they are stacked."""
    return [f"{prefix}.{part}_proj.{kind}" for part in ("query", "key", "value")]


def _product(tape: GraphBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
    """The product of one with the other transposed, by head."""
    return tape.call("FusedMatMul", left, right, domain=CONTRIB, attributes={"transB": 1})
