"""Makes conversations of rows to read, cut to a size that a page can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest

from instructmining.errors import InputError, RowError
from instructmining.reading.formats import FieldOptions
from instructmining.reading.parsing import RowParser
from instructmining.reading.values import dumps
from instructmining.types import Example, SourceRow, Turn

_MOST_TURNS = 24
_MOST_FIELDS = 20
_LEAST_CHARS = 120  # of a turn, even where many share the space


@dataclass(frozen=True, slots=True)
class ShownText:
    """A part of a row."""

    label: str  # a turn's role, or a field's name
    text: str
    hidden: int = 0  # characters that are not shown


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row as it is read: its turns, or its fields where no format fits."""

    turns: tuple[ShownText, ...]
    rejected: tuple[ShownText, ...] = ()  # of a preference pair, what follows the common turns
    chosen: tuple[ShownText, ...] = ()
    hidden_turns: int = 0
    why_fields: str | None = None  # why fields are shown, not turns


class Parser:
    """Parses the rows of a set; rows that hold no example have none."""

    def __init__(self, options: FieldOptions) -> None:
        """Know nothing of the rows yet."""
        self._options = options
        self._parser: RowParser | None = None
        self.problem: str | None = None  # why no row can be parsed

    def look(self, rows: Sequence[SourceRow]) -> None:
        """Detect the format in the first rows, which lack the columns of ``score``.

        Raises:
            InputError: the user named fields, and they are not there.
        """
        try:
            self._parser = RowParser(self._options.shape_of(rows), replace(self._options, unread="count"))
        except InputError as error:
            if self._options.format is not None or self._options.map:
                raise
            self.problem = str(error)

    def example(self, row: SourceRow) -> Example | None:
        """Return the example of a row without the columns of ``score``; None where it holds none."""
        if self._parser is None:
            return None
        with suppress(RowError):
            return self._parser.example(row)
        return None


def conversation(example: Example | None, fields: Mapping[str, object], *, most_chars: int) -> Conversation:
    """Return what is shown of a row.

    Args:
        example: the row as an example; None shows its fields.
        fields: the row's own fields.
        most_chars: most characters shown, roughly: each of the parts gets some.
    """
    if example is None:
        parts = [(name, value if isinstance(value, str) else dumps(value).decode()) for name, value in fields.items()]
        texts = _cut(parts[:_MOST_FIELDS], most_chars)
        return Conversation(texts, hidden_turns=max(0, len(parts) - _MOST_FIELDS), why_fields="in no known format")
    if example.rejected is None:
        turns, hidden = _first_and_last(example.turns)
        return Conversation(_cut(_parts(turns), most_chars), hidden_turns=hidden)
    common = 0
    for one, other in zip_longest(example.turns, example.rejected):
        if one != other:
            break
        common += 1
    before, hidden = _first_and_last(example.turns[:common])
    chosen, more = _first_and_last(example.turns[common:])
    rejected, others = _first_and_last(example.rejected[common:])
    third = most_chars // 3
    return Conversation(
        _cut(_parts(before), third),
        chosen=_cut(_parts(chosen), third),
        rejected=_cut(_parts(rejected), third),
        hidden_turns=hidden + more + others,
    )


def _parts(turns: Sequence[Turn]) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in turns]


def _first_and_last(turns: Sequence[Turn]) -> tuple[Sequence[Turn], int]:
    """Return the turns, without those in the middle of a very long conversation, and how many those are."""
    if len(turns) <= _MOST_TURNS:
        return turns, 0
    half = _MOST_TURNS // 2
    return [*turns[:half], *turns[-half:]], len(turns) - 2 * half


def _cut(parts: Sequence[tuple[str, str]], most: int) -> tuple[ShownText, ...]:
    """Cut the longest texts so that all together have about so many characters."""
    left = most
    room: dict[int, int] = {}
    for place, at in enumerate(sorted(range(len(parts)), key=lambda at: len(parts[at][1]))):
        share = max(_LEAST_CHARS, left // (len(parts) - place))
        room[at] = min(len(parts[at][1]), share)
        left -= room[at]
    return tuple(ShownText(label, text[: room[at]], len(text) - room[at]) for at, (label, text) in enumerate(parts))
