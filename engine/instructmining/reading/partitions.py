"""Reads from a path the columns that folders named ``name=value`` give (hive partitions).

Values are text: another type would depend on all files of an input, and a shard reads only its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias
from urllib.parse import unquote

from instructmining.errors import InputError
from instructmining.errors.arguments import shown
from instructmining.reading.values import utf8

NULL = "__HIVE_DEFAULT_PARTITION__"
_MAGIC = frozenset("*?[")

Columns: TypeAlias = Mapping[str, "str | None"]


def top_of(given: str, *, is_pattern: bool) -> str:
    """Return the folder below which folders give columns: a folder that was given, or a pattern up to its first star.

    Args:
        given: as it was given; an address with a scheme too.
        is_pattern: whether it is a pattern.
    """
    if not is_pattern:
        return _plain(given)
    parts = given.split("/")
    fixed = next((at for at, part in enumerate(parts) if not _MAGIC.isdisjoint(part)), len(parts) - 1)
    return _plain("/".join([*parts[:fixed], ""]))


def columns_of(path: str, tops: Iterable[str]) -> Columns:
    """Return the columns that the folders of a file give, in the order of the path; none where there are no such.

    Args:
        path: of the file.
        tops: see :func:`top_of`; the highest one above the file counts.

    Raises:
        InputError: two folders of the path give one column different values.
    """
    below = max((found for top in tops if (found := _below(_plain(path), top)) is not None), key=len, default="")
    columns: dict[str, str | None] = {}
    for folder in below.split("/")[:-1]:
        name, is_named, text = folder.partition("=")
        if not name or not is_named:
            continue
        name, value = _decoded(name), None if text == NULL else _decoded(text)
        if columns.setdefault(name, value) != value:
            raise InputError(
                f"{utf8(path)}: its folders say that {name!r} is {shown(columns[name])} and {shown(value)}; "
                "rename one of them, or give the file itself, which leaves the folders' columns out"
            )
    return columns


def tops_in_use(paths: Iterable[str], top: str) -> list[str]:
    """Return the folder, if any of the files below it gets a column."""
    return [top] if any("=" in path and columns_of(path, (top,)) for path in paths) else []


def _plain(path: str) -> str:
    """Return a path without empty parts and dots; ``//`` after a scheme stays."""
    scheme, mark, rest = path.rpartition("://")
    parts = "/".join(part for part in rest.split("/") if part not in {"", "."})
    return f"{scheme}{mark}{'/' if rest.startswith('/') else ''}{parts}"


def _below(path: str, top: str) -> str | None:
    if not top:  # the current folder
        return None if path.startswith("/") or "://" in path else path
    above = top if top.endswith("/") else f"{top}/"
    return path.removeprefix(above) if path.startswith(above) else None


def _decoded(text: str) -> str:
    """Return a text without percent signs for bytes, as tools write them; as it is where they are no UTF-8."""
    try:
        return unquote(utf8(text), errors="strict")
    except UnicodeDecodeError:
        return utf8(text)
