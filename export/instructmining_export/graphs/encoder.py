"""BERT-shaped encoders as a graph of onnxruntime's fused operators, with pooling inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from instructmining.errors import ExportError
from instructmining_export.graphs import heads
from instructmining_export.graphs.tape import CONTRIB, GraphTape, Weights

FAMILIES = ("bert",)


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """The numbers of a checkpoint's config that decide its graph."""

    layers: int
    hidden: int
    inner: int
    heads: int
    words: int
    positions: int
    types: int
    epsilon: float

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EncoderShape:
        """Read a transformers config.

        Raises:
            ExportError: the family, the activation or the kind of positions is one that this graph does not have.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ExportError(f"an encoder of family {family!r} was given; wanted one of {', '.join(FAMILIES)}")
        if config.get("hidden_act") != "gelu" or config.get("position_embedding_type", "absolute") != "absolute":
            raise ExportError("this encoder has another activation than gelu, or relative positions: not supported")
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            heads=config["num_attention_heads"],
            words=config["vocab_size"],
            positions=config["max_position_embeddings"],
            types=config["type_vocab_size"],
            epsilon=config["layer_norm_eps"],
        )


def build(shape: EncoderShape, weights: Weights) -> ir.Model:
    """The graph of a sentence encoder with mean pooling and unit length.

    Inputs ``input_ids`` and ``attention_mask``, int64 (rows, width), right-padded; output ``embedding``, float32
    (rows, hidden).
    """
    tape = GraphTape("encoder", weights)
    input_ids = tape.input("input_ids", "rows", "width")
    attention_mask = tape.input("attention_mask", "rows", "width")
    hidden, lengths = _embed(tape, shape, input_ids, attention_mask)
    for layer in range(shape.layers):
        hidden = _layer(tape, shape, f"encoder.layer.{layer}", hidden, lengths)
    return tape.finish({"embedding": heads.mean_embedding(tape, hidden, attention_mask)})


def _embed(
    tape: GraphTape, shape: EncoderShape, input_ids: ir.Value, attention_mask: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Normalized embeddings, float32 (rows, width, hidden), and the rows' lengths, int32 (rows,)."""
    as_int32 = {"to": int(ir.DataType.INT32)}
    ids = tape.call("Cast", input_ids, attributes=as_int32)
    mask = tape.call("Cast", attention_mask, attributes=as_int32)
    segments = tape.call("Sub", ids, ids)  # one text, so every token is of the first segment
    outputs = tape.call_many(
        "EmbedLayerNormalization",
        *(ids, segments),
        tape.weight("embeddings.word_embeddings.weight", shape=(shape.words, shape.hidden)),
        tape.weight("embeddings.position_embeddings.weight", shape=(shape.positions, shape.hidden)),
        tape.weight("embeddings.token_type_embeddings.weight", shape=(shape.types, shape.hidden)),
        tape.weight("embeddings.LayerNorm.weight", shape=(shape.hidden,)),
        tape.weight("embeddings.LayerNorm.bias", shape=(shape.hidden,)),
        mask,
        outputs=2,
        attributes={"epsilon": shape.epsilon},
    )
    return outputs[0], outputs[1]


def _layer(tape: GraphTape, shape: EncoderShape, prefix: str, hidden: ir.Value, lengths: ir.Value) -> ir.Value:
    size = shape.hidden
    projections = [f"{prefix}.attention.self.{name}" for name in ("query", "key", "value")]
    attended = tape.call(
        "Attention",
        hidden,
        tape.weight(*(f"{name}.weight" for name in projections), shape=(3 * size, size), transpose=True),
        tape.weight(*(f"{name}.bias" for name in projections), shape=(3 * size,)),
        lengths,
        domain=CONTRIB,
        attributes={"num_heads": shape.heads},
    )
    hidden = _project_and_norm(tape, shape, f"{prefix}.attention.output", attended, hidden, size)
    inner = tape.call(
        "MatMul",
        hidden,
        tape.weight(f"{prefix}.intermediate.dense.weight", shape=(shape.inner, size), transpose=True),
    )
    bias = tape.weight(f"{prefix}.intermediate.dense.bias", shape=(shape.inner,))
    active = tape.call("BiasGelu", inner, bias, domain=CONTRIB)
    return _project_and_norm(tape, shape, f"{prefix}.output", active, hidden, shape.inner)


def _project_and_norm(
    tape: GraphTape, shape: EncoderShape, prefix: str, value: ir.Value, residual: ir.Value, size: int
) -> ir.Value:
    """Layer norm of residual + linear(value), the linear's bias added inside the norm's operator."""
    projected = tape.call(
        "MatMul", value, tape.weight(f"{prefix}.dense.weight", shape=(shape.hidden, size), transpose=True)
    )
    return tape.call(
        "SkipLayerNormalization",
        projected,
        residual,
        tape.weight(f"{prefix}.LayerNorm.weight", shape=(shape.hidden,)),
        tape.weight(f"{prefix}.LayerNorm.bias", shape=(shape.hidden,)),
        tape.weight(f"{prefix}.dense.bias", shape=(shape.hidden,)),
        domain=CONTRIB,
        attributes={"epsilon": shape.epsilon},
    )
