"""Texts as a model's own library tokenizes them: no template, and special tokens in a text are special."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from instructmining.bundle import Role
from instructmining.bundle.template import Template
from instructmining.errors import BundleError, RowError
from instructmining.tokenizing.templates import conversation
from instructmining.tokenizing.tokenizer import MOST_PIECE, TextEncoder, tokenizer_errors
from instructmining.types import Example

_ALL = 1 << 62  # tokens: nothing is cut


def check_characters(text: str) -> None:
    """Check that a text is not too long to tokenize.

    Raises:
        RowError: it is.
    """
    if len(text) > MOST_PIECE:
        raise RowError(f"has {len(text):,} characters, more than the {MOST_PIECE:,} that are tokenized")


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of a text."""

    id: int
    name: str  # in the vocabulary
    text: str  # that it stands for
    place: tuple[int, int] | None  # characters of the text, from and to; None for a special token


@dataclass(frozen=True, slots=True)
class Cut:
    """How a text is shortened."""

    length: int  # tokens that stay, with special ones
    side: Literal["left", "right"]  # where tokens are dropped


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
        self._surrounding = tuple(self._around) if any(self._around) else (self._begin, [])
        self._specials = {
            number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special
        }
        self._strings: dict[int, str] = {}
        self._anchor: list[int] = self._tokenizer.encode("a", add_special_tokens=False).ids
        self._before = len(self.text(self._anchor))

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise BundleError(f"{self._path}: no token {token!r}, which the role names; export the bundle again")
        return int(number)

    def prompt(self, text: str, *, special: bool = True, cut: Cut | None = None) -> NDArray[np.int64]:
        """Return the ids of a text that a language model continues, int64 (width,).

        Args:
            text: what the model reads.
            special: whether the token goes before it that the model's tokenizer puts there.
            cut: how a longer text is shortened; None leaves it.

        Raises:
            RowError: the text is too long for the tokenizer.
            BundleError: the tokenizer fails on it.
        """
        return self._ids(self._begin if special else [], text, [], cut)

    def document(self, text: str, *, cut: Cut | None = None) -> NDArray[np.int64]:
        """Return the ids of a text for an encoder, between its special tokens and without a prompt, int64 (width,).

        Args:
            text: what the model reads.
            cut: how a longer text is shortened; None leaves it.

        Raises:
            RowError: the text is too long for the tokenizer.
            BundleError: the tokenizer fails on it.
        """
        begin, end = self._around
        return self._ids(begin, text, end, cut)

    def _ids(self, begin: Sequence[int], text: str, end: Sequence[int], cut: Cut | None) -> NDArray[np.int64]:
        check_characters(text)
        with tokenizer_errors(self._path, "the tokenizer fails on a text"):
            (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        own = encoding.ids
        if cut is not None and len(begin) + len(own) + len(end) > cut.length:
            room = cut.length - len(begin) - len(end)
            own = own[:room] if cut.side == "right" else own[len(own) - room :]
        return np.array([*begin, *own, *end], dtype=np.int64)

    def pieces(self, text: str, *, special: bool = True) -> list[Piece]:
        """Return the tokens of a text with their places, between the special tokens of an encoder or after the first.

        Args:
            text: what the model reads.
            special: whether the special tokens go around it.

        Raises:
            RowError: the text is too long for the tokenizer.
            BundleError: the tokenizer fails on it.
        """
        check_characters(text)
        begin, end = self._surrounding if special else ([], [])
        with tokenizer_errors(self._path, "the tokenizer fails on a text"):
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        own = [
            self._special(token) if token in self._specials else Piece(token, name, text[place[0] : place[1]], place)
            for token, name, place in zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)
        ]
        before, after = ([self._special(token) for token in tokens] for tokens in (begin, end))
        return [*before, *own, *after]

    def _special(self, token: int) -> Piece:
        name = str(self._tokenizer.id_to_token(token))
        return Piece(token, name, name, None)

    def conversation(self, example: Example, template: Template, *, open_end: bool) -> list[int]:
        """Return the ids of a conversation in a template, whole.

        Args:
            example: with the turns; a text in them is no special token.
            template: of the role.
            open_end: whether it ends where a further response would begin.

        Raises:
            RowError: the template cannot hold it, or a text is too long for the tokenizer.
            BundleError: the tokenizer fails on it.
        """
        self._encoder.check_length([turn.text for turn in example.turns])
        parts = conversation(example, template, open_end=open_end)
        (tokens,) = self._encoder.rendered([parts], max_length=_ALL)
        return list(tokens.ids.tolist())

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder(self._path)

    def names(self, ids: Sequence[int]) -> list[str]:
        """Return what tokens are called in the vocabulary."""
        return [str(self._tokenizer.id_to_token(token)) for token in ids]

    def text(self, ids: Sequence[int], *, special: bool = True) -> str:
        """Return the text of ids, with special tokens or without."""
        with tokenizer_errors(self._path, "the tokenizer fails on ids"):
            return str(self._tokenizer.decode(ids, skip_special_tokens=not special))

    def string(self, token: int) -> str:
        """Return a token's text inside a text, where a decoder keeps the space that begins a word."""
        known = self._strings.get(token)
        if known is None:
            known = self._strings[token] = self.text([*self._anchor, token])[self._before :]
        return known
