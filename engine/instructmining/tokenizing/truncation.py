"""Truncates texts that are longer than a model's limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_PROMPT_TOKENS = 256  # tokens of the prompt that a long response leaves; from the original reward model's code


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text of one row, ready for a graph."""

    ids: NDArray[np.int64]  # (width,)
    scored: NDArray[np.int64]  # (n,) positions of the tokens whose likelihood is computed, each at least 1
    truncated: bool = False  # the model sees less than the whole text


def truncated(
    ids: NDArray[np.int32],
    responses: Sequence[tuple[int, int]],
    *,
    opening: int,
    closing: int,
    max_length: int,
) -> Tokens:
    """Mark the response tokens of a rendered text as scored, and truncate it to the limit.

    It keeps the last ``max(256, max_length − response)`` tokens before its last response (at most three quarters of a
    small limit), and as many of the response's first tokens as then fit. The first token has no context and is not
    scored.

    Args:
        ids: int32 (width,), tokens of the whole text.
        responses: token ranges of the responses, in order.
        opening: number of tokens at the start that stay.
        closing: number of tokens at the end that stay.
        max_length: limit in tokens.
    """
    if len(ids) <= max_length:
        return Tokens(ids.astype(np.int64), _positions(responses))
    last = responses[-1] if responses else (0, len(ids) - closing)
    kept = _kept(len(ids), opening, last, closing, max_length)
    scored = _is_in(kept, responses)
    scored[:1] = False
    return Tokens(ids[kept].astype(np.int64), np.flatnonzero(scored), truncated=True)


def alone(ids: NDArray[np.int32], *, max_length: int, bos: int | None = None) -> Tokens:
    """Return a text by itself, each token from its second on scored; cut on the right at ``max_length``.

    Args:
        ids: int32 (width,), the text's own tokens.
        max_length: limit in tokens, with ``bos``.
        bos: token that the model expects before every text. The text's first token is not scored after it either, so
            that all models omit the same token.
    """
    own = 0 if bos is None else 1
    kept = ids[: max_length - own]
    truncated = len(kept) < len(ids)
    if bos is not None:
        kept = np.concatenate([np.array([bos], dtype=np.int64), kept])
    return Tokens(kept.astype(np.int64), np.arange(own + 1, len(kept), dtype=np.int64), truncated)


def _positions(spans: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return the positions in the ranges, in order, without the first of a text."""
    ranges = [np.arange(max(first, 1), last) for first, last in spans]
    return ranges[0] if len(ranges) == 1 else np.concatenate([np.empty(0, dtype=np.int64), *ranges])


def _is_in(positions: NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Return whether each position is in one of the ranges, which are in order."""
    if not spans:
        return np.zeros(len(positions), dtype=bool)
    ranges = np.array(spans, dtype=np.int64)
    last = np.maximum.accumulate(ranges[:, 1])
    span = np.searchsorted(ranges[:, 0], positions, side="right") - 1
    inside: NDArray[np.bool_] = (span >= 0) & (positions < last[span])
    return inside


def _kept(size: int, opening: int, response: tuple[int, int], closing: int, max_length: int) -> NDArray[np.int64]:
    """Return the positions to keep of a text of ``size`` tokens, given the place of its last response, in order.

    Tokens between that response and the closing tokens are dropped first: they do not affect the response.
    """
    begin, end = response
    last = np.arange(size - closing, size)
    room = max_length - closing
    if end <= room:
        return np.concatenate([np.arange(room), last])
    room -= opening
    begin = max(begin, opening)
    prompt = min(begin - opening, max(min(MIN_PROMPT_TOKENS, room - room // 4), room - (end - begin)))
    return np.concatenate([np.arange(opening), np.arange(begin - prompt, begin + room - prompt), last])
