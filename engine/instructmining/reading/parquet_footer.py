"""Where the columns of a Parquet file end, by its footer: Thrift's compact protocol, as far as it is wanted here.

pyarrow tells it too, but ends the process where a footer's statistics of sizes are damaged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

MAGIC = b"PAR1"
_SIZE = 4  # bytes that say how long the footer is, before the magic at the end
_MOST = 1 << 20  # bytes of a footer that is read here, which takes a third of a second
_FIRST_FIELD = b"\x15"  # with which every footer begins: the version, a number
_DEEPEST = 16
_BITS = 70  # that seven at a time make of 64
_CHUNK = 1 << 20
_ROW_GROUPS, _COLUMNS, _OF_COLUMN, _PACKED_SIZE, _DATA, _DICTIONARY = 4, 1, 3, 7, 9, 11  # numbers of fields

Value: TypeAlias = "int | list[Value] | dict[int, Value] | None"


def is_several(path: str) -> bool:
    """Whether Parquet files were put one behind the other: the footer is the last one's, its places are of the first.

    Between the last column and the footer, where indexes are, one file ends then and another begins. Of a footer of
    more than a megabyte it is not looked at.
    """
    with Path(path).open("rb") as file:
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
    """Where the magic stands twice, of two files or of a text, between two bytes of a file."""
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
    """Whether a footer stands before the magic at a place."""
    file.seek(max(0, place - _SIZE))
    begin = place - _SIZE - int.from_bytes(file.read(_SIZE), "little")
    file.seek(max(0, begin))
    return begin >= len(MAGIC) and file.read(1) == _FIRST_FIELD


def _end_of_columns(footer: bytes) -> int:
    """The byte behind the last column of the last row group; that of the magic at the front where none is found."""
    try:
        groups = _Compact(footer).structure(0)[_ROW_GROUPS]
        chunks = [chunk for group in _structures(groups) for chunk in _structures(group[_COLUMNS])]
        columns = [cast(dict[int, int], chunk[_OF_COLUMN]) for chunk in chunks if _OF_COLUMN in chunk]
        ends = [min(one.get(_DICTIONARY) or one[_DATA], one[_DATA]) + one[_PACKED_SIZE] for one in columns]
        return max([len(MAGIC), *ends])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # damage, which pyarrow says
        return len(MAGIC)


def _structures(value: Value) -> list[dict[int, Value]]:
    return cast(list[dict[int, Value]], value)


class _Compact:
    """Reads values; numbers, lists and structures are kept, all else is passed over."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def structure(self, depth: int) -> dict[int, Value]:
        """The fields of a structure by their numbers.

        Raises:
            IndexError: it does not end.
            ValueError: it nests too deep, or has a type that is none.
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
