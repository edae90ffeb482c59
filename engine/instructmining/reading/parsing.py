"""Rows of one file to examples by the shape that they have; what holds text and takes no role is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from instructmining.errors import InputError, RowError
from instructmining.reading.conversations import (
    SPEAKERS,
    Unread,
    history,
    is_turn,
    kind_of,
    one_turn,
    transcript,
    turn_list,
)
from instructmining.reading.formats import SHAPES, FieldOptions, FieldRole, FormatName, Shape
from instructmining.records import Example, SourceRow, Turn

_MOST_ASSIGNMENTS = 1000  # kept for rows of other fields


def parse(row: SourceRow, name: FormatName) -> Example:
    """The example that a row holds.

    Raises:
        RowError: a field is missing, has a wrong type, or there is no response.
    """
    return RowParser(SHAPES[name]).example(row)


class RowParser:
    """Makes examples of the rows of one file, in their order.

    Attributes:
        shape: of the rows.
        unread: how many rows hold text in a field that takes no role, by field; ``messages[].name`` is a key of turns.
    """

    def __init__(self, shape: Shape, options: FieldOptions | None = None) -> None:
        """Read rows of that shape.

        Args:
            shape: of all of them; a row that does not have it is an error.
            options: which fields may be left unread.
        """
        self.shape = shape
        self.unread: Counter[str] = Counter()
        self._taken: Counter[tuple[FieldRole, str]] = Counter()
        self._assignments: dict[tuple[str, ...], _Assignment] = {}  # by the names of a row's fields
        self._options = options or FieldOptions()
        self._threads = _Threads() if "message" in shape.needs else None

    @property
    def looks_back(self) -> bool:
        """Whether rows are read with those before them, so that reading cannot begin in the middle."""
        return self._threads is not None

    def example(self, row: SourceRow) -> Example:
        """The example that a row holds.

        Raises:
            RowError: a field is missing, has a wrong type, or there is no response.
            InputError: text is not read, and that is to be an error.
        """
        parsed = self._parsed(row)
        if self._threads is not None:
            example = Example(self._threads.turns(parsed), row)
        elif "chosen" in self.shape.needs:
            example = _pair(parsed, row)
        elif "text" in self.shape.needs:
            example = Example(_of_text(parsed.text("text")), row)
        else:
            example = Example((*_before(parsed), *_response(parsed)), row)
        _check_response(example, self.shape)
        if parsed.assignment.others or parsed.unread:
            self._count_unread(parsed, example, row)
        parsed.assignment.rows += 1
        if not parsed.assignment.is_kept:
            self._taken.update(parsed.taken.items())
        return example

    def pass_over(self, row: SourceRow) -> None:
        """Take note of a row that is done and that rows after it may be read with."""
        if self._threads is not None:
            with suppress(RowError):
                self._threads.turns(self._parsed(row))

    @property
    def taken(self) -> Counter[tuple[FieldRole, str]]:
        """How many rows have a field that takes a role, by role and field."""
        counts: Counter[tuple[FieldRole, str]] = Counter(self._taken)
        for assignment in self._assignments.values():
            counts.update(dict.fromkeys(assignment.taken.items(), assignment.rows))
        return counts

    def _parsed(self, row: SourceRow) -> _Parsed:
        fields, ignored = row.fields, self._options.ignore
        names = tuple(fields)
        known = self._assignments.get(names)
        if known is None:
            taken = self.shape.assigned(fields, ignored)
            others = tuple(name for name in names if name not in taken.values())
            is_kept = self.shape.is_plain(names, ignored) and len(self._assignments) < _MOST_ASSIGNMENTS
            known = _Assignment(taken, others, is_kept)
            if is_kept:
                self._assignments[names] = known
        return _Parsed(self.shape, fields, known.taken, known)

    def _count_unread(self, parsed: _Parsed, example: Example, row: SourceRow) -> None:
        unread, fields = parsed.unread, row.fields
        for name in parsed.assignment.others:
            unread.look(name, fields[name])
        unread -= self._options.ignore
        if not unread:
            return
        said = {turn.text for turn in (*example.turns, *(example.rejected or ()))}
        names = sorted(name for name in unread if not (isinstance(text := fields.get(name), str) and text in said))
        if names and self._options.strict:
            raise InputError(
                f"{row.source}, line {row.line}: text that is not read, in {', '.join(names)} (format "
                f"{self.shape.name}); --ignore {','.join(names)} leaves it out"
            )
        self.unread.update(names)


@dataclass(slots=True)
class _Assignment:
    """Which of a row's fields takes which role, where their names alone decide it."""

    taken: Mapping[FieldRole, str]
    others: tuple[str, ...]  # fields that take none
    is_kept: bool  # for all rows of the same fields
    rows: int = 0  # good ones that have these fields


@dataclass(slots=True)
class _Parsed:
    """The fields of a row, and which of them takes which role."""

    shape: Shape
    fields: Mapping[str, object]
    taken: Mapping[FieldRole, str]
    assignment: _Assignment
    unread: Unread = field(default_factory=Unread)  # what holds text and is not read, so far

    def has(self, role: FieldRole) -> bool:
        """Whether a role is taken, or must be."""
        return role in self.taken or role in self.shape.needs

    def value(self, role: FieldRole) -> tuple[str, object]:
        """The field that takes a role, and what it holds.

        Raises:
            RowError: none does.
        """
        if role in self.taken:
            return self.taken[role], self.fields[self.taken[role]]
        names = self.shape.fields[role]
        if len(names) == 1:
            raise RowError(f"field '{names[0]}' is missing")
        raise RowError(f"no field for a {role} (format {self.shape.name})")

    def text(self, role: FieldRole) -> str:
        """The text that takes a role that must be taken.

        Raises:
            RowError: none does, or it is no text.
        """
        name, value = self.value(role)
        if not isinstance(value, str):
            raise RowError(f"field '{name}' is {kind_of(value)}, wanted text")
        return value

    def text_or_none(self, role: FieldRole) -> str | None:
        """The text that takes a role that may be free; None where it is free or holds null.

        Raises:
            RowError: it is no text.
        """
        return self.text(role) if role in self.taken and self.fields[self.taken[role]] is not None else None


def _before(parsed: _Parsed) -> list[Turn]:
    """All turns before the response; where a list of turns holds the response too, all turns."""
    keys, unread = parsed.shape.keys, parsed.unread
    turns: list[Turn] = []
    if "history" in parsed.taken:
        name, value = parsed.value("history")
        turns += history(value, name, keys, unread) if value is not None else []
    if parsed.has("messages"):
        name, value = parsed.value("messages")
        turns += turn_list(value, name, keys, unread)
    if parsed.has("prompt"):
        turns += _prompt(parsed)
    elif context := parsed.text_or_none("context"):
        turns.append(Turn("user", context))
    elif not turns and parsed.has("response"):
        turns.append(Turn("user", ""))
    system = Turn("system", parsed.text_or_none("system") or "")
    return [system, *turns] if system.text and turns[:1] != [system] else turns


def _prompt(parsed: _Parsed) -> list[Turn]:
    """The prompt's turns, the context on a line of its own below the last of them."""
    name, value = parsed.value("prompt")
    context = parsed.text_or_none("context")
    if isinstance(value, str) and parsed.has("chosen") and (turns := transcript(value)) is not None:
        if not turns[-1].text.strip():  # it ends with the name of the speaker who is to answer
            del turns[-1]
    else:
        turns = _turns(name, value, "user", parsed)
    if not context:
        return turns
    if turns and turns[-1].role == "user":
        return [*turns[:-1], Turn("user", f"{turns[-1].text}\n{context}")]
    return [*turns, Turn("user", context)]


def _response(parsed: _Parsed) -> list[Turn]:
    """The turns of the response; none where they stand among all turns."""
    if not parsed.has("response"):
        return []
    names = parsed.shape.fields["response"]
    name = parsed.taken.get("response", names[0])
    if name not in parsed.fields and len(names) == 1:
        raise RowError(f"no response: field '{name}' is missing")
    name, value = parsed.value("response")
    if value is None:
        raise RowError(f"no response: field '{name}' is null")
    return _turns(name, value, "assistant", parsed)


def _turns(name: str, value: object, role: Literal["user", "assistant"], parsed: _Parsed) -> list[Turn]:
    """A text as one turn of that role, an object as a turn, a list of objects as turns."""
    keys, unread = parsed.shape.keys, parsed.unread
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return turn_list(value, name, keys, unread)
    if isinstance(value, dict) and is_turn(value, keys):
        return [one_turn(value, name, keys, unread)]
    if not isinstance(value, str):
        raise RowError(f"field '{name}' is {kind_of(value)}, wanted text")
    return [Turn(role, value)]


def _pair(parsed: _Parsed, row: SourceRow) -> Example:
    """A pair of responses to one prompt, which stands in fields of its own or at the beginning of both."""
    before = _before(parsed)
    chosen, rejected = (_side(parsed, role, before) for role in ("chosen", "rejected"))
    return Example(chosen, row, rejected=rejected)


def _side(parsed: _Parsed, role: Literal["chosen", "rejected"], before: Sequence[Turn]) -> tuple[Turn, ...]:
    """The whole conversation of one side."""
    name, value = parsed.value(role)
    if value is None:
        raise RowError(f"no {role} response: field '{name}' is null")
    turns = transcript(value) if isinstance(value, str) and not before else None
    if turns is None:
        turns = _turns(name, value, "assistant", parsed)
    if next((turn.role for turn in turns if turn.role != "system"), None) == "assistant":
        if all(turn.role == "system" for turn in before):
            raise RowError(f"no prompt (format {parsed.shape.name})")
        return (*before, *turns)
    apart = [turn for turn in before if turn.text.strip() and turn not in turns]
    if any(turn.role != "system" for turn in apart):
        raise RowError(f"field '{name}' is a whole conversation, and the row's prompt is no part of it")
    return (*apart, *turns)


def _of_text(text: str) -> tuple[Turn, ...]:
    """A transcript's turns, or all of the text as a response to nothing."""
    turns = transcript(text)
    return tuple(turns) if turns is not None else (Turn("user", ""), Turn("assistant", text))


def _check_response(example: Example, shape: Shape) -> None:
    """Prove that there is something to score.

    Raises:
        RowError: there is no response, or none with text.
    """
    if example.rejected is not None:
        for name, turns in (("chosen", example.turns), ("rejected", example.rejected)):
            if turns[-1].role != "assistant":
                raise RowError(f"the {name} conversation does not end with a response")
            if not turns[-1].text.strip():
                raise RowError(f"the {name} response is empty")
    elif not example.has_response:
        if any(turn.role == "assistant" for turn in example.turns):
            raise RowError("the response is empty")
        raise RowError(f"no response (format {shape.name})")


class _Threads:
    """Messages that answer one another, a row each, of one tree at a time."""

    def __init__(self) -> None:
        self._tree: str | None = None
        self._threads: dict[str, tuple[Turn, ...]] = {}  # message → the turns up to it

    def turns(self, parsed: _Parsed) -> tuple[Turn, ...]:
        """The messages up to the one that a row holds, which is an assistant's.

        Raises:
            RowError: it is another's, or answers a message that has not come before it.
        """
        text, speaker = parsed.text("text"), parsed.text("speaker")
        role = SPEAKERS.get(speaker.lower())
        if role is None:
            raise RowError(f"field '{parsed.taken['speaker']}' is the unknown role {speaker!r}")
        message, parent, tree = parsed.text("message"), parsed.text_or_none("parent"), parsed.text_or_none("tree")
        if tree != self._tree or (tree is None and parent is None):
            self._tree, self._threads = tree, {}
        if parent is not None and parent not in self._threads:
            raise RowError(f"answers the message {parent!r}, which is not before it in the file")
        turns = (*(self._threads[parent] if parent is not None else ()), Turn(role, text))
        self._threads[message] = turns
        if role != "assistant":
            raise RowError("a prompt, which is read with the responses to it; it has none of its own to score")
        return turns
