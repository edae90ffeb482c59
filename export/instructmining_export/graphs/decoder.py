"""Llama-shaped decoders as a graph of onnxruntime's fused operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from instructmining.errors import ExportError
from instructmining_export.graphs import heads
from instructmining_export.graphs.tape import CONTRIB, GraphTape, Weights

FAMILIES = ("llama",)


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """The numbers of a checkpoint's config that decide its graph."""

    layers: int
    hidden: int
    inner: int
    heads: int
    key_value_heads: int
    head_size: int
    words: int
    positions: int
    epsilon: float
    rope_theta: float
    tied: bool

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DecoderShape:
        """Read a transformers config, of version 4 (``rope_theta``) or 5 (``rope_parameters``).

        Raises:
            ExportError: the family, the activation or the rotary scaling is one that this graph does not have.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ExportError(f"a decoder of family {family!r} was given; wanted one of {', '.join(FAMILIES)}")
        if config.get("hidden_act") != "silu" or config.get("attention_bias") or config.get("mlp_bias"):
            raise ExportError("this decoder has another activation than silu, or biases: not supported")
        head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        if head_size % 16:
            raise ExportError(f"heads of size {head_size}: onnxruntime's fused attention wants a multiple of 16")
        rope = config.get("rope_parameters") or {}
        scaling = config.get("rope_scaling") or {}
        kind = rope.get("rope_type", scaling.get("rope_type", scaling.get("type", "default")))
        theta = rope.get("rope_theta", config.get("rope_theta"))
        if kind != "default" or theta is None:
            raise ExportError(f"rotary embedding of type {kind!r} with theta {theta}: wanted 'default' and a theta")
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            heads=config["num_attention_heads"],
            key_value_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            head_size=head_size,
            words=config["vocab_size"],
            positions=config["max_position_embeddings"],
            epsilon=config["rms_norm_eps"],
            rope_theta=theta,
            tied=bool(config.get("tie_word_embeddings", False)),
        )


@dataclass(frozen=True, slots=True)
class LinearHead:
    """A reward head of one output."""

    weight: NDArray[np.float32]  # (1, hidden)
    bias: NDArray[np.float32]  # (1,)


def build(shape: DecoderShape, weights: Weights, *, vocabulary: bool, reward: LinearHead | None) -> ir.Model:
    """The graph of a decoder with the heads asked for.

    Inputs are right-padded: ``input_ids`` and ``position_ids`` int64 (rows, width), padding at position 0, and for
    the vocabulary head ``scored`` int64 (n, 2). A causal model needs no mask: nothing sees the padding behind it.

    Args:
        shape: the checkpoint's numbers.
        weights: reads a tensor by its transformers name.
        vocabulary: give ``nll``, float32 (n,).
        reward: give ``reward``, float32 (rows,), of this head on the last token's state.
    """
    tape = GraphTape("decoder", weights)
    input_ids = tape.input("input_ids", "rows", "width")
    position_ids = tape.input("position_ids", "rows", "width")
    embedding = tape.weight("model.embed_tokens.weight", shape=(shape.words, shape.hidden))
    hidden = _backbone(tape, shape, tape.call("Gather", embedding, input_ids), input_ids)
    outputs: dict[str, ir.Value] = {}
    if vocabulary:
        scored = tape.input("scored", "n", 2)
        output_embedding = embedding if shape.tied else tape.weight("lm_head.weight", shape=(shape.words, shape.hidden))
        outputs["nll"] = heads.token_nll(tape, hidden, input_ids, scored, output_embedding)
    if reward is not None:
        state = heads.last_token(tape, hidden, position_ids)
        outputs["reward"] = heads.linear_reward(tape, state, reward.weight, reward.bias)
    return tape.finish(outputs)


def _backbone(tape: GraphTape, shape: DecoderShape, residual: ir.Value, input_ids: ir.Value) -> ir.Value:
    """All layers and the final norm: float32 (rows, width, hidden) to the same shape."""
    query = shape.heads * shape.head_size
    key = shape.key_value_heads * shape.head_size
    lengths, total, cos, sin = _attention_inputs(tape, shape, input_ids)
    norm = tape.call(
        "SimplifiedLayerNormalization",
        residual,
        tape.weight("model.layers.0.input_layernorm.weight", shape=(shape.hidden,)),
        attributes={"epsilon": shape.epsilon, "axis": -1},
    )
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        packed = tape.call(
            "MatMul",
            norm,
            tape.weight(
                *(f"{prefix}.self_attn.{name}_proj.weight" for name in "qkv"),
                shape=(query + 2 * key, shape.hidden),
                transpose=True,
            ),
        )
        attended = tape.call_many(
            "GroupQueryAttention",
            *(packed, None, None, None, None, lengths, total, cos, sin),
            outputs=3,
            attributes={"num_heads": shape.heads, "kv_num_heads": shape.key_value_heads, "do_rotary": 1},
        )[0]
        projected = _linear(tape, attended, f"{prefix}.self_attn.o_proj.weight", (shape.hidden, query))
        norm, residual = _add_and_norm(tape, shape, residual, projected, f"{prefix}.post_attention_layernorm.weight")
        gate = _linear(tape, norm, f"{prefix}.mlp.gate_proj.weight", (shape.inner, shape.hidden))
        up = _linear(tape, norm, f"{prefix}.mlp.up_proj.weight", (shape.inner, shape.hidden))
        silu = tape.call("QuickGelu", gate, domain=CONTRIB, attributes={"alpha": 1.0})
        down = _linear(tape, tape.call("Mul", silu, up), f"{prefix}.mlp.down_proj.weight", (shape.hidden, shape.inner))
        final = layer + 1 == shape.layers
        following = "model.norm.weight" if final else f"model.layers.{layer + 1}.input_layernorm.weight"
        norm, residual = _add_and_norm(tape, shape, residual, down, following)
    return norm


def _attention_inputs(
    tape: GraphTape, shape: DecoderShape, input_ids: ir.Value
) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
    """What GroupQueryAttention wants beside the projections: lengths, the total, and the rotary tables."""
    rows = tape.call("Shape", input_ids, attributes={"start": 0, "end": 1})
    width = tape.call("Shape", input_ids, attributes={"start": 1, "end": 2})
    narrow = tape.call("Cast", width, attributes={"to": int(ir.DataType.INT32)})
    one = tape.constant("one_int32", np.array([1], dtype=np.int32))
    lengths = tape.call("Expand", tape.call("Sub", narrow, one), rows)
    total = tape.call("Squeeze", narrow, tape.integers(0))
    frequencies = 1.0 / shape.rope_theta ** (np.arange(0, shape.head_size, 2, dtype=np.float64) / shape.head_size)
    # transformers keeps the frequencies in float32 and multiplies there; so the same angles come out.
    angles = np.outer(np.arange(shape.positions, dtype=np.float32), frequencies.astype(np.float32))
    cos = tape.constant("rotary_cos", np.cos(angles).astype(np.float32))
    sin = tape.constant("rotary_sin", np.sin(angles).astype(np.float32))
    return lengths, total, cos, sin


def _linear(tape: GraphTape, value: ir.Value, name: str, shape: tuple[int, int]) -> ir.Value:
    return tape.call("MatMul", value, tape.weight(name, shape=shape, transpose=True))


def _add_and_norm(
    tape: GraphTape, shape: DecoderShape, residual: ir.Value, value: ir.Value, name: str
) -> tuple[ir.Value, ir.Value]:
    """RMS norm of residual + value, and that sum, from one operator."""
    outputs = tape.call_many(
        "SkipSimplifiedLayerNormalization",
        *(residual, value, tape.weight(name, shape=(shape.hidden,))),
        outputs=4,
        attributes={"epsilon": shape.epsilon},
    )
    return outputs[0], outputs[3]
