"""Tokenizes windows of examples: each text once per tokenizer, one list of texts per stream of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle.template import Part
from instructmining.errors import RowError
from instructmining.indicators.plan import Plan, Stream
from instructmining.tokenizing import templates
from instructmining.tokenizing.tokenizer import Known, TextEncoder
from instructmining.tokenizing.truncation import Tokens, alone
from instructmining.types import Example, InputWindow, Position, Reject


@dataclass(frozen=True, slots=True)
class StreamTexts:
    """The texts of one stream in a window."""

    stream: Stream
    texts: list[Tokens]
    owners: NDArray[np.int64]  # (texts,) row in the window of each text


@dataclass(frozen=True, slots=True)
class TokenizedWindow:
    """Rows with their texts tokenized."""

    examples: list[Example]  # the two sides of a pair are consecutive rows here
    streams: list[StreamTexts]
    prompt_tokens: NDArray[np.int64] | None  # (rows,)
    response_tokens: NDArray[np.int64] | None  # (rows,)
    places: list[int] = field(default_factory=list)  # (rows,) places of the examples among all rows read for the window
    rejects: list[tuple[int, Reject]] = field(default_factory=list)  # the other rows, with their places
    end: Position | None = None  # position of the last row read
    bytes: int = 0  # bytes of all rows read


class WindowBuilder:
    """Renders and tokenizes examples; safe to share between threads."""

    def __init__(self, plan: Plan, length_tokenizer: Path) -> None:
        """Load the tokenizers that the plan needs."""
        self._plan = plan
        self._length_tokenizer = length_tokenizer
        self._lengths = {"prompt_tokens", "response_tokens"} & plan.needs
        self._encoders = {path: TextEncoder(path) for path in self._paths()}

    def only(self, plan: Plan) -> WindowBuilder:
        """Return a builder with the same tokenizers for a part of the plan."""
        part = copy(self)
        part._plan, part._lengths = plan, self._lengths & plan.needs
        part._encoders = {path: self._encoders[path] for path in part._paths()}
        return part

    def _paths(self) -> set[Path]:
        lengths = {self._length_tokenizer} if self._lengths else set()
        return {stream.role.tokenizer for stream in self._plan.streams} | lengths

    def build(self, taken: InputWindow, *, strict: bool = False) -> TokenizedWindow:
        """Tokenize examples; those without a response, or that a template cannot hold, become rejects.

        Args:
            taken: the rows of the window.
            strict: whether the first reject raises.

        Raises:
            RowError: there is a reject, and ``strict`` is set.
        """
        rendered: dict[Stream, list[list[Part]]] = {
            stream: [] for stream in self._plan.streams if stream.text != "responses"
        }
        examples: list[Example] = []
        places: list[int] = []
        rejects: list[tuple[int, Reject]] = []
        for place, item in enumerate(taken.items):
            if isinstance(item, Example):
                try:
                    of_sides = [self._render(side, list(rendered)) for side in item.sides]
                except RowError as error:
                    item = Reject.of(item, str(error))  # noqa: PLW2901 - continues as a reject
            if isinstance(item, Reject):
                if strict:
                    raise refusal(item)
                rejects.append((place, item))
                continue
            if not isinstance(item, Example):
                raise TypeError(f"score takes examples, found {type(item).__name__}; see Example and read_examples")
            for side, of_side in zip(item.sides, of_sides, strict=True):
                examples.append(side)
                places.append(place)
                for of_stream, parts in zip(rendered.values(), of_side, strict=True):
                    of_stream.append(parts)
        responses, owners = _flatten([example.response_texts for example in examples])
        known: dict[Path, Known] = {path: {} for path in self._encoders}  # a text may be in several streams

        def plain(tokenizer: Path, texts: Sequence[str]) -> list[NDArray[np.int32]]:
            return self._encoders[tokenizer].plain(texts, known[tokenizer])

        streams = []
        for stream in self._plan.streams:
            role = stream.role
            if stream.text == "responses":
                bos = self._encoders[role.tokenizer].special(role.bos) if role.bos is not None else None
                texts = [alone(ids, max_length=role.max_length, bos=bos) for ids in plain(role.tokenizer, responses)]
                with_scores = [number for number, text in enumerate(texts) if len(text.scored)]
                streams.append(StreamTexts(stream, [texts[number] for number in with_scores], owners[with_scores]))
                continue
            texts = self._encoders[role.tokenizer].rendered(
                rendered[stream], max_length=role.max_length, known=known[role.tokenizer]
            )
            streams.append(StreamTexts(stream, texts, np.arange(len(examples))))
        prompt_tokens = response_tokens = None
        if self._lengths:
            response_tokens = _count(plain(self._length_tokenizer, responses), owners, len(examples))
            texts_of, prompt_owners = _flatten([example.prompt_texts for example in examples])
            prompt_tokens = _count(plain(self._length_tokenizer, texts_of), prompt_owners, len(examples))
        return TokenizedWindow(
            examples, streams, prompt_tokens, response_tokens, places, rejects, taken.end, taken.bytes
        )

    def _render(self, example: Example, streams: Sequence[Stream]) -> list[list[Part]]:
        """Render an example for each stream.

        Raises:
            RowError: the example has no response, or a template cannot hold it.
        """
        if not example.has_response:
            raise RowError(f"the {f'{example.side} ' if example.side else ''}response is empty")
        if example.row is None:  # text from a file is valid Unicode
            _check_unicode(example)
        texts = [turn.text for turn in example.turns]
        for encoder in self._encoders.values():
            encoder.check_length(texts)
        return [_render(example, stream) for stream in streams]


def _check_unicode(example: Example) -> None:
    for turn in example.turns:
        try:
            turn.text.encode()
        except UnicodeEncodeError as error:
            raise RowError(f"a text is not Unicode: half of a surrogate pair at character {error.start}") from error


def refusal(reject: Reject) -> RowError:
    """Convert a reject to the error that ends a strict run."""
    where = f"{reject.source}, line {reject.line}: " if reject.source else ""
    return RowError(f"{where}{reject.reason}")


def _render(example: Example, stream: Stream) -> list[Part]:
    """Render an example for a stream with one text per row.

    Raises:
        RowError: the stream's template cannot hold the example.
    """
    template = stream.role.template
    match stream.text:
        case "conversation":
            return templates.conversation(example, template)
        case "document" | "prompt" | "response" as text:
            return templates.document(example, template, text)
        case name:
            return templates.question(example, template, name)


def _flatten(texts: Sequence[Sequence[str]]) -> tuple[list[str], NDArray[np.int64]]:
    """Return all texts, and the row of each."""
    owners = np.repeat(np.arange(len(texts)), [len(row) for row in texts])
    return [text for row in texts for text in row], owners


def _count(ids: Sequence[NDArray[np.int32]], owners: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Return the number of tokens of each row, int64 (rows,)."""
    counts = np.zeros(rows, dtype=np.int64)
    np.add.at(counts, owners, [len(text) for text in ids])
    return counts
