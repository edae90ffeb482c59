"""Text to token ids with the Rust tokenizers, many texts a call; what is cut is said."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.processors import TemplateProcessing

from instructmining.errors import BundleError
from instructmining.records import Part, Run, Special, Tokens

MIN_PROMPT_TOKENS = 256  # what a long response leaves of its prompt; from the original reward model's code


class TextEncoder:
    """One tokenizer; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Load a tokenizer.

        Args:
            path: a ``tokenizer.json``. Its own truncation and padding are switched off.

        Raises:
            BundleError: it cannot be read.
        """
        try:
            content = path.read_text(encoding="utf-8")
            self._tokenizer = _prepared(Tokenizer.from_str(content))
        except Exception as error:  # the Rust side raises the bare class
            raise BundleError(f"{path}: not a tokenizer: {error}") from error
        inner = _inside_a_text(content)
        self._inner = self._tokenizer if inner is None else _prepared(Tokenizer.from_str(inner))
        self._path = path

    def special(self, token: str) -> int:
        """The id of a template's special token.

        Raises:
            BundleError: the tokenizer has no such token.
        """
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise BundleError(f"{self._path}: no token {token!r}, which the template names; export the bundle again")
        return int(number)

    def plain(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Ids of each text, without special tokens: int64 (width,) each."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def rendered(self, texts: Sequence[Sequence[Part]], *, max_tokens: int) -> list[Tokens]:
        """Ids of each rendered text, its response tokens marked as scored.

        A token belongs to a response when it ends behind the response's first character. The first token of a text
        has nothing before it and is not scored. A text longer than ``max_tokens`` keeps, of all before its last
        response, the last ``max(256, max_tokens − response)`` tokens (but at most three quarters of a small limit),
        and of the response the first that then fit. A special token that begins the text stays: models read the whole
        text at it, or rest their attention on it.
        """
        runs = [part for parts in texts for part in parts if isinstance(part, Run)]
        encodings = iter(self._encodings(runs))
        return [self._join(parts, encodings, max_tokens) for parts in texts]

    def _encodings(self, runs: Sequence[Run]) -> list[Encoding]:
        """Of each run, as what begins a text or as what stands inside of one; one call for each of the two."""
        if self._inner is self._tokenizer:
            return list(self._tokenizer.encode_batch([run.text for run in runs], add_special_tokens=False))
        texts: dict[bool, list[str]] = {True: [], False: []}
        for run in runs:
            texts[run.begins].append(run.text)
        encodings = {
            begins: iter(tokenizer.encode_batch(texts[begins], add_special_tokens=False))
            for begins, tokenizer in ((True, self._tokenizer), (False, self._inner))
        }
        return [next(encodings[run.begins]) for run in runs]

    def _join(self, parts: Sequence[Part], encodings: Iterator[Encoding], max_tokens: int) -> Tokens:
        ids: list[int] = []
        spans: list[tuple[int, int]] = []  # token ranges of the responses
        closing = 0  # tokens of the template behind all content
        for part in parts:
            if isinstance(part, Special):
                ids.append(self.special(part.token))
                closing += 1
                continue
            encoding = next(encodings)
            offsets = encoding.offsets if part.responses else []
            for begin, end in part.responses:
                first = bisect_right(offsets, begin, key=lambda offset: offset[1])
                last = bisect_left(offsets, end, key=lambda offset: offset[0])
                spans.append((len(ids) + first, len(ids) + max(first, last)))
            ids += encoding.ids
            closing = closing + len(encoding.ids) if part.closing else 0
        array = np.array(ids, dtype=np.int64)
        scored = np.zeros(len(ids), dtype=bool)
        for first, last in spans:
            scored[first:last] = True
        truncated = len(ids) > max_tokens
        if truncated:
            response = spans[-1] if spans else (0, len(ids) - closing)
            opening = 1 if isinstance(parts[0], Special) else 0
            kept = _kept(len(ids), opening, response, closing, max_tokens)
            array, scored = array[kept], scored[kept]
        scored[:1] = False
        return Tokens(array, np.flatnonzero(scored), truncated)


def alone(ids: NDArray[np.int64], *, max_tokens: int, bos: int | None = None) -> Tokens:
    """A text by itself, each token from its second on scored; cut on the right at ``max_tokens``.

    Args:
        ids: int64 (width,), the text's own tokens.
        max_tokens: the limit, ``bos`` included.
        bos: the token that the model wants in front of every text; the text's first token is not scored behind it
            either, so that all models leave out the same.
    """
    own = 0 if bos is None else 1
    kept = ids[: max_tokens - own]
    truncated = len(kept) < len(ids)
    if bos is not None:
        kept = np.concatenate([np.array([bos], dtype=np.int64), kept])
    return Tokens(kept, np.arange(own + 1, len(kept), dtype=np.int64), truncated)


def _prepared(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with what it would add, cut or hide switched off."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "<|im_end|>" in a row is plain text
    # A byte-level post-processor may trim spaces from the offsets, and a response's last spaces would be lost.
    tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return tokenizer


def _inside_a_text(content: str) -> str | None:
    """The tokenizer for runs that do not begin a text, as JSON; None where it is the same one.

    SentencePiece's scheme "first" marks a word's start at offset 0 alone; a run behind a special token has none, but
    would stand at offset 0 when it is tokenized by itself.
    """
    if '"prepend_scheme"' not in content:  # large vocabularies take long to parse
        return None
    tokenizer = orjson.loads(content)
    outer = tokenizer.get("pre_tokenizer") or {}
    marks = [
        step
        for step in (outer, *outer.get("pretokenizers", ()))
        if step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first"
    ]
    for step in marks:
        step["prepend_scheme"] = "never"
    return orjson.dumps(tokenizer).decode() if marks else None


def _kept(size: int, opening: int, response: tuple[int, int], closing: int, max_tokens: int) -> NDArray[np.int64]:
    """Positions that stay of a text of ``size`` tokens, given where its last response lies, in order.

    What stands between that response and the closing tokens gives way first: it tells nothing of the response.
    """
    begin, end = response
    last = np.arange(size - closing, size)
    room = max_tokens - closing
    if end <= room:
        return np.concatenate([np.arange(room), last])
    room -= opening
    begin = max(begin, opening)
    prompt = min(begin - opening, max(min(MIN_PROMPT_TOKENS, room - room // 4), room - (end - begin)))
    return np.concatenate([np.arange(opening), np.arange(begin - prompt, begin + room - prompt), last])
