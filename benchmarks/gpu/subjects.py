"""The models that are measured: their shapes as published, with random weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.export.families import FAMILIES, Output

TINY = os.environ.get("BENCH_TINY") == "1"
REWARD_V1, REWARD_V3 = "DeBERTa-v3-large reward", "Pythia-1.4B reward"
UNIEVAL, EMBEDDING = "T5-large UniEval", "MiniLM-L6 embedding"
_TINY: dict[str, Any] = {"vocab_size": 2000, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
_TINY |= {"num_attention_heads": 2}
_TINY_T5: dict[str, Any] = {"vocab_size": 2000, "d_model": 128, "d_ff": 256, "num_layers": 2, "num_heads": 2}
_FAMILY_LENGTH = 512


@dataclass(frozen=True, slots=True)
class Subject:
    """A model as it is published, but for its weights."""

    name: str
    output: Output
    kind: str  # its classes' name in transformers, without their endings
    head: str  # the ending of the model's class
    max_length: int
    config: Mapping[str, Any]
    gigabytes: float = 0.0  # of its float16 weights, where they need care

    @property
    def words(self) -> int:
        """Size of the vocabulary."""
        return int(self.config["vocab_size"])

    @property
    def slug(self) -> str:
        """The name in file names."""
        return self.name.lower().replace(" ", "-")

    @property
    def decoder(self) -> bool:
        """Whether no token sees those after it."""
        return self.output == "nll" or self.kind == "GPTNeoX"


_LLAMA = {"rms_norm_eps": 1e-5, "tie_word_embeddings": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_PUBLISHED = (
    Subject(
        "SmolLM2-135M perplexity", "nll", "Llama", "ForCausalLM", 2048,
        _LLAMA | {
            "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rope_theta": 1e5,
        },
    ),
    Subject(
        "Llama-1B perplexity", "nll", "Llama", "ForCausalLM", 2048,
        _LLAMA | {
            "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 5e5,
        },
    ),
    Subject(
        EMBEDDING, "embedding", "Bert", "Model", 256,
        {
            "vocab_size": 30522, "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6,
            "num_attention_heads": 12, "max_position_embeddings": 512, "pad_token_id": 0,
        },
    ),
    Subject(
        REWARD_V1, "reward", "DebertaV2", "ForSequenceClassification", 512,
        {
            "vocab_size": 128100, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "max_position_embeddings": 512, "relative_attention": True,
            "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "max_relative_positions": -1,
            "type_vocab_size": 0, "num_labels": 1, "pad_token_id": 0,
        },
    ),
    Subject(
        REWARD_V3, "reward", "GPTNeoX", "Model", 2048,
        {
            "vocab_size": 50288, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
            "num_attention_heads": 16, "max_position_embeddings": 2048, "rotary_pct": 0.25,
            "use_parallel_residual": True, "pad_token_id": 0,
        },
    ),
    Subject(
        UNIEVAL, "yes", "T5", "ForConditionalGeneration", 1024,
        {
            "vocab_size": 32128, "d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_heads": 16,
            "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0,
            "pad_token_id": 0, "eos_token_id": 1,
        },
    ),
    Subject(
        "Llama-7B perplexity", "nll", "Llama", "ForCausalLM", 2048,
        _LLAMA | {
            "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 1e4,
            "tie_word_embeddings": False,
        },
        gigabytes=14.5,
    ),
)  # fmt: skip


def _shrunk(subject: Subject) -> Subject:
    """The same with two small layers, where BENCH_TINY is set."""
    if not TINY:
        return subject
    grouped = {"num_key_value_heads": 1} if "num_key_value_heads" in subject.config else {}
    changes = _TINY_T5 if subject.kind == "T5" else _TINY | grouped
    return replace(subject, config={**subject.config, **changes}, gigabytes=subject.gigabytes / 1000)


SUBJECTS = tuple(map(_shrunk, _PUBLISHED))
# One small model of each family that the exporter has.
FAMILY_SUBJECTS = tuple(
    Subject(name, family.output, family.name, family.head, _FAMILY_LENGTH, family.config)
    for name, family in FAMILIES.items()
)


def named(*names: str) -> list[Subject]:
    """Subjects by their full names, in this order."""
    return [subject for name in names for subject in SUBJECTS if subject.name == name]
