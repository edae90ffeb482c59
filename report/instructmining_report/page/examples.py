"""Makes the rows that are shown: a second pass over the file fetches their texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup

from instructmining.rules import Rule
from instructmining.scored.selection.subsets import in_file_order
from instructmining_report.figures.examples import ChosenRow
from instructmining_report.figures.terms import contributions_of
from instructmining_report.gathering.conversations import Conversation, ShownText, conversation
from instructmining_report.gathering.scored_set import ScoredSet
from instructmining_report.page.visible import cut

_ALL_BYTES = 900_000  # of all texts of examples, as markup
_MOST_BYTES = 24_000  # of one row
_LEAST_BYTES = 256  # of a turn
_BEGINNING = 64  # characters that name a row in the table


@dataclass(frozen=True, slots=True)
class Part:
    """A turn or a field as markup."""

    label: str
    text: Markup
    hidden: int  # characters that are not shown
    side: str = ""  # chosen or rejected, where only one side of a pair has it


@dataclass(frozen=True, slots=True)
class ShownExample:
    """A row with its texts and figures."""

    chosen: ChosenRow
    line: int
    beginning: str  # of the prompt
    parts: tuple[Part, ...]
    hidden_turns: int
    why_fields: str | None
    values: Mapping[str, float]  # column → value, NaN where it is null
    contributions: Mapping[str, float]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Beginning:
    """The beginning of a row, for a cluster of repeats."""

    line: int
    text: Markup
    hidden: int


def shown_examples(one: ScoredSet, chosen: Sequence[ChosenRow], rule: Rule | None) -> tuple[ShownExample, ...]:
    """Return the chosen rows with their texts, in the order given.

    Raises:
        InputError: the file changed since it was read.
        OutputError: the temporary folder refuses to give the numbers back.
    """
    if not chosen:
        return ()
    numbers = np.array([row.number for row in chosen])
    values = {column: one.store.column(column)[numbers] for column in one.columns}
    added = contributions_of(one, rule, numbers) if rule is not None else {}
    most = min(_MOST_BYTES, _ALL_BYTES // len(chosen))
    truncated = np.isin(numbers, one.truncated)
    read = _conversations(one, numbers.tolist(), most)
    found = []
    for place, row in enumerate(chosen):
        line, talk = read[row.number]
        found.append(
            ShownExample(
                chosen=row,
                line=line,
                beginning=_beginning(talk),
                parts=_parts(talk, most),
                hidden_turns=talk.hidden_turns,
                why_fields=talk.why_fields,
                values={column: float(numbers[place]) for column, numbers in values.items()},
                contributions={column: float(numbers[place]) for column, numbers in added.items()},
                truncated=bool(truncated[place]),
            )
        )
    return tuple(found)


def beginnings(one: ScoredSet, numbers: Sequence[int], most_bytes: int = 600) -> dict[int, Beginning]:
    """Return the beginnings of some rows' first texts, by number."""
    found = {}
    for number, (line, talk) in _conversations(one, numbers, most_bytes).items():
        first = next((part for part in (*talk.turns, *talk.chosen) if part.text.strip()), ShownText("", ""))
        text, hidden = cut(first.text, most_bytes)
        found[number] = Beginning(line, text, hidden + first.hidden)
    return found


def _conversations(one: ScoredSet, numbers: Sequence[int], most_chars: int) -> dict[int, tuple[int, Conversation]]:
    wanted = np.unique(np.array(numbers, dtype=np.int64))
    found = {}
    for number, row in zip(wanted.tolist(), in_file_order(one.source, wanted), strict=True):
        own = replace(row, fields=one.source.own_fields(row))
        found[number] = row.line, conversation(one.parser.example(own), own.fields, most_chars=most_chars)
    return found


def _parts(talk: Conversation, most_bytes: int) -> tuple[Part, ...]:
    sides = (("", talk.turns), ("chosen", talk.chosen), ("rejected", talk.rejected))
    characters = sum(len(part.text) for _, parts in sides for part in parts) or 1
    found = []
    for side, parts in sides:
        for part in parts:
            room = max(_LEAST_BYTES, most_bytes * len(part.text) // characters)
            text, hidden = cut(part.text, room)
            found.append(Part(part.label, text, hidden + part.hidden, side))
    return tuple(found)


def _beginning(talk: Conversation) -> str:
    shown = (*talk.turns, *talk.chosen)
    users = [part for part in shown if part.label == "user" and part.text.strip()]
    first = next(iter(users or [part for part in shown if part.text.strip()]), ShownText("", ""))
    text = " ".join(first.text.split())
    return text if len(text) <= _BEGINNING else f"{text[: _BEGINNING - 1]}…"
