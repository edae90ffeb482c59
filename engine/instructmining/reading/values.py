"""Parses and writes JSON, with integers of any size and the same depth of nesting both ways."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import orjson

DEEPEST = 1024  # nested lists and objects that are read
_BEYOND = 2.0**63  # orjson parses integers beyond 64 bits as floats, which are at least this large
_LOOKED_INTO = frozenset({dict, list, float})

Default: TypeAlias = Callable[[Any], object]


def loads(text: bytes | str) -> Any:  # noqa: ANN401 - JSON
    """Parse a JSON text.

    Raises:
        orjson.JSONDecodeError: the text is no JSON, or is nested too deep.
    """
    value = orjson.loads(text)
    if not _has_beyond(value):
        return value
    try:
        return json.loads(text)
    except RecursionError as error:
        raise orjson.JSONDecodeError("an integer beyond 64 bits inside too many lists and objects", "", 0) from error
    except ValueError as error:
        raise orjson.JSONDecodeError(str(error), "", 0) from error


def dumps(value: object, *, default: Default | None = None, sort_keys: bool = False) -> bytes:
    """Write a value as JSON, without spaces.

    Args:
        value: lists, dicts with text keys, and what orjson writes.
        default: converts a value of any other type.
        sort_keys: whether members are sorted by name, so that equal objects have equal bytes.

    Raises:
        TypeError: the value holds another type, or is nested deeper than is read.
    """
    try:
        return orjson.dumps(value, default=default, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError:
        return _written(value, default, sort_keys=sort_keys)


def utf8(text: str) -> str:
    r"""Return a file name as text; bytes that are not UTF-8 become \xff."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def all_utf8(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a JSON value with :func:`utf8` applied to every text, for files that hold paths."""
    if isinstance(value, str):
        return utf8(value)
    if isinstance(value, dict):
        return {all_utf8(name): all_utf8(inner) for name, inner in value.items()}
    return [all_utf8(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _has_beyond(value: object) -> bool:
    """Return whether a value holds a float as large as an integer beyond 64 bits."""
    waiting: list[Any] = [(value,)]
    while waiting:
        items = waiting.pop()
        if _LOOKED_INTO.isdisjoint(map(type, items)):
            continue
        for item in items:
            kind = type(item)
            if kind is dict:
                waiting.append(item.values())
            elif kind is list:
                waiting.append(item)
            elif kind is float and not -_BEYOND < item < _BEYOND:
                return True
    return False


class _Raw(bytes):
    """Bytes that are written as they are."""


_CLOSING = (_Raw(b"]"), _Raw(b"}"))


def _written(value: object, default: Default | None, *, sort_keys: bool) -> bytes:
    """Write a value like :func:`dumps`, without recursion."""
    pieces: list[bytes] = []
    waiting: list[object] = [value]  # what is still to write, the next one last
    depth = 0
    while waiting:
        item = waiting.pop()
        if isinstance(item, _Raw):
            pieces.append(item)
            depth -= item in _CLOSING
        elif isinstance(item, (dict, list, tuple)):
            if depth == DEEPEST:
                raise TypeError(f"more than {DEEPEST} lists and objects inside each other")
            depth += 1
            is_object = isinstance(item, dict)
            pieces.append(b"{" if is_object else b"[")
            waiting.append(_CLOSING[is_object])
            inside = _members(item, sort_keys=sort_keys) if isinstance(item, dict) else [(b"", part) for part in item]
            for number, (name, part) in reversed(list(enumerate(inside))):
                waiting += [part, _Raw(b"," * (number > 0) + name)]
        else:
            pieces.append(_leaf(item, default))
    return b"".join(pieces)


def _members(item: Mapping[object, object], *, sort_keys: bool) -> list[tuple[bytes, object]]:
    for name in item:
        if not isinstance(name, str):
            raise TypeError("Dict key must be str")
    names = sorted(item, key=str) if sort_keys else item
    return [(orjson.dumps(str(name)) + b":", item[name]) for name in names]


def _leaf(item: object, default: Default | None) -> bytes:
    if isinstance(item, int) and not isinstance(item, bool):
        return str(int(item)).encode()
    return orjson.dumps(item, default=default)
