"""Reads what transformers 4 and 5 each write with either version installed: the one place that tells them apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

IS_VERSION_4 = int(transformers.__version__.split(".")[0]) < 5
# ModernBERT's rotary settings: key of version 5's ``rope_parameters`` → version 4's setting.
_THETA_BY_LAYER = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
_GEMMA3_THETA_BY_LAYER = {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"}
_ROTARY_SETTINGS = "rope_scaling" if IS_VERSION_4 else "rope_parameters"
# What the functions of scaled frequencies read from a config besides these.
_SIZES = (
    "head_dim",
    "hidden_size",
    "max_position_embeddings",
    "num_attention_heads",
    "original_max_position_embeddings",
    "partial_rotary_factor",
)
_PHI3_SCALING = ("type", "short_factor", "long_factor")  # version 4 refuses a dictionary with any other key


class TokenizersBackend(PreTrainedTokenizerFast):
    """Version 5's name for a tokenizer without a class of its own, for version 4, which looks for the name."""


def config_changes(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that version 5 writes under names that version 4 ignores; empty under version 5.

    Version 5 reads the names of both; version 4 would silently take its defaults.

    Args:
        raw: the content of ``config.json``.
    """
    if not IS_VERSION_4:
        return {}
    if text := raw.get("text_config"):
        return {"text_config": {**text, **config_changes(text)}}
    changes = _rotary(raw)
    # Version 5 writes tie_word_embeddings = true for every T5, and here whether it was so.
    if "scale_decoder_outputs" in raw:
        changes["tie_word_embeddings"] = raw["scale_decoder_outputs"]
    return changes


def graph_settings(config: PretrainedConfig) -> dict[str, Any]:
    """Return a config as a dictionary, in which a T5's ``tie_word_embeddings`` is what its file says, as in version 4.

    T5 1.0 shares its word embeddings with its output layer and scales the states before it; T5 1.1 does neither.
    Version 5 sets ``tie_word_embeddings`` to true for both, and keeps the difference elsewhere.
    """
    settings: dict[str, Any] = config.to_dict()
    if "scale_decoder_outputs" in settings:
        settings["tie_word_embeddings"] = settings["scale_decoder_outputs"]
    if settings.get("use_bidirectional_attention"):
        # Gemma 3 halves the file's window, which spans both sides; version 5 writes the whole, 4 what it made of it.
        settings["sliding_window"] = config.sliding_window
    return settings


def rotary_by_layer(config: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]] | None:
    """Return the config for each kind of layer, with the kind's rotary settings; None where all have the same.

    Args:
        config: as :func:`graph_settings` returns it.
    """
    parameters = config.get("rope_parameters") or {}
    by_kind = {kind: parameters[kind] for kind in _THETA_BY_LAYER if isinstance(parameters.get(kind), Mapping)}
    if by_kind:
        return {kind: {**config, "rope_parameters": settings} for kind, settings in by_kind.items()}
    local = config.get("rope_local_base_freq")
    if local is None:
        return None
    return {
        "full_attention": config,
        "sliding_attention": {**config, "rope_theta": local, "rope_scaling": None, "rope_parameters": None},
    }


def scaled_frequencies(
    config: Mapping[str, Any], parameters: Mapping[str, Any], *, max_length: int
) -> tuple[torch.Tensor, float]:
    """Compute a rotary embedding's frequencies and the factor of its cosines and sines by transformers' own function.

    Args:
        config: of any version.
        parameters: of the scaling, with ``rope_type``, which is not "default", and ``rope_theta``.
        max_length: tokens of the longest text.
    """
    filled = PretrainedConfig()
    sizes = {name: config[name] for name in _SIZES if config.get(name) is not None}
    for name, value in {**sizes, "rope_theta": parameters["rope_theta"], _ROTARY_SETTINGS: dict(parameters)}.items():
        setattr(filled, name, value)
    return ROPE_INIT_FUNCTIONS[parameters["rope_type"]](filled, torch.device("cpu"), seq_len=max_length)


def load_fast_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder with ``tokenizer_config.json``, whichever version wrote it.

    Where there is a ``tokenizer.json``, texts are tokenized as it says. Version 5 has classes that take only the
    vocabulary from it, and then cut words as they think fit; these are passed over.
    """
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    has_file = (folder / "tokenizer.json").is_file()
    arguments: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    loader: Any = AutoTokenizer
    if not IS_VERSION_4:
        loader = PreTrainedTokenizerFast if has_file else AutoTokenizer
    elif settings.get("tokenizer_class") == TokenizersBackend.__name__:
        loader = TokenizersBackend
    extra = settings.get("extra_special_tokens")
    if IS_VERSION_4 and isinstance(extra, list):  # version 4 has a dictionary here, and keeps the list elsewhere
        arguments |= {"extra_special_tokens": {}, "additional_special_tokens": extra}
    loaded: PreTrainedTokenizerBase = loader.from_pretrained(folder, **arguments)
    if loaded.is_fast and _adds_nothing(loaded.backend_tokenizer):
        loaded.backend_tokenizer.post_processor = None
    return loaded


def _adds_nothing(tokenizer: Tokenizer) -> bool:
    """Return whether the post-processing is version 5's stand-in for none."""
    processing = json.loads(tokenizer.to_str())["post_processor"] or {}
    return processing.get("type") == "TemplateProcessing" and not processing["special_tokens"]


def _rotary(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return version 4's settings of rotary embeddings for version 5's ``rope_parameters``."""
    parameters = dict(raw.get("rope_parameters") or {})
    if set(parameters) & set(_THETA_BY_LAYER):
        names = _THETA_BY_LAYER if raw.get("model_type") == "modernbert" else _GEMMA3_THETA_BY_LAYER
        changes = {
            names[kind]: layer["rope_theta"]
            for kind, layer in parameters.items()
            if kind in names and "rope_theta" in layer
        }
        scaling = {k: v for k, v in (parameters.get("full_attention") or {}).items() if k != "rope_theta"}
        scaled = scaling.get("rope_type", "default") != "default"
        return changes | ({"rope_scaling": scaling} if scaled else {})
    neox = "gpt_neox" in str(raw.get("model_type"))
    changes = {}
    if (theta := parameters.pop("rope_theta", None)) is not None:
        changes |= {"rope_theta": theta} | ({"rotary_emb_base": theta} if neox else {})
    if (share := parameters.pop("partial_rotary_factor", None)) is not None:
        changes |= {"partial_rotary_factor": share} | ({"rotary_pct": share} if neox else {})
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        if raw.get("model_type") == "phi3":
            parameters = {name: value for name, value in parameters.items() if name in _PHI3_SCALING} | {"type": kind}
        changes["rope_scaling"] = parameters
    return changes
