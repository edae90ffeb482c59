"""How families of gated decoders differ from Llama, and what their configs say of each layer's attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from instructmining.errors import ExportError
from instructmining_export.graphs.decoder_attention import DecoderAttention
from instructmining_export.graphs.rotary import Rotary
from instructmining_export.transformers_versions import rotary_by_layer

QueryKeyNorm: TypeAlias = Literal["head", "all heads"]
_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, slots=True)
class Norms:
    """Names of a layer's norms, by where they stand; None where there is none."""

    before_attention: str | None = "input_layernorm"
    after_attention: str | None = None
    before_feed_forward: str | None = "post_attention_layernorm"
    after_feed_forward: str | None = None
    from_one: bool = False  # whether the checkpoint holds the weights minus one


_BEFORE = Norms()


@dataclass(frozen=True, slots=True)
class Family:
    """How a family's layers differ from Llama's."""

    norms: Norms = _BEFORE
    query_key_norm: QueryKeyNorm | None = None  # RMS norm of queries and keys, of each head or of all together
    packed: bool = False  # query, key and value are one tensor in the checkpoint, and so are gate and up
    activation: str = "hidden_act"  # the config's key of it
    usual_activation: str = "silu"
    scaled_words: bool = False  # word embeddings are multiplied by √hidden
    tied: bool = False  # whether the vocabulary matrix is the embedding table where the config does not say
    capped: bool = False  # attention's scores have the bound that the config states
    biased: bool | None = None  # whether query, key and value alone have biases; None: as the config says, and output


_BOTH_SIDES = Norms(
    after_attention="post_attention_layernorm",
    before_feed_forward="pre_feedforward_layernorm",
    after_feed_forward="post_feedforward_layernorm",
    from_one=True,
)
_AFTER = Norms(
    before_attention=None,
    after_attention="post_attention_layernorm",
    before_feed_forward=None,
    after_feed_forward="post_feedforward_layernorm",
)
_GEMMA: dict[str, Any] = {
    "activation": "hidden_activation",
    "usual_activation": "gelu_pytorch_tanh",
    "scaled_words": True,
    "tied": True,
}
FAMILIES: Mapping[str, Family] = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(biased=True),
    "qwen3": Family(query_key_norm="head"),
    "gemma": Family(norms=Norms(from_one=True), **_GEMMA),
    "gemma2": Family(norms=_BOTH_SIDES, capped=True, **_GEMMA),
    "gemma3_text": Family(norms=_BOTH_SIDES, query_key_norm="head", **_GEMMA),
    "granite": Family(),
    "olmo2": Family(norms=_AFTER, query_key_norm="all heads"),
    "phi3": Family(packed=True),
    "smollm3": Family(tied=True),
}


def attentions(config: Mapping[str, Any], family: Family, *, max_length: int) -> tuple[DecoderAttention, ...]:
    """Read the attention of each layer.

    Raises:
        ExportError: a layer is of an unknown kind, or its positions are not supported.
    """
    heads = config["num_attention_heads"]
    kinds = _kinds(config)
    rotary = _rotary(config, max_length)
    rotated = config.get("no_rope_layers") or [1] * len(kinds)
    causal = not config.get("use_bidirectional_attention")
    return tuple(
        DecoderAttention(
            heads=heads,
            key_value_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            rotary=rotary[kind] if has_positions else None,
            window=_window(config, max_length) if kind == _SLIDING else -1,
            scale=_scale(config),
            softcap=float(config.get("attn_logit_softcapping") or 0.0) if family.capped else 0.0,
            causal=causal,
        )
        for kind, has_positions in zip(kinds, rotated, strict=False)
    )


def _kinds(config: Mapping[str, Any]) -> Sequence[str]:
    """Return the kind of each layer; where the config has no list, all have the window if there is one."""
    kinds: Sequence[str] = config.get("layer_types") or [_SLIDING] * config["num_hidden_layers"]
    if unknown := sorted(set(kinds) - {_FULL, _SLIDING}):
        raise ExportError(f"layers of type {unknown[0]!r}: wanted {_FULL} or {_SLIDING}")
    return kinds


def _window(config: Mapping[str, Any], max_length: int) -> int:
    """Return the tokens of a sliding window that is narrower than the longest text; -1 for none."""
    window = config.get("sliding_window")
    if not window or window >= max_length or config.get("use_sliding_window") is False:
        return -1
    return int(window)


def _scale(config: Mapping[str, Any]) -> float | None:
    """Return the factor of query-key products; None for 1/√head_size."""
    if (squared := config.get("query_pre_attn_scalar")) is not None:
        return float(squared**-0.5)
    multiplier = config.get("attention_multiplier")
    return None if multiplier is None else float(multiplier)


def _rotary(config: Mapping[str, Any], max_length: int) -> Mapping[str, Rotary]:
    """Return the rotary embedding of each kind of layer."""
    by_kind = rotary_by_layer(config)
    if by_kind is None:
        return dict.fromkeys((_FULL, _SLIDING), Rotary.from_config(config, max_length=max_length))
    return {
        kind: Rotary.from_config(settings, max_length=max_length, name=f"rotary_{kind}")
        for kind, settings in by_kind.items()
    }
