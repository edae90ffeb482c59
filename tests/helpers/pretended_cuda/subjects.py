"""Models of each family with heads of true size, else small and of random weights, and their graphs."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import transformers as hf

from instructmining_export import families, originals
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs import bidirectional, causal, t5
from instructmining_export.graphs.causal import LinearHead
from instructmining_export.graphs.graph_builder import DeviceKind, GraphBuilder, Weights
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save
from instructmining_export.transformers_versions import graph_settings

PrecisionName: TypeAlias = Literal["fp16", "fp32"]
Output: TypeAlias = Literal["nll", "reward", "embedding", "yes"]

MAX_LENGTH = 1024
PRECISIONS: tuple[PrecisionName, ...] = ("fp16", "fp32")
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_MODEL: dict[str, Any] = _SPECIAL | {
    "vocab_size": 2000,
    "max_position_embeddings": 2048,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
}
_GROUPED = _MODEL | {"hidden_size": 512, "num_key_value_heads": 2, "head_dim": 128}


@dataclass(frozen=True, slots=True)
class Subject:
    """A family, as one of its published models has it but for width and depth."""

    output: Output
    kind: str  # its classes' name in transformers, without their endings
    head: str  # the ending of the model's class
    config: Mapping[str, Any]
    layers: tuple[str, ...] = ("num_hidden_layers",)  # the keys of the config that count layers

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return self.output == "nll" or self.kind == "GPTNeoX"


SUBJECTS: Mapping[str, Subject] = {
    "Llama (SmolLM2)": Subject(
        "nll", "Llama", "ForCausalLM",
        _MODEL | {"hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True},
    ),
    "Mistral, window": Subject("nll", "Mistral", "ForCausalLM", _GROUPED | {"sliding_window": 256}),
    "Qwen2": Subject("nll", "Qwen2", "ForCausalLM", _MODEL | {"hidden_size": 512, "num_key_value_heads": 2}),
    "Qwen3": Subject("nll", "Qwen3", "ForCausalLM", _GROUPED | {"num_attention_heads": 8}),
    "Gemma": Subject("nll", "Gemma", "ForCausalLM", _GROUPED | {"num_key_value_heads": 1, "head_dim": 256}),
    "Gemma 2, windows, bounds": Subject(
        "nll", "Gemma2", "ForCausalLM", _GROUPED | {"head_dim": 256, "sliding_window": 256},
    ),
    "Gemma 3, windows": Subject(
        "nll", "Gemma3", "ForCausalLM",
        _GROUPED | {"num_key_value_heads": 1, "head_dim": 256, "sliding_window": 256, "sliding_window_pattern": 2},
    ),
    "Granite": Subject(
        "nll", "Granite", "ForCausalLM",
        _MODEL | {
            "hidden_size": 512, "num_key_value_heads": 2, "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
            "attention_multiplier": 0.015625, "logits_scaling": 8.0,
        },
    ),
    "OLMo 2": Subject("nll", "Olmo2", "ForCausalLM", _MODEL | {"hidden_size": 512}),
    "SmolLM3": Subject("nll", "SmolLM3", "ForCausalLM", _GROUPED | {"no_rope_layer_interval": 2}),
    "Phi-3": Subject("nll", "Phi3", "ForCausalLM", _MODEL | {"hidden_size": 768, "num_attention_heads": 8}),
    "Phi-4-mini": Subject(
        "nll", "Phi3", "ForCausalLM",
        _MODEL | {
            "hidden_size": 768, "num_attention_heads": 6, "num_key_value_heads": 2, "partial_rotary_factor": 0.75,
            "tie_word_embeddings": True, "original_max_position_embeddings": 1024,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [4.0] * 48},
        },
    ),
    "Qwen3 embedding": Subject("embedding", "Qwen3", "Model", _GROUPED | {"num_attention_heads": 8}),
    "Gemma 3 embedding, windows": Subject(
        "embedding", "Gemma3", "TextModel",
        _GROUPED | {
            "num_key_value_heads": 1, "head_dim": 256, "sliding_window": 256, "sliding_window_pattern": 2,
            "use_bidirectional_attention": True,
        },
    ),
    "GPT-2": Subject(
        "nll", "GPT2", "LMHeadModel",
        _SPECIAL | {"vocab_size": 2000, "n_embd": 256, "n_head": 4, "n_positions": 1024}, ("n_layer",),
    ),
    "GPT-NeoX reward (Pythia)": Subject(
        "reward", "GPTNeoX", "Model",
        _MODEL | {"hidden_size": 512, "rotary_pct": 0.25, "use_parallel_residual": True},
    ),
    "BERT (MiniLM)": Subject("embedding", "Bert", "Model", _MODEL | {"hidden_size": 384, "num_attention_heads": 12}),
    "RoBERTa reward": Subject(
        "reward", "Roberta", "ForSequenceClassification",
        _MODEL | {"num_labels": 1, "pad_token_id": 1, "type_vocab_size": 1},
    ),
    "MPNet": Subject("embedding", "MPNet", "Model", _MODEL | {"pad_token_id": 1}),
    "ModernBERT, windows": Subject("embedding", "ModernBert", "Model", _MODEL | {"local_attention": 128}),
    "DeBERTa reward": Subject(
        "reward", "DebertaV2", "ForSequenceClassification",
        _MODEL | {
            "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "max_relative_positions": -1,
            "type_vocab_size": 0, "num_labels": 1,
        },
    ),
    "T5 (UniEval)": Subject(
        "yes", "T5", "ForConditionalGeneration",
        {
            "vocab_size": 2000, "d_model": 256, "d_kv": 64, "d_ff": 512, "num_heads": 4, "num_decoder_layers": 2,
            "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0,
            "pad_token_id": 0, "eos_token_id": 1,
        },
        ("num_layers",),
    ),
}  # fmt: skip


def write_graph(
    subject: Subject,
    folder: Path,
    *,
    layers: int,
    precision: PrecisionName,
    words: int | None = None,
    device: DeviceKind = "cuda",
) -> Path:
    """Write the graph that a kind of device gets.

    Args:
        subject: the family.
        folder: new or of the same model in another precision.
        layers: of the encoder, where there is a decoder as well.
        precision: "fp16" or "fp32".
        words: size of the vocabulary; None for a few.
        device: the kind.
    """
    checkpoint = Checkpoint(folder)
    if not (folder / "config.json").exists():
        torch.manual_seed(5)
        changed = dict.fromkeys(subject.layers, layers) | ({} if words is None else {"vocab_size": words})
        made = getattr(hf, subject.kind + ("TextConfig" if subject.kind == "Gemma3" else "Config"))
        config = made(**(deepcopy(dict(subject.config)) | changed))
        getattr(hf, subject.kind + subject.head)(config).save_pretrained(folder)
    path = folder / precision / "model.onnx"
    path.parent.mkdir()
    with checkpoint.weights() as weights:
        save(_graph(subject, checkpoint, weights, Precision(precision), device).model(), path)
    return path


def _graph(
    subject: Subject, checkpoint: Checkpoint, weights: Weights, precision: Precision, device: DeviceKind
) -> GraphBuilder:
    config = originals.read_config(checkpoint)
    table: Mapping[str, Any] = families.CAUSAL if subject.causal else families.ENCODERS
    if subject.output == "embedding":
        table = families.SENTENCE_ENCODERS
    if subject.output == "yes":
        table = families.SEQUENCE_TO_SEQUENCE
    backbone = table[config.model_type].from_config(graph_settings(config), max_length=MAX_LENGTH)
    if subject.causal:
        head = None if subject.output == "nll" else _reward_head(subject.config["hidden_size"])
        return causal.build(backbone, weights, vocabulary=head is None, reward=head, precision=precision, device=device)
    if subject.output == "embedding":
        return bidirectional.build_embedding(backbone, weights, pooling="mean", precision=precision, device=device)
    if subject.output == "reward":
        return bidirectional.build_reward(backbone, weights, separator=3, precision=precision, device=device)
    return t5.build(backbone, weights, yes=5, no=9, precision=precision, device=device)


def _reward_head(hidden: int) -> LinearHead:
    return LinearHead(np.full((1, hidden), 0.01, dtype=np.float32), np.zeros(1, dtype=np.float32))
