"""Maps model families to their graphs, and limits text lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from transformers import PretrainedConfig

from instructmining.errors import ExportError
from instructmining_export.graphs import decoder, decoder_families, encoder
from instructmining_export.graphs.bidirectional import BidirectionalBackbone, SentenceBackbone
from instructmining_export.graphs.causal import CausalBackbone
from instructmining_export.graphs.deberta import Deberta
from instructmining_export.graphs.encoder import PostNormEncoder
from instructmining_export.graphs.gpt2 import GPT2
from instructmining_export.graphs.gpt_neox import GPTNeoX
from instructmining_export.graphs.modernbert import ModernBert
from instructmining_export.graphs.t5 import T5
from instructmining_export.originals import REWARD_GPT_NEOX

CAUSAL: Mapping[str, type[CausalBackbone]] = {
    **dict.fromkeys(decoder_families.FAMILIES, decoder.GatedDecoder),
    "gpt2": GPT2,
    "gpt_neox": GPTNeoX,
}
REWARD_DECODERS: Mapping[str, type[CausalBackbone]] = {**CAUSAL, REWARD_GPT_NEOX: GPTNeoX}
ENCODERS: Mapping[str, type[BidirectionalBackbone]] = {
    **dict.fromkeys(encoder.FAMILIES, PostNormEncoder),
    "deberta-v2": Deberta,
    "modernbert": ModernBert,
}
SENTENCE_DECODERS = dict.fromkeys(decoder_families.FAMILIES, decoder.SentenceDecoder)
SENTENCE_ENCODERS: Mapping[str, type[SentenceBackbone]] = {**ENCODERS, **SENTENCE_DECODERS}
SEQUENCE_TO_SEQUENCE = {"t5": T5}
_AFTER_PADDING = frozenset(
    {"camembert", "data2vec-text", "ibert", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"}
)
DEFAULT_MAX_LENGTH = 2048  # attention costs grow with the square of this; --max-length raises it
_Graph = TypeVar("_Graph")


def choose(table: Mapping[str, _Graph], config: PretrainedConfig, *, wanted_for: str) -> _Graph:
    """Return the graph of a config's family.

    Raises:
        ExportError: the role does not support the family.
    """
    if config.model_type not in table:
        raise ExportError(unknown(table, config, wanted_for=wanted_for))
    return table[config.model_type]


def unknown(table: Mapping[str, _Graph], config: PretrainedConfig, *, wanted_for: str) -> str:
    """Return the message that a role has no graph of the config's family."""
    return (
        f"a model of family {config.model_type!r} was given for the role {wanted_for}; "
        f"wanted one of {', '.join(sorted(table))}"
    )


def positions(config: PretrainedConfig) -> int | None:
    """Return the tokens of the longest text that the model has positions for; None where positions are relative."""
    if config.model_type in SEQUENCE_TO_SEQUENCE or getattr(config, "position_biased_input", True) is False:
        return None
    limit: int | None = getattr(config, "max_position_embeddings", None)
    if limit is not None and limit < 1:  # XLNet's
        return None
    if limit is not None and config.model_type in _AFTER_PADDING:
        return limit - 1 - int(config.pad_token_id or 0)  # their positions begin after the padding's
    if limit is not None and config.model_type == "mpnet":
        return limit - 2  # the same, but transformers always takes 1 as padding id
    return limit


def limit_tokens(config: PretrainedConfig, *, asked: int | None, usual: int = DEFAULT_MAX_LENGTH) -> int:
    """Return the length limit of a role's texts, in tokens.

    Args:
        config: of the model.
        asked: the user's limit.
        usual: the limit where the user sets none.

    Raises:
        ExportError: the user's limit exceeds the model's positions.
    """
    most = positions(config)
    if asked is not None:
        if most is not None and asked > most:
            raise ExportError(f"--max-length {asked}: the model has {most} positions; give {most} or less")
        return asked
    return usual if most is None else min(usual, most)
