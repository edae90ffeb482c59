"""Groups the input of a scorer in windows: examples, rows in memory or tables; refuses other types before reading."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import PurePath
from typing import TypeAlias, cast

from instructmining.errors import InputError
from instructmining.errors.arguments import shown
from instructmining.reading.arrow import Table, is_table
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.examples import read_examples, windows_of
from instructmining.reading.objects import Object
from instructmining.types import Example, InputWindow

Examples: TypeAlias = Iterable[Example] | Iterable[Object] | Table

_WANTED = "wanted examples (Example, read_examples), dicts that are rows as in a JSON file, or a table"


def windows_given(given: Examples, rows: int) -> Iterator[InputWindow]:
    """Yield windows of so many rows from a scorer's input; rows that hold no example are rejects in them.

    Args:
        given: an iterable of examples, or of dicts (read lazily; its first item decides), or a table.
        rows: rows of a window.

    Raises:
        InputError: the type is not supported, or an item of a list is of another kind; while iterating, an item of
            an iterator is, or the rows are in no known format.
    """
    if isinstance(given, ExampleReader):
        return windows_of(given, rows)
    if is_table(given):
        return read_examples(given).windows(rows)
    _check(given)
    if isinstance(given, Sequence):
        if given and isinstance(given[0], Mapping):
            return read_examples(given).windows(rows)
        for number, item in enumerate(given):
            _example(number, item)
    return _windows(iter(cast(Iterable[object], given)), rows)


def _windows(items: Iterator[object], rows: int) -> Iterator[InputWindow]:
    first = list(islice(items, 1))
    every = chain(first, items)
    if first and isinstance(first[0], Mapping):
        yield from read_examples(cast(Iterator[Object], every)).windows(rows)
    else:
        yield from windows_of((_example(number, item) for number, item in enumerate(every)), rows)


def _example(number: int, item: object) -> Example:
    if not isinstance(item, Example):
        raise InputError(f"item {number + 1} of what is scored is {shown(item)}; {_WANTED}")
    return item


def _check(given: object) -> None:
    """Explain why an unsupported input cannot be scored, and what to pass instead.

    Raises:
        InputError: the input is not supported.
    """
    if isinstance(given, (str, PurePath)):
        raise InputError(f"what is scored is the path {str(given)!r}; give read_examples({str(given)!r})")
    if isinstance(given, io.IOBase):
        raise InputError(f"what is scored is an open file, {shown(given)}; give read_examples(PATH)")
    if isinstance(given, Mapping) and any(is_table(part) for part in given.values()):
        raise InputError(f"what is scored are several splits ({', '.join(map(str, given))}); give one of them")
    if isinstance(given, (Mapping, Example)):
        raise InputError(f"what is scored is a single {type(given).__name__}; give a list of it: [row]")
    if hasattr(given, "collect_schema"):
        raise InputError(f"what is scored is {shown(given)}, which has no rows yet; give frame.collect()")
    if isinstance(given, (bytes, bytearray)) or not isinstance(given, Iterable):
        raise InputError(f"what is scored is {shown(given)}; {_WANTED}")
