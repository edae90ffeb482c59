"""Finds the members of a JSON object in its bytes, and removes some of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import orjson

from instructmining.reading.values import dumps

# A string, a bracket, or a separator; everything else is numbers, words and spaces.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Member:
    """The place of a member in an object's bytes."""

    name: str
    key: int  # start of its name
    value: tuple[int, int]  # start and end of its value


def members(raw: bytes) -> Iterator[Member]:
    """Yield the members of one valid JSON object."""
    depth = 0
    name, key, begin = "", 0, -1
    for match in _TOKEN.finditer(raw):
        symbol = match.group()
        depth -= symbol in (b"}", b"]")
        if (depth == 0 and symbol == b"}") or (depth == 1 and symbol == b","):
            if begin >= 0:
                text = raw[begin : match.start()]
                start = match.start() - len(text.lstrip())
                yield Member(name, key, (start, start + len(text.strip())))
            begin = -1
        elif depth == 1 and symbol == b":":
            begin = match.end()
        elif depth == 1 and begin < 0 and symbol.startswith(b'"'):
            name, key = orjson.loads(symbol), match.start()
        depth += symbol in (b"{", b"[")


def _names_twice(rest: bytes, names: Collection[str]) -> bool:
    """Return whether an object still has members of these names after the last of each was removed."""
    if not any(orjson.dumps(name) in rest for name in names):  # not even nested
        return False
    return any(member.name in names for member in members(rest))


def without(raw: bytes, fields: Mapping[str, object], names: Collection[str]) -> bytes:
    """Remove members from an object's bytes; the bytes of the others stay as they are.

    Args:
        raw: the object's bytes.
        fields: the object's fields, parsed.
        names: names of the members to remove.
    """
    # score writes its columns at the end of a row and nothing after them: bytes that open with a comma and close with
    # the row's own bracket can only be its last members.
    with suppress(TypeError):  # a value may be nested too deep to be written
        end = b"," + dumps({name: value for name, value in fields.items() if name in names})[1:]
        rest = raw[: -len(end)] + b"}"
        if raw.endswith(end) and not _names_twice(rest, [name for name in fields if name in names]):
            return rest
    kept = [raw[member.key : member.value[1]] for member in members(raw) if member.name not in names]
    return b"{" + b",".join(kept) + b"}"
