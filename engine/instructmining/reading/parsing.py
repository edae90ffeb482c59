"""Parses rows of one file into examples by their shape; counts fields that hold text and have no role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from shlex import quote
from typing import Literal

from instructmining.errors import InputError, RowError
from instructmining.reading.conversations import (
    SPEAKERS,
    TurnKeys,
    history,
    holds_text,
    is_turn,
    json_turns,
    kind_of,
    one_turn,
    template_in,
    transcript,
    turn_list,
)
from instructmining.reading.formats import SHAPES, FieldOptions, FieldRole, FormatName, Shape, value_at
from instructmining.reading.role_fields import Assignment, Parsed
from instructmining.types import SIDES, Example, SourceRow, Turn

_MOST_MESSAGES = 100_000  # remembered, where no field says which tree a message belongs to
_MOST_ASSIGNMENTS = 1000  # kept, one per set of field names
_MOST_UNREAD = 1000  # unread fields counted by name
OTHERS = "(others)"  # stands for the names of all further ones


def parse(row: SourceRow, name: FormatName) -> Example:
    """Parse a row.

    Raises:
        RowError: a field is missing or has the wrong type, or there is no response.
    """
    return RowParser(SHAPES[name]).example(row)


class RowParser:
    """Parses the rows of one file, in order.

    Attributes:
        shape: shape of the rows.
        templated: number of texts, read as one response, that hold each mark of a template.
        unread: number of rows per field that holds text without a role; ``messages[].name`` is a key of turns.
    """

    def __init__(self, shape: Shape, options: FieldOptions | None = None) -> None:
        """Create a parser for rows of a shape.

        Args:
            shape: shape of all rows; a row without it is an error.
            options: which fields may stay unread.
        """
        self.shape = shape
        self.unread: Counter[str] = Counter()
        self.templated: Counter[str] = Counter()
        self._taken: Counter[tuple[FieldRole, str]] = Counter()
        self._paths = [name for names in shape.fields.values() for name in names if "." in name]
        self._assignments: dict[tuple[str, ...], Assignment] = {}  # by the names of a row's fields
        self._options = options or FieldOptions()
        self._threads = _Threads() if "message" in shape.needs else None

    @property
    def looks_back(self) -> bool:
        """Whether rows are read with those before them, so that reading cannot start in the middle."""
        return self._threads is not None

    def example(self, row: SourceRow) -> Example:
        """Parse a row.

        Raises:
            RowError: a field is missing or has the wrong type, or there is no response.
            InputError: text is not read, and ``unread`` is "error".
        """
        parsed = self._parsed(row)
        if self._threads is not None:
            example = Example(self._threads.turns(parsed), row)
        elif self.shape.is_of_pairs:
            example = _pair(parsed, row)
        elif "text" in self.shape.needs:
            example = Example(self._of_text(parsed.text("text")), row)
        else:
            example = Example(_conversation(parsed), row)
        _check_response(example, self.shape)
        if (parsed.assignment.others or parsed.unread) and (unread := self._unread(parsed, example, row)):
            self._count(unread)
            example = replace(example, unread=unread)
        parsed.assignment.rows += 1
        if not parsed.assignment.is_kept:
            self._taken.update(parsed.taken.items())
        return example

    def _of_text(self, text: str) -> tuple[Turn, ...]:
        """Split a transcript into turns, or use all of the text as a response without a prompt."""
        turns = transcript(text)
        if turns is not None:
            return tuple(turns)
        if (mark := template_in(text)) is not None:
            self.templated[mark] += 1
        return (Turn("user", ""), Turn("assistant", text))

    def pass_over(self, row: SourceRow) -> None:
        """Note a row that was already processed, which later rows may depend on."""
        if self._threads is not None:
            with suppress(RowError):
                self._threads.turns(self._parsed(row))

    @property
    def taken(self) -> Counter[tuple[FieldRole, str]]:
        """Return the number of rows by role and field."""
        counts: Counter[tuple[FieldRole, str]] = Counter(self._taken)
        for assignment in self._assignments.values():
            counts.update(dict.fromkeys(assignment.taken.items(), assignment.rows))
        return counts

    def leave_out(self, name: str, source: str) -> None:
        """Count a member outside of all rows as not read.

        Raises:
            InputError: ``unread`` is "error".
        """
        if name in self._options.ignore or name in self.unread:
            return
        if self._options.unread == "error":
            raise InputError(f"{source}: not read: {name}; --ignore {quote(name)} leaves it out")
        self.unread[name] = 1

    def _parsed(self, row: SourceRow) -> Parsed:
        fields, ignored = row.fields, self._options.ignore
        if self._paths:
            inner = {path: value_at(fields, path) for path in self._paths if path not in fields}
            fields = {**fields, **{path: value for path, value in inner.items() if value is not None}}
        names = tuple(fields)
        known = self._assignments.get(names)
        if known is None:
            taken = self.shape.assigned(fields, ignored)
            others = tuple(name for name in names if name not in taken.values())
            is_kept = self.shape.is_plain(names, ignored) and len(self._assignments) < _MOST_ASSIGNMENTS
            known = Assignment(taken, others, is_kept)
            if is_kept:
                self._assignments[names] = known
        return Parsed(self.shape, fields, known.taken, known)

    def _unread(self, parsed: Parsed, example: Example, row: SourceRow) -> tuple[str, ...]:
        """Return the fields of a row that hold text and are not read.

        Raises:
            InputError: there are some, and ``unread`` is "error".
        """
        unread, fields = parsed.unread, parsed.fields
        for name in parsed.assignment.others:
            unread.look(name, fields[name])
        unread -= self._options.ignore
        if not unread:
            return ()
        said = {turn.text for turn in (*example.turns, *(example.rejected or ()))}
        names = tuple(sorted(name for name in unread if not _is_said(fields.get(name), said, self.shape.keys)))
        if names and self._options.unread == "error":
            raise InputError(
                f"{row.source}, line {row.line}: text that is not read, in {', '.join(names)} (format "
                f"{self.shape.name}); --ignore {quote(','.join(names))} leaves it out"
            )
        return names

    def _count(self, names: Sequence[str]) -> None:
        kept = (name if name in self.unread or len(self.unread) < _MOST_UNREAD else OTHERS for name in names)
        self.unread.update(dict.fromkeys(kept, 1))


def _is_said(value: object, said: Collection[str], keys: TurnKeys) -> bool:
    """Return whether a field without a role only repeats texts of the conversation: as text, in a list or in turns."""
    if isinstance(value, str):
        return value in said
    if isinstance(value, dict):  # a part of which may be mapped
        return all(_is_said(inner, said, keys) for inner in value.values() if holds_text(inner))
    if not isinstance(value, list):
        return False
    for item in value:
        if is_turn(item, keys):
            others = {key: more for key, more in item.items() if key not in keys.role}
            if not all(more in said if isinstance(more, str) else not holds_text(more) for more in others.values()):
                return False
        elif not (isinstance(item, str) and item in said):
            return False
    return bool(value)


def _before(parsed: Parsed) -> list[Turn]:
    """Return all turns before the response; where a list of turns also holds the response, all turns."""
    keys, unread = parsed.shape.keys, parsed.unread
    turns: list[Turn] = []
    if parsed.has("history"):
        name, value = parsed.value("history")
        turns += history(value, name, keys, unread)
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


def _prompt(parsed: Parsed) -> list[Turn]:
    """Return the prompt's turns, with the context on a line of its own after the last of them."""
    name, value = parsed.value("prompt")
    context = parsed.text_or_none("context")
    turns = transcript(value) if isinstance(value, str) and parsed.shape.name != "alpaca" else None
    if turns is not None:
        if not turns[-1].text.strip():  # the text ends with the name of the speaker who answers next
            del turns[-1]
    else:
        turns = _turns(name, value, "user", parsed)
    if not context:
        return turns
    if turns and turns[-1].role == "user":
        return [*turns[:-1], Turn("user", f"{turns[-1].text}\n{context}")]
    return [*turns, Turn("user", context)]


def _conversation(parsed: Parsed) -> tuple[Turn, ...]:
    """Return all turns; the response is a field of its own or one of the turns."""
    before = _before(parsed)
    if not parsed.has("response"):
        return tuple(before)
    names = parsed.shape.fields["response"]
    name = parsed.taken.get("response", names[0])
    if name not in parsed.fields and len(names) == 1:
        raise RowError(f"no response: field '{name}' is missing")
    name, value = parsed.value("response")
    if value is None:
        raise RowError(f"no response: field '{name}' is null")
    return _joined(before, _turns(name, value, "assistant", parsed), name)


def _joined(before: Sequence[Turn], turns: Sequence[Turn], name: str) -> tuple[Turn, ...]:
    """Join a prompt's turns and a response's, which may be the whole conversation.

    Raises:
        RowError: the response is a whole conversation that does not contain the prompt.
    """
    if next((turn.role for turn in turns if turn.role != "system"), None) == "assistant":
        if before and turns[0] == before[-1]:  # the last turns of the prompt are the response already
            return tuple(before)
        return (*before, *turns)
    apart = [turn for turn in before if turn.text.strip() and turn not in turns]
    if any(turn.role != "system" for turn in apart):
        raise RowError(f"field '{name}' is a whole conversation, and the row's prompt is no part of it")
    return (*apart, *turns)


def _turns(name: str, value: object, role: Literal["user", "assistant"], parsed: Parsed) -> list[Turn]:
    """Convert a text to one turn of the role, an object to a turn, a list of objects to turns; of a pair also as JSON.

    In other rows a text that is the JSON of turns may be what the model is to learn.
    """
    keys, unread = parsed.shape.keys, parsed.unread
    if parsed.shape.is_of_pairs and (listed := json_turns(value, keys)) is not None:
        value = listed
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return turn_list(value, name, keys, unread)
    if isinstance(value, dict) and is_turn(value, keys):
        return [one_turn(value, name, keys, unread)]
    if not isinstance(value, str):
        raise RowError(f"field '{name}' is {kind_of(value)}, wanted text")
    return [Turn(role, value)]


def _pair(parsed: Parsed, row: SourceRow) -> Example:
    """Parse two responses to one prompt, which has its own fields or starts both."""
    before = _before(parsed)
    chosen, rejected = (_side(parsed, role, before) for role in ("chosen", "rejected"))
    return Example(chosen, row, rejected=rejected)


def _side(parsed: Parsed, role: Literal["chosen", "rejected"], before: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return the whole conversation of one side."""
    name, value = parsed.value(role)
    if value is None:
        raise RowError(f"no {role} response: field '{name}' is null")
    turns = transcript(value) if isinstance(value, str) else None
    if turns is None or any(turn not in turns for turn in before if turn.role != "system"):
        turns = _turns(name, value, "assistant", parsed)
    if before and before[-1].role == "assistant":  # a conversation up to one of the two responses
        before = before[:-1] if before[-1].text in {turn.text for turn in _responses(parsed)} else before
    joined = _joined(before, turns, name)
    if all(turn.role != "user" for turn in joined):
        raise RowError(f"no prompt (format {parsed.shape.name})")
    return joined


def _responses(parsed: Parsed) -> list[Turn]:
    """Return the last turn of each side, where they can be read."""
    last = []
    for role in SIDES:
        name, value = parsed.value(role)
        with suppress(RowError):
            last += _turns(name, value, "assistant", parsed)[-1:]
    return last


def _check_response(example: Example, shape: Shape) -> None:
    """Check that there is a response to score.

    Raises:
        RowError: there is no response, or it is empty.
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
    """Messages that answer one another, one per row, one tree at a time."""

    def __init__(self) -> None:
        self._tree: str | None = None
        self._threads: dict[str, tuple[Turn, ...]] = {}  # message id → the turns up to it

    def turns(self, parsed: Parsed) -> tuple[Turn, ...]:
        """Return the messages up to the one in the row, which must be an assistant's.

        Raises:
            RowError: the message is not an assistant's, or answers a message that has not come before it.
        """
        text, speaker = parsed.text("text"), parsed.text("speaker")
        role = SPEAKERS.get(speaker.lower())
        if role is None:
            raise RowError(f"field '{parsed.taken['speaker']}' is the unknown role {speaker!r}")
        message, parent, tree = parsed.text("message"), parsed.text_or_none("parent"), parsed.text_or_none("tree")
        if tree is not None and tree != self._tree:
            self._threads = {}
        self._tree = tree
        if parent and parent not in self._threads:
            raise RowError(
                f"answers the message {parent!r}, which is not before it in its tree (a scored file lacks the prompts: "
                "score the file that it was made from)"
            )
        turns = (*(self._threads[parent] if parent else ()), Turn(role, text))
        self._threads[message] = turns
        if len(self._threads) > _MOST_MESSAGES:
            del self._threads[next(iter(self._threads))]
        if role != "assistant":
            raise RowError("a prompt without a response; it is scored with the responses to it")
        return turns
