"""DeBERTa-v2 and v3: attention over content and, separately, over relative positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from instructmining.errors import ExportError
from instructmining_export.graphs import attention, classifiers, heads
from instructmining_export.graphs.graph_builder import CONTRIB, GraphBuilder
from instructmining_export.graphs.layer_norm import LayerNorm

FAMILIES = ("deberta-v2",)
_LINES = 4  # with which the table's rows are counted
_KINDS = ("c2p", "p2c")  # query times the key's relative position; key times the query's


@dataclass(frozen=True, slots=True)
class RelativePositions:
    """How the distance between two tokens selects a row of the table of relative positions."""

    kinds: tuple[str, ...]  # from _KINDS
    shared: bool  # positions use the tokens' projections
    normalized: bool  # the table has its own layer norm
    span: int  # the table has 2 · span rows, distance 0 at row span
    buckets: int  # rows for far distances grow logarithmically; -1 where each distance has its own row
    longest: int  # distance of the last bucket
    max_length: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> RelativePositions:
        """Read a transformers config; missing settings get the defaults of transformers' model."""
        longest = config.get("max_relative_positions", -1)
        longest = longest if longest >= 1 else config["max_position_embeddings"]
        buckets = config.get("position_buckets", -1)
        configured = config.get("pos_att_type") or ()
        return cls(
            kinds=tuple(kind for kind in _KINDS if kind in configured),
            shared=bool(config.get("share_att_key", False)),
            normalized="layer_norm" in [part.strip() for part in config.get("norm_rel_ebd", "none").lower().split("|")],
            span=buckets if buckets > 0 else longest,
            buckets=buckets,
            longest=longest,
            max_length=max_length,
        )

    def rows(self) -> NDArray[np.int64]:
        """Return the table's row for each distance from 1 - max_length to max_length - 1, int64 (2 · max_length - 1,).

        Uses transformers' own function, because the last bit of its logarithms decides where a bucket ends.
        """
        distances = torch.arange(1 - self.max_length, self.max_length)
        if self.buckets > 0:
            distances = make_log_bucket_position(distances, self.buckets, self.longest).to(torch.int64)
        return np.asarray(torch.clamp(distances + self.span, 0, 2 * self.span - 1).numpy(), dtype=np.int64)

    def reach(self) -> list[tuple[int, int, int]]:
        """Return lines (a, b, c): up to distance d, at most (a · d + b) // c rows are on either side of distance 0.

        Rows grow ever slower with the distance, so the least of a few lines is close to their number. Shapes are made
        from it; on CUDA a number from a table would have to be copied to the host for each batch.
        """
        offsets = self.rows() - self.span
        rows = np.maximum(offsets[self.max_length - 1 :], -offsets[self.max_length - 1 :: -1])
        hull = [0]
        for distance in range(1, len(rows)):
            while len(hull) > 1 and _turns_left(rows, hull[-2], hull[-1], distance):
                hull.pop()
            hull.append(distance)
        edges = list(pairwise(hull))
        kept = {round(place) for place in np.linspace(0, len(edges) - 1, min(_LINES, len(edges)))}
        lines: list[tuple[int, int, int]] = []
        for first, last in (edges[place] for place in sorted(kept)):
            if rows[first] == rows[last]:  # of all rows
                continue
            run = last - first
            rise = int(rows[last] - rows[first])
            lines.append((rise, int(rows[first]) * run - rise * first, run))
        return lines


@dataclass(frozen=True, slots=True)
class _BatchPositions:
    """The relative positions that occur in a batch; all layers share them."""

    kinds: tuple[str, ...]
    shared: bool
    embeddings: ir.Value  # full (2 · span, hidden)
    low: ir.Value  # int64 (1,), a row of the table with none before it in the batch
    high: ir.Value  # int64 (1,), a row with none from it on
    row_count: ir.Value  # int64 (1,)
    rows: ir.Value  # int32 (rows, heads, width, width), by query and key; counted from low


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
    scale: float  # factor of all scores
    relative: RelativePositions | None
    pooler_activation: str = "gelu"

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> Deberta:
        """Read a transformers config.

        Raises:
            ExportError: the graph does not support the family or a setting, or the table of absolute positions is
                shorter than ``max_length``.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ExportError(f"an encoder of family {family!r} was given; wanted one of {', '.join(FAMILIES)}")
        _check(config)
        hidden, head_count = config["hidden_size"], config["num_attention_heads"]
        positions = config["max_position_embeddings"] if config.get("position_biased_input", True) else 0
        if positions and max_length > positions:
            raise ExportError(f"texts of {max_length} tokens, but {positions} positions; give --max-length {positions}")
        kinds = config.get("pos_att_type") or ()
        relative = RelativePositions.from_config(config, max_length=max_length)
        return cls(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            inner=config["intermediate_size"],
            heads=head_count,
            words=config["vocab_size"],
            positions=positions,
            types=config["type_vocab_size"],
            epsilon=config["layer_norm_eps"],
            scale=float((hidden // head_count * (1 + len(set(kinds)))) ** -0.5),
            relative=relative if config.get("relative_attention") and relative.kinds else None,
            pooler_activation=config.get("pooler_hidden_act", "gelu"),
        )

    def states(
        self, graph: GraphBuilder, input_ids: ir.Value, attention_mask: ir.Value, segments: ir.Value | None
    ) -> ir.Value:
        """Return the last hidden states, full (rows, width, hidden); values at padding are meaningless."""
        hidden = self._embed(graph, input_ids, attention_mask, segments)
        lengths = attention.lengths(graph, attention_mask)
        positions = self._batch_positions(graph, input_ids, self.relative) if self.relative else None
        for layer in range(self.layers):
            prefix = f"encoder.layer.{layer}"
            attended = self._attend(graph, f"{prefix}.attention.self", hidden, lengths, positions)
            hidden = self._add_and_norm(graph, f"{prefix}.attention.output", attended, hidden, self.hidden)
            name = f"{prefix}.intermediate.dense"
            inner = graph.linear(graph.narrow(hidden), f"{name}.weight", shape=(self.inner, self.hidden))
            bias = graph.weight(f"{name}.bias", shape=(self.inner,), narrow=True)
            active = graph.call("BiasGelu", inner, bias, domain=CONTRIB)
            hidden = self._add_and_norm(graph, f"{prefix}.output", active, hidden, self.inner)
        return hidden

    def reward(self, graph: GraphBuilder, states: ir.Value, attention_mask: ir.Value) -> ir.Value:  # noqa: ARG002
        """Return the logit of the sequence classifier with one label on the pooled first token, full (rows,).

        Raises:
            ExportError: the pooler's activation is not gelu.
        """
        if self.pooler_activation != "gelu":
            raise ExportError(f"pooler_hidden_act {self.pooler_activation!r}: this encoder's graph has 'gelu' only")
        first = heads.first_token(graph, states)
        pooled = classifiers.dense_layer(graph, first, "pooler.dense", self.hidden, bias=False)
        bias = graph.weight("pooler.dense.bias", shape=(self.hidden,))
        active = graph.call("BiasGelu", pooled, bias, domain=CONTRIB)
        return classifiers.linear_reward(graph, active, "classifier", self.hidden)

    def _embed(
        self, graph: GraphBuilder, input_ids: ir.Value, attention_mask: ir.Value, segments: ir.Value | None
    ) -> ir.Value:
        """Return normalized embeddings, full (rows, width, hidden); 0 at padding."""
        hidden = graph.embedding("embeddings.word_embeddings.weight", input_ids, shape=(self.words, self.hidden))
        if self.positions:
            table = graph.weight("embeddings.position_embeddings.weight", shape=(self.positions, self.hidden))
            positions = graph.call("Slice", table, graph.integers(0), attention.width(graph, input_ids))
            hidden = graph.call("Add", hidden, positions)
        if self.types:
            types = graph.weight("embeddings.token_type_embeddings.weight", shape=(self.types, self.hidden))
            type_ids = graph.integers(0) if segments is None else segments
            hidden = graph.call("Add", hidden, graph.call("Gather", types, type_ids))
        hidden = self._norm(graph, hidden, "embeddings.LayerNorm")
        mask = graph.call("Unsqueeze", graph.cast(attention_mask, ir.DataType.FLOAT), graph.integers(2))
        return graph.call("Mul", hidden, mask)

    def _attend(
        self, graph: GraphBuilder, prefix: str, hidden: ir.Value, lengths: ir.Value, positions: _BatchPositions | None
    ) -> ir.Value:
        """Add attention without its output projection, narrow (rows, width, hidden); scores and sums are full."""
        packed = graph.linear(
            graph.narrow(hidden),
            *_names(prefix, "weight"),
            shape=(3 * self.hidden, self.hidden),
            bias=_names(prefix, "bias"),
        )
        query, key, value = attention.split(graph, graph.full(packed), [self.hidden] * 3)
        scores = self._position_scores(graph, prefix, query, key, positions) if positions else None
        parts = (query, key, value)
        return graph.narrow(
            attention.multi_head(graph, parts, heads=self.heads, lengths=lengths, added=scores, scale=self.scale)
        )

    def _position_scores(
        self, graph: GraphBuilder, prefix: str, query: ir.Value, key: ir.Value, positions: _BatchPositions
    ) -> ir.Value:
        """Return what relative positions add to the scores, full (rows, heads, width, width)."""
        parts: list[ir.Value] = []
        if "c2p" in positions.kinds:
            table = self._table(graph, prefix, "key_proj", positions)
            products = _product(graph, self._by_head(graph, query), table)
            parts.append(graph.call("GatherElements", products, positions.rows, attributes={"axis": 3}))
        if "p2c" in positions.kinds:
            # With the table on the left, columns are keys, and the result needs no transpose.
            table = self._table(graph, prefix, "query_proj", positions)
            products = _product(graph, table, self._by_head(graph, key))
            parts.append(graph.call("GatherElements", products, positions.rows, attributes={"axis": 2}))
        return graph.call("Add", *parts) if len(parts) > 1 else parts[0]

    def _table(self, graph: GraphBuilder, prefix: str, part: str, positions: _BatchPositions) -> ir.Value:
        """Return projected and scaled relative positions of the batch, full ([rows,] heads, positions, head size).

        All nodes but the last depend on weights alone, so onnxruntime computes them once, when the session opens. That
        saves the file 2 · span · hidden numbers for each layer and kind.
        """
        weight = self._position_weight(graph, prefix, part, shared=positions.shared)
        name = f"{prefix}.{part if positions.shared else 'pos_' + part}.bias"
        projected = graph.call("Gemm", positions.embeddings, weight, graph.weight(name, shape=(self.hidden,)))
        scaled = graph.call("Mul", projected, graph.constant("scale", np.array(self.scale, dtype=np.float32)))
        split = graph.call("Reshape", scaled, graph.integers(0, self.heads, self.hidden // self.heads))
        by_head = graph.call("Transpose", split, attributes={"perm": (1, 0, 2)})
        table = graph.call("Slice", by_head, positions.low, positions.high, graph.integers(1))
        if graph.device == "cpu":
            return table
        # CUDA multiplies a table of all rows by pointers, which it copies from the host for each product.
        shape = graph.once("Concat", positions.row_count, graph.integers(1, 1, 1), attributes={"axis": 0})
        return graph.call("Expand", table, shape)

    def _position_weight(self, graph: GraphBuilder, prefix: str, part: str, *, shared: bool) -> ir.Value:
        """Return the weight that projects relative positions, full (in, out), both of size hidden.

        A shared weight is sliced from the initializer of the tokens' product, so that the file holds it once. In int8
        it is stored again, as a table, because onnxruntime does not precompute integer products when the session opens.
        """
        square = (self.hidden, self.hidden)
        name = f"{prefix}.{part if shared else 'pos_' + part}.weight"
        if graph.precision.name == "int8":
            rows = graph.constant("hidden_rows", np.arange(self.hidden))
            return graph.call("Transpose", graph.embedding(name, rows, shape=square), attributes={"perm": (1, 0)})
        if not shared:
            return graph.full(graph.weight(name, shape=square, transpose=True, narrow=True))
        names = _names(prefix, "weight")
        packed = graph.full(graph.weight(*names, shape=(3 * self.hidden, self.hidden), transpose=True, narrow=True))
        begin = names.index(name) * self.hidden
        return graph.call(
            "Slice", packed, graph.integers(begin), graph.integers(begin + self.hidden), graph.integers(1)
        )

    def _batch_positions(
        self, graph: GraphBuilder, input_ids: ir.Value, relative: RelativePositions
    ) -> _BatchPositions:
        embeddings = graph.weight("encoder.rel_embeddings.weight", shape=(2 * relative.span, self.hidden))
        if relative.normalized:
            embeddings = self._norm(graph, embeddings, "encoder.LayerNorm")
        width = attention.width(graph, input_ids)
        zero, span = graph.integers(0), graph.integers(relative.span)
        reach = self._reach(graph, graph.call("Sub", width, graph.integers(1)), relative)
        low = graph.call("Max", graph.call("Sub", span, reach), zero)
        high = graph.call("Add", graph.call("Add", span, reach), graph.integers(1))
        table = graph.constant("position_rows", relative.rows())
        distances = graph.call("Neg", attention.distances(graph, input_ids))  # query position minus key position
        places = graph.call("Add", distances, graph.integers(relative.max_length - 1))
        # Range takes a value from the host without a copy, which a CUDA graph could not record.
        ends = (graph.call("Squeeze", end, zero) for end in (low, graph.call("Add", low, graph.integers(1))))
        first = graph.call("Range", *ends, graph.constant("one", np.array(1, dtype=np.int64)))
        index = graph.cast(graph.call("Sub", graph.call("Gather", table, places), first), ir.DataType.INT32)
        rows = graph.once("Shape", input_ids, attributes={"start": 0, "end": 1})
        shape = graph.call("Concat", rows, graph.integers(self.heads), width, width, attributes={"axis": 0})
        return _BatchPositions(
            kinds=relative.kinds,
            shared=relative.shared,
            embeddings=embeddings,
            low=low,
            high=high,
            row_count=rows,
            rows=graph.call("Expand", index, shape),
        )

    def _reach(self, graph: GraphBuilder, furthest: ir.Value, relative: RelativePositions) -> ir.Value:
        """Return the rows on either side of distance 0 that occur up to the furthest distance, int64 (1,), or more."""
        least = graph.integers(relative.span)
        for rise, offset, run in relative.reach():
            line = furthest
            if (rise, offset) != (run, 0):
                line = graph.call("Add", graph.call("Mul", line, graph.integers(rise)), graph.integers(offset))
                line = graph.call("Div", line, graph.integers(run))
            least = graph.call("Min", least, line)
        return least

    def _by_head(self, graph: GraphBuilder, value: ir.Value) -> ir.Value:
        """Reshape (rows, width, hidden) to (rows, heads, width, head size)."""
        split = graph.call("Reshape", value, graph.integers(0, 0, self.heads, self.hidden // self.heads))
        return graph.call("Transpose", split, attributes={"perm": (0, 2, 1, 3)})

    def _norm(self, graph: GraphBuilder, value: ir.Value, name: str) -> ir.Value:
        return LayerNorm(self.hidden, self.epsilon)(graph, value, name)

    def _add_and_norm(
        self, graph: GraphBuilder, prefix: str, value: ir.Value, residual: ir.Value, size: int
    ) -> ir.Value:
        """Return the layer norm of residual + linear(value); the norm's operator adds the linear's bias."""
        projected = graph.full(graph.linear(value, f"{prefix}.dense.weight", shape=(self.hidden, size)))
        norm = LayerNorm(self.hidden, self.epsilon)
        return norm.add_and_norm(graph, residual, projected, f"{prefix}.LayerNorm", bias=f"{prefix}.dense.bias")[0]


def _turns_left(heights: NDArray[np.int64], first: int, middle: int, last: int) -> bool:
    """Return whether the middle of three points is on or below the line between the others."""
    slope = int(heights[last] - heights[first])
    return (int(heights[middle] - heights[first])) * (last - first) <= slope * (middle - first)


def _check(config: Mapping[str, Any]) -> None:
    """Refuse settings that the graph does not support.

    Raises:
        ExportError: there is such a setting.
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
    """Return the checkpoint's names of query, key and value, in stacking order."""
    return [f"{prefix}.{part}_proj.{kind}" for part in ("query", "key", "value")]


def _product(graph: GraphBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
    """Multiply ``left`` with the transpose of ``right``, head by head."""
    return graph.call("FusedMatMul", left, right, domain=CONTRIB, attributes={"transB": 1})
