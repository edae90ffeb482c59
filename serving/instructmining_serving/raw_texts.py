"""Texts as a model's own library tokenizes them: no template, and special tokens in a text are special."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from instructmining.bundle import Role
from instructmining.errors import BundleError, RowError
from instructmining.tokenizing.tokenizer import MOST_PIECE, tokenizer_errors


class RawTokenizer:
    """The tokenizer of a role; safe to share between threads.

    Rows of a user go through :class:`~instructmining.tokenizing.tokenizer.TextEncoder` instead, where no text becomes a
    special token. Here clients write the whole of what the model reads.
    """

    def __init__(self, role: Role) -> None:
        """Load it.

        Raises:
            BundleError: the file cannot be read, or lacks a special token of the role.
        """
        with tokenizer_errors(role.tokenizer, "not a tokenizer"):
            self._tokenizer = Tokenizer.from_file(str(role.tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.words = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._path = role.tokenizer
        self._begin = [] if role.bos is None else [self._id(role.bos)]
        self._around = [
            [self._id(token) for kind, token in role.template.gaps.get(gap, ()) if kind in ("bos", "special")]
            for gap in ("start>document", "document>end")
        ]
        self._strings: dict[int, str] = {}
        self._anchor: list[int] = self._tokenizer.encode("a", add_special_tokens=False).ids
        self._before = len(self.text(self._anchor))

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise BundleError(f"{self._path}: no token {token!r}, which the role names; export the bundle again")
        return int(number)

    def prompt(self, text: str, *, special: bool = True) -> NDArray[np.int64]:
        """Return the ids of a text that a language model continues, int64 (width,).

        Args:
            text: what the model reads.
            special: whether the token goes before it that the model's tokenizer puts there.

        Raises:
            RowError: the text is too long for the tokenizer.
            BundleError: the tokenizer fails on it.
        """
        return self._ids(self._begin if special else [], text, [])

    def document(self, text: str) -> NDArray[np.int64]:
        """Return the ids of a text for an encoder, between its special tokens and without a prompt, int64 (width,).

        Raises:
            RowError: the text is too long for the tokenizer.
            BundleError: the tokenizer fails on it.
        """
        begin, end = self._around
        return self._ids(begin, text, end)

    def _ids(self, begin: Sequence[int], text: str, end: Sequence[int]) -> NDArray[np.int64]:
        if len(text) > MOST_PIECE:
            raise RowError(f"has {len(text):,} characters, more than the {MOST_PIECE:,} that are tokenized")
        with tokenizer_errors(self._path, "the tokenizer fails on a text"):
            (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return np.array([*begin, *encoding.ids, *end], dtype=np.int64)

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of ids, with special tokens."""
        with tokenizer_errors(self._path, "the tokenizer fails on ids"):
            return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def string(self, token: int) -> str:
        """Return a token's text inside a text, where a decoder keeps the space that begins a word."""
        known = self._strings.get(token)
        if known is None:
            known = self._strings[token] = self.text([*self._anchor, token])[self._before :]
        return known
