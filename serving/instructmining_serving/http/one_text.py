"""Texts alone through a model, as its own library would give them: without the template of the bundle."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import Role
from instructmining.scorer.requests import Texts
from instructmining.tokenizing.truncation import Tokens
from instructmining_serving.http.prompts import Prompt, token_ids
from instructmining_serving.raw_texts import Cut
from instructmining_serving.service import ScoringService

_NOT_POSITIONS = np.empty(0, dtype=np.int64)


async def embeddings_of(
    service: ScoringService, texts: Sequence[Prompt], param: str, *, cut: Cut | None = None
) -> tuple[NDArray[np.float32], int]:
    """Return a vector of length 1 for each text, float32 (texts, size), and the number of tokens.

    Args:
        service: that computes.
        texts: texts, or their ids.
        param: where they come from.
        cut: how longer texts are shortened; None refuses them.

    Raises:
        NotServedError: the embedding model is not open.
        ParameterError: a text is too long, or an id is not in the vocabulary.
    """
    role = service.role("embedding", ["embedding"])
    tokenizer = service.raw_tokenizers["embedding"]
    return await _computed(service, role, "embedding", texts, param, lambda text: tokenizer.document(text, cut=cut))


async def rewards_of(
    service: ScoringService, texts: Sequence[Prompt], param: str, *, special: bool = True, cut: Cut | None = None
) -> tuple[NDArray[np.float32], int]:
    """Return the reward model's raw logit of each text, float32 (texts,), and the number of tokens.

    Args:
        service: that computes.
        texts: whole conversations as the model reads them, or their ids.
        param: where they come from.
        special: whether the token goes before a text that the model's tokenizer puts there.
        cut: how longer texts are shortened; None refuses them.

    Raises:
        NotServedError: the reward model is not open.
        ParameterError: a text is too long, or an id is not in the vocabulary.
    """
    role = service.role("reward", ["reward"])
    tokenizer = service.raw_tokenizers["reward"]
    values, tokens = await _computed(
        service, role, "reward", texts, param, lambda text: tokenizer.prompt(text, special=special, cut=cut)
    )
    return values.reshape(len(texts)), tokens


async def _computed(
    service: ScoringService,
    role: Role,
    output: str,
    texts: Sequence[Prompt],
    param: str,
    encode: Callable[[str], NDArray[np.int64]],
) -> tuple[NDArray[np.float32], int]:
    service.check_rows(len(texts))
    # A role that shares its graph with this one has the same tokenizer.
    tokenizer = service.raw_tokenizers[role.name]
    ids = await service.tokenize(
        lambda: token_ids(list(texts), param, tokenizer, encode, generated=0, max_length=role.max_length),
        size=sum(map(len, texts)),
    )
    part = Texts(role, (output,), [Tokens(each, _NOT_POSITIONS) for each in ids])
    (found,) = await service.compute([part])
    return found[output], sum(map(len, ids))


def activated(values: NDArray[np.floating], *, raw: bool) -> NDArray[np.float64]:
    """Return raw logits, or their sigmoid as vLLM and text-embeddings-inference give for a model with one label."""
    logits = values.astype(np.float64)
    return logits if raw else np.exp(-np.logaddexp(0.0, -logits))


def numbers(values: NDArray[np.floating], form: str) -> list[object]:
    """Return rows as lists of numbers ("float"), or as float32 in base64, the lowest byte first ("base64")."""
    if form == "base64":
        return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in values]
    return list(values.tolist())


def source_id(role: Role) -> str:
    """Return the name of the model that a role was exported from."""
    return str(role.source.get("id", role.name))
