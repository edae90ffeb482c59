"""Finds where the columns of a Parquet file end: a minimal decoder of Thrift's compact protocol for its footer.

pyarrow reads this too, but crashes the process on damaged size statistics in a footer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, TypeAlias, cast

from instructmining.stores.files import open_file

MAGIC = b"PAR1"
_SIZE = 4  # bytes that hold the footer's length, before the magic at the end
_MOST = 1 << 20  # largest footer read here, in bytes; decoding it takes a third of a second
_FIRST_FIELD = b"\x15"  # first byte of every footer: the version, a number
_DEEPEST = 16
_BITS = 70  # 64 bits in groups of seven, rounded up
_CHUNK = 1 << 20
_ROW_GROUPS, _COLUMNS, _OF_COLUMN, _PACKED_SIZE, _DATA, _DICTIONARY = 4, 1, 3, 7, 9, 11  # field numbers

Value: TypeAlias = "int | list[Value] | dict[int, Value] | None"


def is_several(path: str) -> bool:
    """Return whether Parquet files were concatenated: the footer is the last file's, its offsets point into the first.

    If so, one file ends and another begins between the last column and the footer, where indexes are. Files with a
    footer over a megabyte are not checked.
    """
    with open_file(path) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _SIZE - len(MAGIC)))
        footer = int.from_bytes(file.read(_SIZE), "little")
        begin = size - len(MAGIC) - _SIZE - footer
        if footer > _MOST or begin < 0:
            return False
        file.seek(begin)
        at = min(_end_of_columns(file.read(footer)), begin)
        return any(_ends_a_file(file, place) for place in _places(file, at, begin))


def _places(file: BinaryIO, at: int, end: int) -> Iterator[int]:
    """Yield the places where the magic stands twice, in two files or in a text, between two bytes of a file."""
    twice = MAGIC * 2
    kept = b""
    while at < end:
        file.seek(at)
        part = kept + file.read(min(_CHUNK, end - at))
        begin = at - len(kept)
        yield from (begin + match.start() for match in re.finditer(re.escape(twice), part))
        kept = part[-len(twice) + 1 :]
        at += _CHUNK


def _ends_a_file(file: BinaryIO, place: int) -> bool:
    """Return whether a footer precedes the magic at a place."""
    file.seek(max(0, place - _SIZE))
    begin = place - _SIZE - int.from_bytes(file.read(_SIZE), "little")
    file.seek(max(0, begin))
    return begin >= len(MAGIC) and file.read(1) == _FIRST_FIELD


def _end_of_columns(footer: bytes) -> int:
    """Return the byte after the last column of the last row group; the end of the first magic where there is none."""
    try:
        groups = _Compact(footer).structure(0)[_ROW_GROUPS]
        chunks = [chunk for group in _structures(groups) for chunk in _structures(group[_COLUMNS])]
        columns = [cast(dict[int, int], chunk[_OF_COLUMN]) for chunk in chunks if _OF_COLUMN in chunk]
        ends = [min(one.get(_DICTIONARY) or one[_DATA], one[_DATA]) + one[_PACKED_SIZE] for one in columns]
        return max([len(MAGIC), *ends])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # damage, which pyarrow reports
        return len(MAGIC)


def _structures(value: Value) -> list[dict[int, Value]]:
    return cast(list[dict[int, Value]], value)


class _Compact:
    """Decodes values; keeps numbers, lists and structures and skips everything else."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def structure(self, depth: int) -> dict[int, Value]:
        """Read the fields of a structure, by their numbers.

        Raises:
            IndexError: the structure does not end.
            ValueError: it is nested too deep, or has an unknown type.
        """
        fields: dict[int, Value] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            fields[number] = None if kind in (1, 2) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Value:
        if depth > _DEEPEST:
            raise ValueError("nested too deep")
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind in (7, 8):
            size = 8 if kind == 7 else self._unsigned()
            self._at += size
            return None
        if kind in (9, 10):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._unsigned()
            return [self._value(head & 15, depth + 1) for _ in range(size)]
        if kind == 12:
            return self.structure(depth)
        raise ValueError("no such type")

    def _byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1]

    def _unsigned(self) -> int:
        number = shift = 0
        while (byte := self._byte()) & 128:
            number |= (byte & 127) << shift
            shift += 7
            if shift >= _BITS:
                raise ValueError("no such number")
        return number | byte << shift

    def _signed(self) -> int:
        number = self._unsigned()
        return number >> 1 ^ -(number & 1)
