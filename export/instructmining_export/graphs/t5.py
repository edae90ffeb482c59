"""T5 for yes-or-no questions: encoder, first decoder step and the odds of two words in one graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from instructmining.errors import ExportError
from instructmining_export.graphs import attention, heads
from instructmining_export.graphs.graph_builder import CONTRIB, DeviceKind, GraphBuilder, Weights
from instructmining_export.graphs.precision import FP32, Precision

FAMILIES = ("t5",)
_ACTIVATIONS = {"gelu_new": (CONTRIB, "FastGelu"), "relu": ("", "Relu")}

# Part of a layer: the prefix of its names, and a function from the norm's output to the residual's addend, both full.
Sublayer: TypeAlias = tuple[str, Callable[[ir.Value], ir.Value]]


@dataclass(frozen=True, slots=True)
class T5:
    """The numbers of a checkpoint's config that decide its graph."""

    encoder_layers: int
    decoder_layers: int
    hidden: int
    inner: int
    words: int
    heads: int
    head_size: int
    epsilon: float
    buckets: int
    max_distance: int
    max_length: int
    start: int  # id of the decoder's start token
    tied: bool
    gated: bool
    activation: str  # a key of _ACTIVATIONS

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> T5:
        """Read a transformers config.

        Args:
            config: with its defaults filled in.
            max_length: tokens of the longest text.

        Raises:
            ExportError: the graph does not support the family or the activation, or there is no start token.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ExportError(f"an encoder-decoder of family {family!r} was given; wanted {', '.join(FAMILIES)}")
        activation = config["dense_act_fn"]
        if activation not in _ACTIVATIONS:
            raise ExportError(f"dense_act_fn {activation!r}: wanted one of {', '.join(_ACTIVATIONS)}")
        start = config.get("decoder_start_token_id")
        if start is None:
            raise ExportError("the config has no decoder_start_token_id; set it to what the model was trained with")
        return cls(
            encoder_layers=config["num_layers"],
            decoder_layers=config["num_decoder_layers"],
            hidden=config["d_model"],
            inner=config["d_ff"],
            words=config["vocab_size"],
            heads=config["num_heads"],
            head_size=config["d_kv"],
            epsilon=config["layer_norm_epsilon"],
            buckets=config["relative_attention_num_buckets"],
            max_distance=config["relative_attention_max_distance"],
            max_length=max_length,
            start=start,
            tied=bool(config["tie_word_embeddings"]),
            gated=bool(config["is_gated_act"]),
            activation=activation,
        )

    @property
    def attended(self) -> int:
        """Size of all heads side by side; may differ from ``hidden``."""
        return self.heads * self.head_size

    def encode(self, graph: GraphBuilder, input_ids: ir.Value, lengths: ir.Value) -> ir.Value:
        """Return the encoder's states after its final norm, full (rows, width, hidden).

        Args:
            graph: gets the nodes.
            input_ids: int64 (rows, width), right-padded.
            lengths: int64 (rows,), tokens of each row.
        """
        bias = graph.narrow(self._position_bias(graph, input_ids))
        sublayers: list[Sublayer] = []
        for layer in range(self.encoder_layers):
            first, second = (f"encoder.block.{layer}.layer.{part}" for part in range(2))
            sublayers.append((first, partial(self._attend_tokens, graph, first, lengths, bias)))
            sublayers.append((second, partial(self._feed_forward, graph, second)))
        embedded = graph.embedding("shared.weight", input_ids, shape=(self.words, self.hidden))
        return self._stack(graph, embedded, sublayers, "encoder.final_layer_norm.weight")

    def decode(self, graph: GraphBuilder, states: ir.Value, lengths: ir.Value) -> ir.Value:
        """Return the decoder's state after its final norm at the first step, full (rows, hidden).

        Until the first layer attends to the encoder's states, all rows are the same and are computed once, as one row.

        Args:
            graph: gets the nodes.
            states: the encoder's, full (rows, width, hidden).
            lengths: int64 (rows,), tokens of each row.
        """
        sublayers: list[Sublayer] = []
        for layer in range(self.decoder_layers):
            first, second, third = (f"decoder.block.{layer}.layer.{part}" for part in range(3))
            sublayers.append((first, partial(self._attend_itself, graph, first, one_row=layer == 0)))
            attend = partial(self._attend_states, graph, second, states, lengths, one_row=layer == 0)
            sublayers.append((second, attend))
            sublayers.append((third, partial(self._feed_forward, graph, third)))
        start = graph.constant("decoder_start", np.array([[self.start]], dtype=np.int64))
        embedded = graph.embedding("shared.weight", start, shape=(self.words, self.hidden))
        with graph.each("row"):
            state = self._stack(graph, embedded, sublayers, "decoder.final_layer_norm.weight")
        return graph.call("Squeeze", state, graph.integers(1))

    def difference(self, weights: Weights, yes: int, no: int) -> NDArray[np.float32]:
        """Return the weight that turns a decoder's state into logit(yes) − logit(no), float32 (1, hidden).

        Raises:
            ExportError: a word is not in the vocabulary, or the matrix's shape differs from the config.
        """
        name = "shared.weight" if self.tied else "lm_head.weight"
        table = weights(name)
        if table.shape != (self.words, self.hidden):
            raise ExportError(f"{name}: found shape {table.shape}, the config says {(self.words, self.hidden)}")
        for word in (yes, no):
            if not 0 <= word < self.words:
                raise ExportError(f"token id {word} for an answer: the vocabulary has {self.words} words")
        scale = self.hidden**-0.5 if self.tied else 1.0
        difference = table[yes].astype(np.float64) - table[no].astype(np.float64)
        scaled: NDArray[np.float32] = (difference * scale).astype(np.float32)
        return scaled[None]

    def _stack(self, graph: GraphBuilder, residual: ir.Value, sublayers: Sequence[Sublayer], final: str) -> ir.Value:
        """Add pre-norm layers: each sublayer reads a norm of the residual and adds to it; the final norm comes last."""
        names = [*(f"{prefix}.layer_norm.weight" for prefix, _ in sublayers), final]
        norms = [graph.weight(name, shape=(self.hidden,)) for name in names]
        attributes = {"epsilon": self.epsilon}
        norm = graph.call("SimplifiedLayerNormalization", residual, norms[0], attributes=attributes | {"axis": -1})
        for (_, apply), following in zip(sublayers, norms[1:], strict=True):
            # The operator's sum has the shape of its first input: a residual of one row is broadcast to all rows.
            norm, *_, residual = graph.call_many(
                "SkipSimplifiedLayerNormalization", apply(norm), residual, following, outputs=4, attributes=attributes
            )
        return norm

    def _attend_tokens(
        self, graph: GraphBuilder, prefix: str, lengths: ir.Value, bias: ir.Value, norm: ir.Value
    ) -> ir.Value:
        """Attend among the encoder's tokens. Scores are narrow, as in transformers."""
        query, key, value = (self._to_heads(graph, norm, f"{prefix}.SelfAttention.{part}") for part in "qkv")
        parts = (query, key, value)
        attended = attention.multi_head(graph, parts, heads=self.heads, lengths=lengths, added=bias, scale=1.0)
        return self._to_hidden(graph, attended, f"{prefix}.SelfAttention.o")

    def _attend_itself(self, graph: GraphBuilder, prefix: str, norm: ir.Value, *, one_row: bool) -> ir.Value:
        """Attend to the decoder's only token: its weight is 1, so query, key and bias are not needed."""
        with graph.each(None if one_row else "row"):
            value = self._to_heads(graph, norm, f"{prefix}.SelfAttention.v")
            return self._to_hidden(graph, value, f"{prefix}.SelfAttention.o")

    def _attend_states(
        self, graph: GraphBuilder, prefix: str, states: ir.Value, lengths: ir.Value, norm: ir.Value, *, one_row: bool
    ) -> ir.Value:
        """Attend from the decoder's token to the encoder's states, full (rows, 1, hidden).

        Each row has one query, so (q K) · s is cheaper than q · (K s). Each head's key matrix is multiplied into its
        query, and its value matrix is applied after the weighted mean of the states. All heads then are queries of one
        head as wide as the states. This avoids keys and values of all tokens, a sixth of the encoder's work. Scores and
        means are full.

        Args:
            graph: gets the nodes.
            prefix: of the weights' names.
            states: the encoder's, full (rows, width, hidden).
            lengths: int64 (rows,).
            norm: full (rows, 1, hidden).
            one_row: ``norm`` is (1, 1, hidden), the same for all rows.
        """
        with graph.each(None if one_row else "row"):
            query = self._absorbed_query(graph, f"{prefix}.EncDecAttention", norm)
        if one_row:
            shape = graph.call("Concat", graph.once("Shape", lengths), graph.integers(1, 1), attributes={"axis": 0})
            query = graph.call("Expand", query, shape)
        context = attention.multi_head(graph, (query, states, states), heads=1, lengths=lengths, scale=1.0)
        return self._absorbed_output(graph, f"{prefix}.EncDecAttention", context)

    def _to_heads(self, graph: GraphBuilder, norm: ir.Value, name: str) -> ir.Value:
        return graph.linear(graph.narrow(norm), f"{name}.weight", shape=(self.attended, self.hidden))

    def _to_hidden(self, graph: GraphBuilder, value: ir.Value, name: str) -> ir.Value:
        return graph.full(graph.linear(value, f"{name}.weight", shape=(self.hidden, self.attended)))

    def _absorbed_query(self, graph: GraphBuilder, prefix: str, norm: ir.Value) -> ir.Value:
        """Each head's query times that head's key matrix, full (rows, heads, hidden), of a norm (rows, 1, hidden)."""
        query = self._to_heads(graph, norm, f"{prefix}.q")
        split = graph.call("Reshape", query, graph.integers(-1, self.heads, self.head_size))
        by_head = graph.call("Transpose", split, attributes={"perm": (1, 0, 2)})
        absorbed = graph.call("MatMul", by_head, self._matrices(graph, f"{prefix}.k.weight"))
        return graph.full(graph.call("Transpose", absorbed, attributes={"perm": (1, 0, 2)}))

    def _absorbed_output(self, graph: GraphBuilder, prefix: str, context: ir.Value) -> ir.Value:
        """Apply each head's value matrix to its mean of the states (rows, heads, hidden), then the output layer."""
        by_head = graph.call("Transpose", graph.narrow(context), attributes={"perm": (1, 2, 0)})
        values = graph.call("MatMul", self._matrices(graph, f"{prefix}.v.weight"), by_head)
        by_row = graph.call("Transpose", values, attributes={"perm": (2, 0, 1)})
        side_by_side = graph.call("Reshape", by_row, graph.integers(0, 1, self.attended))
        return self._to_hidden(graph, side_by_side, f"{prefix}.o")

    def _matrices(self, graph: GraphBuilder, name: str) -> ir.Value:
        """Return one matrix per head, narrow (heads, head_size, hidden); float32 in int8 graphs, as few rows use it."""
        graph.count(self.attended * self.hidden)
        stacked = graph.weight(name, shape=(self.attended, self.hidden), narrow=True)
        return graph.call("Reshape", stacked, graph.integers(self.heads, self.head_size, self.hidden))

    def _feed_forward(self, graph: GraphBuilder, prefix: str, norm: ir.Value) -> ir.Value:
        """Add the feed-forward layers, full (…, hidden).

        In fp16 the gated product and its output layer stay full, because trained T5 exceeds 65,504 there. In int8 each
        row has its own scale and cannot overflow.
        """
        domain, activation = _ACTIVATIONS[self.activation]
        parts = ("wi_0", "wi_1") if self.gated else ("wi",)
        narrow = graph.narrow(norm)
        wide, *gate = (
            graph.full(graph.linear(narrow, f"{prefix}.DenseReluDense.{part}.weight", shape=(self.inner, self.hidden)))
            for part in parts
        )
        active = graph.call(activation, wide, domain=domain)
        product = graph.call("Mul", active, *gate) if gate else active
        keep = graph.precision.name == "fp16"
        return graph.linear(product, f"{prefix}.DenseReluDense.wo.weight", shape=(self.hidden, self.inner), keep=keep)

    def _position_bias(self, graph: GraphBuilder, input_ids: ir.Value) -> ir.Value:
        """Return the bias that every encoder layer adds to its scores, full (1, heads, width, width)."""
        furthest = self.max_length - 1
        offsets = np.arange(-furthest, furthest + 1)
        bucket_by_offset = graph.constant("buckets", relative_buckets(offsets, self.buckets, self.max_distance))
        places = graph.call("Add", attention.distances(graph, input_ids), graph.integers(furthest))
        name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        by_offset = graph.call("Gather", graph.weight(name, shape=(self.buckets, self.heads)), bucket_by_offset)
        # Gathering all heads at once and then transposing is four times faster than gathering head by head.
        by_place = graph.call("Gather", by_offset, places)
        return graph.call(
            "Unsqueeze", graph.call("Transpose", by_place, attributes={"perm": (2, 0, 1)}), graph.integers(0)
        )


def build(
    t5: T5, weights: Weights, *, yes: int, no: int, precision: Precision = FP32, device: DeviceKind = "cpu"
) -> GraphBuilder:
    """Build the graph of p(yes) / (p(yes) + p(no)) at the decoder's first step.

    Inputs ``input_ids`` and ``attention_mask``, int64 (rows, width), right-padded, width at most ``max_length``; output
    ``yes``, float32 (rows,), in 0..1.

    Args:
        t5: the checkpoint's numbers.
        weights: reads a tensor by its transformers name.
        yes: token id of the positive answer.
        no: token id of the negative answer.
        precision: of the matrix products.
        device: whose operators are used where none is fast on both.

    Raises:
        ExportError: a word is not in the vocabulary, or the output matrix's shape differs from the config.
    """
    graph = GraphBuilder("yes_or_no", weights, precision, device=device)
    input_ids = graph.input("input_ids", "rows", "width")
    attention_mask = graph.input("attention_mask", "rows", "width")
    lengths = attention.lengths(graph, attention_mask)
    state = t5.decode(graph, t5.encode(graph, input_ids, lengths), lengths)
    logit = heads.linear_reward(graph, state, t5.difference(weights, yes, no), np.zeros(1, dtype=np.float32))
    graph.output("yes", graph.call("Sigmoid", logit))
    return graph


def relative_buckets(offsets: NDArray[np.int64], buckets: int, max_distance: int) -> NDArray[np.int64]:
    """Return T5's bucket of each offset, key position minus query position, int64 of the same shape.

    Half the buckets are for keys after the query. In each half, the first half of the buckets hold one offset each; the
    others grow logarithmically up to ``max_distance``, and the last holds all offsets from there on.

    Source:
        Raffel et al., arXiv 1910.10683, section 2.1; in float32, rounded as transformers does, so that edges agree.
    """
    half = buckets // 2
    exact = half // 2
    distance = np.abs(offsets)
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    grown = exact + (growth / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)).astype(np.int64)
    bucket = np.where(distance < exact, distance, np.minimum(grown, half - 1))
    return bucket + np.where(offsets > 0, half, 0)
