"""T5 asked a yes-or-no question: encoder, the decoder's first step, and the odds of two words, in one graph."""

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
from instructmining_export.graphs import heads
from instructmining_export.graphs.graph_builder import CONTRIB, FP32, GraphBuilder, Precision, Weights

FAMILIES = ("t5",)
_ACTIVATIONS = {"gelu_new": (CONTRIB, "FastGelu"), "relu": ("", "Relu")}
# Far below any score, as transformers masks with the smallest float; the operator's own -10,000 is not, unscaled.
_MASKED = -1e30

# Part of a layer: the prefix of its names, and the norm's full output → what is added to the residual, full.
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
    start: int  # the token that the decoder starts from
    tied: bool
    gated: bool
    activation: str  # a key of _ACTIVATIONS

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> T5:
        """Read a transformers config.

        Args:
            config: with its defaults filled in.
            max_length: the longest text that the graph is given.

        Raises:
            ExportError: the family, the activation or the start token is one that this graph does not have.
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
        """Size of all heads side by side; not always that of a hidden state."""
        return self.heads * self.head_size

    def encode(self, tape: GraphBuilder, input_ids: ir.Value, lengths: ir.Value) -> ir.Value:
        """The encoder's states after its final norm, full (rows, width, hidden).

        Args:
            tape: the graph.
            input_ids: int64 (rows, width), right-padded.
            lengths: int32 (rows,), tokens of each row.
        """
        bias = tape.narrow(self._position_bias(tape, input_ids))
        sublayers: list[Sublayer] = []
        for layer in range(self.encoder_layers):
            first, second = (f"encoder.block.{layer}.layer.{part}" for part in range(2))
            sublayers.append((first, partial(self._attend_tokens, tape, first, lengths, bias)))
            sublayers.append((second, partial(self._feed_forward, tape, second)))
        embedded = tape.embedding("shared.weight", input_ids, shape=(self.words, self.hidden))
        return self._stack(tape, embedded, sublayers, "encoder.final_layer_norm.weight")

    def decode(self, tape: GraphBuilder, states: ir.Value, lengths: ir.Value) -> ir.Value:
        """The decoder's state after its final norm at the first step, full (rows, hidden).

        Up to the first look at the encoder's states all rows are the same, so that far there is one row, computed once.

        Args:
            tape: the graph.
            states: the encoder's, full (rows, width, hidden).
            lengths: int32 (rows,), tokens of each row.
        """
        sublayers: list[Sublayer] = []
        for layer in range(self.decoder_layers):
            first, second, third = (f"decoder.block.{layer}.layer.{part}" for part in range(3))
            sublayers.append((first, partial(self._attend_itself, tape, first, one_row=layer == 0)))
            attend = partial(self._attend_states, tape, second, states, lengths, one_row=layer == 0)
            sublayers.append((second, attend))
            sublayers.append((third, partial(self._feed_forward, tape, third)))
        start = tape.constant("decoder_start", np.array([[self.start]], dtype=np.int64))
        embedded = tape.embedding("shared.weight", start, shape=(self.words, self.hidden))
        with tape.each("row"):
            state = self._stack(tape, embedded, sublayers, "decoder.final_layer_norm.weight")
        return tape.call("Squeeze", state, tape.integers(1))

    def difference(self, weights: Weights, yes: int, no: int) -> NDArray[np.float32]:
        """What a decoder's state is multiplied with for logit(yes) − logit(no), float32 (1, hidden).

        Raises:
            ExportError: a word is not in the vocabulary, or the matrix has another shape than the config says.
        """
        name = "shared.weight" if self.tied else "lm_head.weight"
        table = weights(name)
        if table.shape != (self.words, self.hidden):
            raise ExportError(f"{name}: found shape {table.shape}, the config says {(self.words, self.hidden)}")
        for word in (yes, no):
            if not 0 <= word < self.words:
                raise ExportError(f"token id {word} for an answer: the vocabulary has {self.words} words")
        scale = self.hidden**-0.5 if self.tied else 1.0
        apart = table[yes].astype(np.float64) - table[no].astype(np.float64)
        scaled: NDArray[np.float32] = (apart * scale).astype(np.float32)
        return scaled[None]

    def _stack(self, tape: GraphBuilder, residual: ir.Value, sublayers: Sequence[Sublayer], final: str) -> ir.Value:
        """Pre-norm layers: each part reads a norm of the residual and adds to it; after the last, the final norm."""
        names = [*(f"{prefix}.layer_norm.weight" for prefix, _ in sublayers), final]
        norms = [tape.weight(name, shape=(self.hidden,)) for name in names]
        attributes = {"epsilon": self.epsilon}
        norm = tape.call("SimplifiedLayerNormalization", residual, norms[0], attributes=attributes | {"axis": -1})
        for (_, apply), following in zip(sublayers, norms[1:], strict=True):
            # The sum has the shape of the first input: where only it has rows, the residual is spread over them.
            norm, *_, residual = tape.call_many(
                "SkipSimplifiedLayerNormalization", apply(norm), residual, following, outputs=4, attributes=attributes
            )
        return norm

    def _attend_tokens(
        self, tape: GraphBuilder, prefix: str, lengths: ir.Value, bias: ir.Value, norm: ir.Value
    ) -> ir.Value:
        """The encoder's tokens among themselves. Scores are narrow, as in transformers: products of normed states."""
        query, key, value = (self._heads_of(tape, norm, f"{prefix}.SelfAttention.{part}") for part in "qkv")
        attended = tape.call(
            "MultiHeadAttention",
            *(query, key, value, None, lengths, bias),
            domain=CONTRIB,
            attributes={"num_heads": self.heads, "scale": 1.0, "mask_filter_value": _MASKED},
        )
        return self._hidden_of(tape, attended, f"{prefix}.SelfAttention.o")

    def _attend_itself(self, tape: GraphBuilder, prefix: str, norm: ir.Value, *, one_row: bool) -> ir.Value:
        """The decoder's only token: its weight is 1, whatever query, key and bias."""
        with tape.each(None if one_row else "row"):
            value = self._heads_of(tape, norm, f"{prefix}.SelfAttention.v")
            return self._hidden_of(tape, value, f"{prefix}.SelfAttention.o")

    def _attend_states(
        self, tape: GraphBuilder, prefix: str, states: ir.Value, lengths: ir.Value, norm: ir.Value, *, one_row: bool
    ) -> ir.Value:
        """The decoder's token to the encoder's states, full (rows, 1, hidden).

        There is one query a row, so q · (K s) is cheaper as (q K) · s: with each head's key matrix in its query, and
        its value matrix behind the mean, the heads are queries of one wide head on the states as they are. Keys and
        values of all tokens, a sixth of the encoder's own work, are never computed. Scores and means are full.

        Args:
            tape: the graph.
            prefix: of the weights' names.
            states: the encoder's, full (rows, width, hidden).
            lengths: int32 (rows,).
            norm: full (rows, 1, hidden).
            one_row: norm is (1, 1, hidden), the same for all rows.
        """
        with tape.each(None if one_row else "row"):
            query = self._absorbed_query(tape, f"{prefix}.EncDecAttention", norm)
        if one_row:
            shape = tape.call("Concat", tape.once("Shape", lengths), tape.integers(1, 1), attributes={"axis": 0})
            query = tape.call("Expand", query, shape)
        context = tape.call(
            "MultiHeadAttention",
            *(query, states, states, None, lengths),
            domain=CONTRIB,
            attributes={"num_heads": 1, "scale": 1.0, "mask_filter_value": _MASKED},
        )
        return self._absorbed_output(tape, f"{prefix}.EncDecAttention", context)

    def _heads_of(self, tape: GraphBuilder, norm: ir.Value, name: str) -> ir.Value:
        return tape.linear(tape.narrow(norm), f"{name}.weight", shape=(self.attended, self.hidden))

    def _hidden_of(self, tape: GraphBuilder, value: ir.Value, name: str) -> ir.Value:
        return tape.full(tape.linear(value, f"{name}.weight", shape=(self.hidden, self.attended)))

    def _absorbed_query(self, tape: GraphBuilder, prefix: str, norm: ir.Value) -> ir.Value:
        """Each head's query times that head's key matrix, full (rows, heads, hidden), of a norm (rows, 1, hidden)."""
        query = self._heads_of(tape, norm, f"{prefix}.q")
        split = tape.call("Reshape", query, tape.integers(-1, self.heads, self.head_size))
        by_head = tape.call("Transpose", split, attributes={"perm": (1, 0, 2)})
        absorbed = tape.call("MatMul", by_head, self._matrices(tape, f"{prefix}.k.weight"))
        return tape.full(tape.call("Transpose", absorbed, attributes={"perm": (1, 0, 2)}))

    def _absorbed_output(self, tape: GraphBuilder, prefix: str, context: ir.Value) -> ir.Value:
        """Each head's value matrix times its mean of the states (rows, heads, hidden), then the output layer."""
        by_head = tape.call("Transpose", tape.narrow(context), attributes={"perm": (1, 2, 0)})
        values = tape.call("MatMul", self._matrices(tape, f"{prefix}.v.weight"), by_head)
        by_row = tape.call("Transpose", values, attributes={"perm": (2, 0, 1)})
        side_by_side = tape.call("Reshape", by_row, tape.integers(0, 1, self.attended))
        return self._hidden_of(tape, side_by_side, f"{prefix}.o")

    def _matrices(self, tape: GraphBuilder, name: str) -> ir.Value:
        """One matrix a head, narrow (heads, head_size, hidden); float32 in int8 graphs, for they meet few rows."""
        tape.count(self.attended * self.hidden)
        stacked = tape.weight(name, shape=(self.attended, self.hidden), narrow=True)
        return tape.call("Reshape", stacked, tape.integers(self.heads, self.head_size, self.hidden))

    def _feed_forward(self, tape: GraphBuilder, prefix: str, norm: ir.Value) -> ir.Value:
        """Full (…, hidden).

        In fp16 the gated product and its output layer are full: trained T5 exceeds 65,504 there. Integers have a scale
        for each row and cannot overflow.
        """
        domain, activation = _ACTIVATIONS[self.activation]
        parts = ("wi_0", "wi_1") if self.gated else ("wi",)
        narrow = tape.narrow(norm)
        wide, *gate = (
            tape.full(tape.linear(narrow, f"{prefix}.DenseReluDense.{part}.weight", shape=(self.inner, self.hidden)))
            for part in parts
        )
        active = tape.call(activation, wide, domain=domain)
        product = tape.call("Mul", active, *gate) if gate else active
        keep = tape.precision.name == "fp16"
        return tape.linear(product, f"{prefix}.DenseReluDense.wo.weight", shape=(self.hidden, self.inner), keep=keep)

    def _position_bias(self, tape: GraphBuilder, input_ids: ir.Value) -> ir.Value:
        """What every encoder layer adds to its scores, full (1, heads, width, width): from the first layer's table."""
        width = tape.once("Shape", input_ids, attributes={"start": 1, "end": 2})
        zero, one = (tape.constant(name, np.array(i, dtype=np.int64)) for i, name in enumerate(("zero", "one")))
        positions = tape.call("Range", zero, tape.call("Squeeze", width), one)
        distances = tape.call("Sub", positions, tape.call("Unsqueeze", positions, tape.integers(1)))
        furthest = self.max_length - 1
        offsets = np.arange(-furthest, furthest + 1)
        known = tape.constant("buckets", relative_buckets(offsets, self.buckets, self.max_distance))
        places = tape.call("Add", distances, tape.constant("furthest", np.array(furthest, dtype=np.int64)))
        name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        by_offset = tape.call("Gather", tape.weight(name, shape=(self.buckets, self.heads)), known)
        # All heads of a place at once, then the transpose: four times faster than head by head.
        by_place = tape.call("Gather", by_offset, places)
        return tape.call(
            "Unsqueeze", tape.call("Transpose", by_place, attributes={"perm": (2, 0, 1)}), tape.integers(0)
        )


def build(t5: T5, weights: Weights, *, yes: int, no: int, precision: Precision = FP32) -> GraphBuilder:
    """The graph of p(yes) / (p(yes) + p(no)) at the decoder's first step.

    Inputs ``input_ids`` and ``attention_mask``, int64 (rows, width), right-padded, width at most ``max_length``; output
    ``yes``, float32 (rows,), in 0..1.

    Args:
        t5: the checkpoint's numbers.
        weights: reads a tensor by its transformers name.
        yes: id of the word that counts for the text.
        no: id of the word against it.
        precision: of the matrix products.

    Raises:
        ExportError: a word is not in the vocabulary, or the output matrix has another shape than the config says.
    """
    tape = GraphBuilder("yes_or_no", weights, precision)
    input_ids = tape.input("input_ids", "rows", "width")
    attention_mask = tape.input("attention_mask", "rows", "width")
    lengths = tape.call("ReduceSum", attention_mask, tape.integers(1), attributes={"keepdims": 0})
    lengths = tape.cast(lengths, ir.DataType.INT32)
    state = t5.decode(tape, t5.encode(tape, input_ids, lengths), lengths)
    logit = heads.linear_reward(tape, state, t5.difference(weights, yes, no), np.zeros(1, dtype=np.float32))
    tape.output("yes", tape.call("Sigmoid", logit))
    return tape


def relative_buckets(offsets: NDArray[np.int64], buckets: int, max_distance: int) -> NDArray[np.int64]:
    """T5's bucket of each offset between a key's position and a query's, int64 of the same shape.

    Half the buckets are for keys behind the query. In each half, half the buckets hold one offset each, and the others
    grow by powers up to ``max_distance``, from where on all are one.

    Source:
        Raffel et al., arXiv 1910.10683, section 2.1; float32 and rounded as transformers does, for the edges.
    """
    half = buckets // 2
    exact = half // 2
    distance = np.abs(offsets)
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    grown = exact + (growth / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)).astype(np.int64)
    bucket = np.where(distance < exact, distance, np.minimum(grown, half - 1))
    return bucket + np.where(offsets > 0, half, 0)
