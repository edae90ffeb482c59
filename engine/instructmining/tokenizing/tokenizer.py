"""Converts texts to token ids with the Rust tokenizers, many texts per call; marks truncated ones."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.processors import TemplateProcessing

from instructmining.bundle.template import Part, Segment, Special
from instructmining.errors import BundleError, RowError
from instructmining.tokenizing.pretokenize import Cutter, cutter, joins, last_cut, longest_part, parts, takes_parts
from instructmining.tokenizing.truncation import Tokens, truncated

_FAILS = "the tokenizer fails on a text"
Known: TypeAlias = dict[str, bytes]  # text → its ids as int32 bytes
_BYTES = 4  # of an id while all ids of a text are held; graphs get int64
MOST_PIECE = 1_000_000  # characters passed to a tokenizer at once; it takes some 200 bytes for each
_PART = 1 << 17  # characters of a longer text that are tokenized at a time
_SHORT = 48  # characters of the longest piece that is remembered
_LONGEST_HEAD = 200  # characters of the longest template text that is remembered
_MOST_HEADS = 4096  # template texts remembered
_MOST_CACHED = 1 << 18  # pieces remembered, some 50 MB; then the memory is cleared


class TextEncoder:
    """One tokenizer; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Load a tokenizer.

        Args:
            path: a ``tokenizer.json``. Its own truncation and padding are turned off.

        Raises:
            BundleError: the file cannot be read.
        """
        try:
            with tokenizer_errors(path, "not a tokenizer"):
                content = path.read_bytes()
                tokenizer = _prepared(Tokenizer.from_buffer(content))
                inner = _inside_a_text(content)
                inside = None if inner is None else _prepared(Tokenizer.from_buffer(inner))
        except (OSError, ValueError) as error:
            raise BundleError(f"{path}: not a tokenizer: {error}") from error
        self._tokenizer = tokenizer
        self._cut = cutter(tokenizer)
        self._outer = _Pieces(tokenizer, self._cut)
        self._inner = self._outer if inside is None else _Pieces(inside, None)
        self._heads: dict[str, bytes] = {}
        self._specials: dict[str, bytes] = {}
        self._path = path

    def check_length(self, texts: Sequence[str]) -> None:
        """Check that no text has a piece that is too long for the tokenizer.

        Args:
            texts: texts of one row.

        Raises:
            RowError: a text has one.
        """
        whole = sum(map(len, texts))
        if whole <= MOST_PIECE:
            return
        longest = whole if not takes_parts(self._tokenizer) else max(longest_part(text, _PART // 2) for text in texts)
        if longest > MOST_PIECE:
            what = "characters without a space" if longest < whole or self._cut is not None else "characters"
            raise RowError(f"{longest:,} {what} are more than the {MOST_PIECE:,} that the tokenizer takes at once")

    def special(self, token: str) -> int:
        """Return the id of a template's special token.

        Raises:
            BundleError: the tokenizer has no such token.
        """
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise BundleError(f"{self._path}: no token {token!r}, which the template names; export the bundle again")
        return int(number)

    def plain(self, texts: Sequence[str], known: Known | None = None) -> list[NDArray[np.int32]]:
        """Return the ids of each text without special tokens: one read-only int32 (width,) array each.

        Args:
            texts: texts as the user wrote them.
            known: cache of texts between calls, so that each is tokenized once.

        Raises:
            BundleError: the tokenizer fails on a text.
        """
        known = {} if known is None else known
        with tokenizer_errors(self._path, _FAILS):
            self._outer.encode(texts, known)
        return [np.frombuffer(known[text], dtype=np.int32) for text in texts]

    def decoded(self, ids: NDArray[np.int64]) -> str:
        """Return the text of ids, with special tokens."""
        return str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def rendered(self, texts: Sequence[Sequence[Part]], *, max_length: int, known: Known | None = None) -> list[Tokens]:
        """Return the ids of each rendered text, with its response tokens marked as scored.

        A token belongs to a response when it ends after the response's first character. The first token of a text has
        no context and is not scored. A text longer than ``max_length`` keeps the last
        ``max(256, max_length − response)`` tokens before its last response (but at most three quarters of a small
        limit), and as many of the response's first tokens as then fit. A special token that begins the text stays:
        models read the whole text at it, or rest their attention on it.

        Args:
            texts: special tokens and segments of text, in order.
            max_length: limit of the model in tokens.
            known: cache of texts between calls, so that each is tokenized once.

        Raises:
            BundleError: the tokenizer fails on a text, or lacks a special token.
        """
        with tokenizer_errors(self._path, _FAILS):
            encoded = iter(
                self._encoded([part for parts in texts for part in parts if isinstance(part, Segment)], known)
            )
        return [self._join(parts, encoded, max_length) for parts in texts]

    def _encoded(self, segments: Sequence[Segment], known: Known | None) -> list[_Encoded]:
        """Encode each segment as the start of a text, or as a part inside one."""
        by_pieces: dict[_Pieces, Known] = {self._inner: {}, self._outer: {} if known is None else known}
        chosen = [self._outer if segment.begins else self._inner for segment in segments]
        cuts = [self._content_begins(segment) for segment in segments]
        for pieces, of_pieces in by_pieces.items():
            taken = [
                segment.text[cut:]
                for segment, cut, own in zip(segments, cuts, chosen, strict=True)
                if cut is not None and own is pieces
            ]
            pieces.encode(taken, of_pieces)
        searched = {
            pieces: iter(
                pieces.with_offsets(
                    [
                        segment
                        for segment, cut, own in zip(segments, cuts, chosen, strict=True)
                        if cut is None and own is pieces
                    ]
                )
            )
            for pieces in by_pieces
        }
        encoded = []
        for segment, cut, pieces in zip(segments, cuts, chosen, strict=True):
            if cut is None:
                encoded.append(next(searched[pieces]))
                continue
            ids = by_pieces[pieces][segment.text[cut:] if cut else segment.text]
            head = self._head(segment.text[:cut]) if cut else b""
            spans = ((len(head) // _BYTES, (len(head) + len(ids)) // _BYTES),) if segment.responses else ()
            encoded.append(_Encoded(head + ids if cut else ids, spans))
        return encoded

    def _content_begins(self, segment: Segment) -> int | None:
        """Return where the content starts after a segment's template text; None where offsets are needed."""
        if not segment.responses:
            return 0
        (begin, end), *others = segment.responses
        if others or end != len(segment.text) or self._cut is None:
            return None
        return begin if begin == 0 or joins(segment.text[:begin], segment.text[begin:]) else None

    def _head(self, text: str) -> bytes:
        """Return the ids of the template text before a text that does not begin with whitespace.

        Where no special token separates them, other texts of the row come before this template text.
        """
        if len(text) > _LONGEST_HEAD and self._outer.takes_parts and (at := last_cut(text)):
            of_front: Known = {}
            self._outer.encode([text[:at]], of_front)
            return of_front[text[:at]] + self._head(text[at:])
        ids = self._heads.get(text)
        if ids is None:
            both, letter = self._tokenizer.encode_batch_fast([text + "x", "x"], add_special_tokens=False)
            ids = _as_bytes(both.ids[: -len(letter.ids)])
            if len(self._heads) >= _MOST_HEADS:
                self._heads = {}
            if len(text) <= _LONGEST_HEAD:
                self._heads[text] = ids
        return ids

    def _special(self, token: str) -> bytes:
        ids = self._specials.get(token)
        if ids is None:
            ids = self._specials[token] = _as_bytes([self.special(token)])
        return ids

    def _join(self, parts: Sequence[Part], encoded: Iterator[_Encoded], max_length: int) -> Tokens:
        pieces: list[bytes] = []
        size = 0
        spans: list[tuple[int, int]] = []  # token ranges of the responses
        closing = 0  # tokens of the template after all content
        for part in parts:
            if isinstance(part, Special):
                pieces.append(self._special(part.token))
                size += 1
                closing += 1
                continue
            segment = next(encoded)
            spans += [(size + first, size + last) for first, last in segment.responses]
            pieces.append(segment.ids)
            tokens = len(segment.ids) // _BYTES
            size += tokens
            closing = closing + tokens if part.closing else 0
        ids = np.frombuffer(b"".join(pieces), dtype=np.int32)
        opening = 1 if isinstance(parts[0], Special) else 0
        return truncated(ids, spans, opening=opening, closing=closing, max_length=max_length)


@contextmanager
def tokenizer_errors(path: Path, what: str) -> Iterator[None]:
    """Convert errors of the Rust side, which raises the bare class, and its panics, which are no Python exceptions."""
    try:
        yield
    except BaseException as error:
        if type(error) is Exception or type(error).__name__ == "PanicException":
            raise BundleError(f"{path}: {what}: {error}; export the bundle again") from error
        raise


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The tokens of one segment."""

    ids: bytes  # int32 bytes
    responses: tuple[tuple[int, int], ...]  # token ranges of the responses


class _Pieces:
    """Tokenizes pieces of text and caches the short ones, since words repeat."""

    def __init__(self, tokenizer: Tokenizer, cut: Cutter | None) -> None:
        self._tokenizer = tokenizer
        self._cut = cut
        self.takes_parts = cut is not None and takes_parts(tokenizer)
        self._cache: dict[str, bytes] = {}

    def encode(self, texts: Iterable[str], known: Known) -> None:
        """Add the ids of the texts that ``known`` lacks to it."""
        if len(self._cache) > _MOST_CACHED:
            self._cache = {}  # a thread at work keeps the dict that it started with
        cache = self._cache
        cut, find = self._cut, cache.__getitem__
        waiting: dict[str, list[str]] = {}
        for text in texts:
            if text in known or text in waiting:
                continue
            if self.takes_parts and len(text) > _PART:
                known[text] = self._in_parts(text)
                cache = self._cache
                find = cache.__getitem__
                continue
            pieces = [text] if cut is None else cut(text)
            try:
                known[text] = b"".join(map(find, pieces))
            except KeyError:
                waiting[text] = pieces
        if not waiting:
            return
        new = list(dict.fromkeys(piece for pieces in waiting.values() for piece in pieces if piece not in cache))
        encodings = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
        long: dict[str, bytes] = {}
        for piece, encoding in zip(new, encodings, strict=True):
            (cache if len(piece) <= _SHORT else long)[piece] = _as_bytes(encoding.ids)
        for text, pieces in waiting.items():
            known[text] = b"".join([cache[piece] if piece in cache else long[piece] for piece in pieces])

    def _in_parts(self, text: str) -> bytes:
        """Return the ids of a long text, tokenized part by part."""
        ids = bytearray()
        for part in parts(text, _PART // 2):
            if len(part) > _PART:  # nowhere to cut: tokenized whole, up to the limit of check_length
                ids += _as_bytes(self._tokenizer.encode_batch_fast([part], add_special_tokens=False)[0].ids)
                continue
            of_part: Known = {}
            self.encode([part], of_part)
            ids += of_part[part]
        return bytes(ids)

    def with_offsets(self, segments: Sequence[Segment]) -> list[_Encoded]:
        """Encode segments whose responses must be found among their tokens."""
        whole = [segment.text for segment in segments if not self._is_long(segment)]
        encodings = iter(self._tokenizer.encode_batch(whole, add_special_tokens=False) if whole else [])
        return [
            self._long(segment) if self._is_long(segment) else _searched(segment, next(encodings))
            for segment in segments
        ]

    def _is_long(self, segment: Segment) -> bool:
        return self.takes_parts and len(segment.text) > _PART

    def _long(self, segment: Segment) -> _Encoded:
        """Encode a long segment, tokenized part by part."""
        ids, begins, ends = bytearray(), array("q"), array("q")
        at = 0
        for part in parts(segment.text, _PART // 2):
            (encoding,) = self._tokenizer.encode_batch([part], add_special_tokens=False)
            ids += _as_bytes(encoding.ids)
            begins.extend(at + begin for begin, _ in encoding.offsets)
            ends.extend(at + end for _, end in encoding.offsets)
            at += len(part)
        spans = [(bisect_right(ends, begin), bisect_left(begins, end)) for begin, end in segment.responses]
        return _Encoded(bytes(ids), tuple((first, max(first, last)) for first, last in spans))


def _searched(segment: Segment, encoding: Encoding) -> _Encoded:
    offsets = encoding.offsets
    spans = []
    for begin, end in segment.responses:
        first = bisect_right(offsets, begin, key=lambda offset: offset[1])
        last = bisect_left(offsets, end, key=lambda offset: offset[0])
        spans.append((first, max(first, last)))
    return _Encoded(_as_bytes(encoding.ids), tuple(spans))


def _as_bytes(ids: list[int]) -> bytes:
    return array("i", ids).tobytes()


def _prepared(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer without its own additions, truncation and hidden steps."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "<|im_end|>" in a row is plain text
    # A byte-level post-processor may trim spaces from the offsets, which would drop a response's last spaces.
    tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return tokenizer


def _inside_a_text(content: bytes) -> bytes | None:
    """Return the tokenizer for segments inside a text, as JSON; None where it is the same one.

    SentencePiece's scheme "first" marks a word's start only at offset 0. A segment after a special token must have no
    mark, but would be at offset 0 when it is tokenized by itself.
    """
    if b'"prepend_scheme"' not in content:  # parsing a large vocabulary takes long
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
    return orjson.dumps(tokenizer) if marks else None
