"""Text to token ids with the Rust tokenizers, many texts a call; what is cut is said."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
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
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust side raises the bare class
            raise BundleError(f"{path}: not a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # "<|im_end|>" in a row is plain text
        # A byte-level post-processor may trim spaces from the offsets, and a response's last spaces would be lost.
        self._tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
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
        and of the response the first that then fit.
        """
        runs = [part for parts in texts for part in parts if isinstance(part, Run)]
        encodings = iter(self._tokenizer.encode_batch([run.text for run in runs], add_special_tokens=False))
        return [self._join(parts, encodings, max_tokens) for parts in texts]

    def _join(self, parts: Sequence[Part], encodings: Iterator[Encoding], max_tokens: int) -> Tokens:
        ids: list[int] = []
        spans: list[tuple[int, int]] = []  # token ranges of the responses
        closing = 0  # special tokens at the end
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
            closing = 0
        array = np.array(ids, dtype=np.int64)
        scored = np.zeros(len(ids), dtype=bool)
        for first, last in spans:
            scored[first:last] = True
        truncated = len(ids) > max_tokens
        if truncated:
            begin, end = spans[-1] if spans else (0, len(ids) - closing)
            kept = _kept(len(ids), begin, end, closing, max_tokens)
            array, scored = array[kept], scored[kept]
        scored[:1] = False
        return Tokens(array, np.flatnonzero(scored), truncated)


def alone(ids: NDArray[np.int64], *, max_tokens: int) -> Tokens:
    """A text by itself, each token from the second on scored; cut on the right at ``max_tokens``."""
    kept = ids[:max_tokens]
    return Tokens(kept, np.arange(1, len(kept), dtype=np.int64), len(ids) > max_tokens)


def _kept(size: int, begin: int, end: int, closing: int, max_tokens: int) -> NDArray[np.int64]:
    """Positions that stay of a text whose last response lies at begin..end, in order.

    What stands between that response and the closing special tokens gives way first: it tells nothing of the response.
    """
    room = max_tokens - closing
    if end <= room:
        return np.concatenate([np.arange(room), np.arange(size - closing, size)])
    prompt = min(begin, max(min(MIN_PROMPT_TOKENS, room - room // 4), room - (end - begin)))
    return np.concatenate(
        [
            np.arange(begin - prompt, begin + room - prompt),
            np.arange(size - closing, size),
        ]
    )
