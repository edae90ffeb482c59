"""Converts rows to examples: the published shapes of instruction data, as one table.

Detection, reading, errors, ``inspect`` and docs/formats.md all come from :data:`SHAPES`. A shape lists the field names
of each role in a conversation; any other field that holds text is reported as not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal, TypeAlias, get_args

from instructmining.errors import InputError
from instructmining.errors.arguments import check_type, shown
from instructmining.errors.names import no_such, short
from instructmining.reading.conversations import TurnKeys
from instructmining.types import SourceRow

FormatName: TypeAlias = Literal[
    "preference",
    "alpaca",
    "sharegpt",
    "messages",
    "capybara",
    "ultrachat",
    "oasst",
    "prompt_response",
    "text",
    "mapped",
]
FieldRole: TypeAlias = Literal[
    "system",
    "history",
    "messages",
    "prompt",
    "context",
    "response",
    "chosen",
    "rejected",
    "text",
    "speaker",
    "message",
    "parent",
    "tree",
]
Unread: TypeAlias = Literal["warn", "error", "count"]
Fields: TypeAlias = Mapping[str, object]
Names: TypeAlias = tuple[str, ...]

# What --map accepts: roles of fields, and keys inside turns.
MAP_ROLES: tuple[FieldRole, ...] = (
    "prompt",
    "context",
    "response",
    "system",
    "history",
    "messages",
    "chosen",
    "rejected",
)
MAP_KEYS = ("role", "content")

_SYSTEM = ("system", "system_prompt")
_PROMPT = ("prompt", "question", "query", "instruction", "input")
_CONTEXT = ("context", "input")
_RESPONSE = ("response", "completion", "answer", "output")
_EMPTY: tuple[object, ...] = (None, "")
_OPTIONAL = frozenset({"system", "history", "context"})


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to write an example as a row.

    Of the names of a role, the first field that holds something is used. A field has one role: the first listed that
    fits it.
    """

    name: FormatName
    about: str
    needs: tuple[FieldRole, ...]  # a row with fields for all of these has the shape
    fields: Mapping[FieldRole, Names]
    keys: TurnKeys = field(default_factory=TurnKeys)
    either: tuple[FieldRole, ...] = ()  # only one of these roles is used: the first that holds something

    def assigned(self, fields: Fields, ignored: frozenset[str] = frozenset()) -> dict[FieldRole, str]:
        """Return the field of each role in a row."""
        taken: dict[FieldRole, str] = {}
        used: set[str] = set()
        for role, names in self.fields.items():
            there = [name for name in names if name in fields and name not in ignored and name not in used]
            if len(there) > 1 and role == "prompt":  # next to another prompt, ``input`` is its context
                there = [name for name in there if name not in self.fields.get("context", ())] or there
            if there:
                taken[role] = next((name for name in there if fields[name] not in _EMPTY), there[0])
                used.add(taken[role])
        rivals = [role for role in self.either if role in taken]
        if len(rivals) > 1:
            winner = next((role for role in rivals if fields[taken[role]] not in _EMPTY), rivals[0])
            for role in rivals:
                if role != winner:
                    del taken[role]
        return taken

    def is_plain(self, names: Collection[str], ignored: frozenset[str] = frozenset()) -> bool:
        """Return whether the names of the fields alone decide their roles, whatever the fields hold."""
        by_role = [[name for name in own if name in names and name not in ignored] for own in self.fields.values()]
        there = [name for own in by_role for name in own]
        rivals = [role for role, own in zip(self.fields, by_role, strict=True) if own and role in self.either]
        return all(len(own) < 2 for own in by_role) and len(set(there)) == len(there) and len(rivals) < 2

    def has(self, fields: Fields, ignored: frozenset[str] = frozenset()) -> bool:
        """Return whether a row has the shape."""
        taken = self.assigned(fields, ignored)
        return all(role in taken for role in self.needs)

    @property
    def is_of_pairs(self) -> bool:
        """Whether the rows are preference pairs."""
        return "chosen" in self.needs

    def described(self) -> str:
        """Return the name and the required fields, for messages."""
        wanted = (self.fields[role] for role in self.needs)
        return f"{self.name} ({', '.join('|'.join(names) for names in wanted)})"


# In the order of detection. The last is used only where no row looked at has another shape.
SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape(
            "preference",
            "a prompt with a chosen and a rejected response, each scored: columns `chosen.X`, `rejected.X`, `margin.X`",
            ("chosen", "rejected"),
            {
                "system": _SYSTEM,
                "history": ("history",),
                "prompt": _PROMPT,
                "messages": ("conversations", "messages"),
                "context": _CONTEXT,
                "chosen": ("chosen",),
                "rejected": ("rejected",),
            },
            TurnKeys(("from", "role"), ("value", "content")),
            ("prompt", "messages"),
        ),
        Shape(
            "alpaca",
            "an instruction, its input on a line of its own below it, the output",
            ("prompt", "response"),
            {
                "system": _SYSTEM,
                "history": ("history",),
                "prompt": ("instruction",),
                "context": ("input", "context"),
                "response": ("output",),
            },
        ),
        Shape(
            "sharegpt",
            "a list of turns with `from` and `value`, or of texts, user and assistant in turn",
            ("messages",),
            {"system": _SYSTEM, "messages": ("conversations",)},
            TurnKeys(("from", "role"), ("value", "content")),
        ),
        Shape(
            "messages",
            "a list of turns with `role` and `content`, as OpenAI writes them, or its JSON as a text",
            ("messages",),
            {"system": _SYSTEM, "messages": ("messages",)},
        ),
        Shape(
            "prompt_response",
            "a prompt, perhaps with a context, and a response, each a text or a list of turns",
            ("prompt", "response"),
            {
                "system": _SYSTEM,
                "history": ("history",),
                "prompt": _PROMPT,
                "context": _CONTEXT,
                "response": _RESPONSE,
            },
        ),
        Shape(
            "capybara",
            "a list of exchanges with `input` and `output`",
            ("messages",),
            {"system": _SYSTEM, "messages": ("conversation",)},
        ),
        Shape(
            "ultrachat",
            "a list of texts, user and assistant in turn",
            ("messages",),
            {"system": _SYSTEM, "messages": ("data",)},
        ),
        Shape(
            "oasst",
            "a message a row: an assistant's is an example, with the messages that it answers before it",
            ("text", "speaker", "message"),
            {
                "text": ("text",),
                "speaker": ("role",),
                "message": ("message_id",),
                "parent": ("parent_id",),
                "tree": ("message_tree_id",),
            },
        ),
        Shape(
            "text",
            "one text: a transcript with its speakers' names (`Human:`, `Assistant:`), else all of it the response",
            ("text",),
            {"text": ("text",)},
        ),
    )
}
FORMATS: tuple[FormatName, ...] = tuple(shape.name for shape in SHAPES.values())
_LAST: FormatName = "text"


@dataclass(frozen=True, slots=True)
class FieldOptions:
    """How fields of rows are read; by default the shape of each file is detected in its first rows."""

    format: FormatName | None = None  # format of all files
    map: Mapping[str, str] = field(default_factory=dict)  # role or key of a turn → field; instead of a format
    ignore: frozenset[str] = frozenset()  # fields that are not read; a key inside turns as ``messages[].name``
    unread: Unread = "warn"  # for text neither read nor ignored: a warning, an error, or a count alone

    def __post_init__(self) -> None:
        """Check that the options are valid together.

        Raises:
            InputError: an option is unknown, or two contradict each other.
        """
        format_name(self.format)
        if self.unread not in get_args(Unread):
            raise InputError(f"unread: {no_such('way', str(self.unread), get_args(Unread))}")
        check_type("map", self.map, Mapping, wanted="a dict of roles and fields: {'prompt': 'query'}", error=InputError)
        kinds = (frozenset, set, list, tuple)
        check_type("ignore", self.ignore, kinds, wanted="names of fields: {'topic'}", error=InputError)
        names = [*self.map, *self.map.values(), *self.ignore]
        if wrong := [name for name in names if not isinstance(name, str)]:
            raise InputError(f"map and ignore name fields: {shown(wrong[0])}, wanted text")
        object.__setattr__(self, "ignore", frozenset(self.ignore))
        if self.map and self.format is not None:
            raise InputError("--map and --format both say what the fields are; give one of them")
        for role in self.map:
            if role not in (*MAP_ROLES, *MAP_KEYS):
                known = (*MAP_ROLES, *MAP_KEYS)
                raise InputError(f"--map: {no_such('role', role, known)}")
        roles = self.map.keys() - set(MAP_KEYS)
        if ("chosen" in roles) != ("rejected" in roles):
            raise InputError("--map: a pair is 'chosen' and 'rejected'; name both")
        if roles and not roles & {"response", "messages", "chosen"}:
            raise InputError("--map: no response; name 'response', 'messages', or 'chosen' and 'rejected'")
        if twice := [name for name, count in Counter(self.map[role] for role in roles).items() if count > 1]:
            raise InputError(f"--map: the field {twice[0]!r} is given more than one role")
        if both := sorted(self.ignore.intersection(self.map.values())):
            raise InputError(f"--ignore leaves out {both[0]!r}, and --map reads it; give one of them")

    def shape_of(self, rows: Sequence[SourceRow]) -> Shape:
        """Return the shape of a file from its first rows.

        Raises:
            InputError: the rows have no known shape, or lack a field that was named.
        """
        if mapped := [self.map[role] for role in MAP_ROLES if role in self.map]:
            _check_fields(mapped, rows)
            return self.shape_named("mapped")
        return self.shape_named(self.format or detect(rows, self.ignore))

    def shape_named(self, name: str) -> Shape:
        """Return the shape of that name, or the mapped one."""
        role, content = self.map.get("role"), self.map.get("content")
        if name in SHAPES and role is None and content is None:
            return SHAPES[name]
        default = SHAPES[name].keys if name in SHAPES else TurnKeys()
        keys = TurnKeys((role,) if role else default.role, (content,) if content else default.content)
        if name in SHAPES:
            return replace(SHAPES[name], keys=keys)
        fields = {role: (self.map[role],) for role in MAP_ROLES if role in self.map}
        needs = tuple(role for role in fields if role not in _OPTIONAL)
        return Shape("mapped", "fields as --map names them", needs, fields, keys)


def has_path(fields: Fields, path: str) -> bool:
    """Return whether a path of names and numbers, such as ``answers.text.0``, leads to a value."""
    return value_at(fields, path) is not None


def value_at(fields: object, path: str) -> object:
    """Return the value at a path; None where there is none."""
    value = fields
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def format_name(name: str | None) -> FormatName | None:
    """Check the name of a format; None stays None.

    Raises:
        InputError: there is no such format.
    """
    if name is None:
        return None
    check_type("format", name, str, wanted=f"one of {', '.join(FORMATS)}, or None", error=InputError)
    for known in FORMATS:
        if name == known:
            return known
    raise InputError(no_such("format", name, FORMATS))


def detect(rows: Sequence[SourceRow], ignored: frozenset[str] = frozenset()) -> FormatName:
    """Return the format of the first row that has one; "text" only where no row has another.

    Raises:
        InputError: no row has a known format; the message lists the fields found and the formats known.
    """
    first = [shape for shape in SHAPES.values() if shape.name != _LAST]
    for shapes, filled in ((first, True), (first, False), ([SHAPES[_LAST]], False)):
        for row in rows:
            fields = {name: value for name, value in row.fields.items() if not filled or value not in (None, [])}
            for shape in shapes:
                if shape.has(fields, ignored):
                    return shape.name
    where = rows[0].source if rows else "input"
    found = field_names(chain.from_iterable(row.fields for row in rows))
    known = ", ".join(shape.described() for shape in SHAPES.values())
    raise InputError(
        f"{where}: no known format in the first {'row' if len(rows) == 1 else f'{len(rows)} rows'}; fields found: "
        f"{found}; known: {known}; say which fields are meant, as in --map prompt=FIELD,response=FIELD or, "
        "of a list of turns, --map messages=FIELD; fields inside of others have dots: response=answer.text"
    )


def lacking_one(fields: Fields) -> FormatName | None:
    """Return the first format of which a row lacks one role; None where each lacks more."""
    for shape in SHAPES.values():
        taken = shape.assigned(fields)
        if 0 < sum(role in taken for role in shape.needs) == len(shape.needs) - 1:
            return shape.name
    return None


def is_a_row(names: Collection[str]) -> bool:
    """Return whether an object with these fields has a shape, whatever its other fields are."""
    return any(
        all(any(name in names for name in shape.fields[role]) for role in shape.needs) for shape in SHAPES.values()
    )


def field_names(names: Iterable[str]) -> str:
    """Return the names of fields, each once, for messages."""
    found = sorted(set(names))
    return f"{', '.join(map(short, found[:12]))}{', …' if len(found) > 12 else ''}" or "none"


def _check_fields(named: Iterable[str], rows: Sequence[SourceRow]) -> None:
    """Check that named fields exist.

    Raises:
        InputError: no row has one of them.
    """
    there = list(dict.fromkeys(chain.from_iterable(row.fields for row in rows)))
    for name in named:
        if rows and name not in there and not any(has_path(row.fields, name) for row in rows):
            where = f"the first {len(rows)} rows" if len(rows) > 1 else "the first row"
            raise InputError(f"{rows[0].source}: --map: in {where} is {no_such('field', name, there)}")
