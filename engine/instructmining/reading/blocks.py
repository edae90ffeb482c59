"""Blocks of an input: stretches of rows that no window crosses, so that an input can be scored in parts.

Blocks depend on the files alone, not on who reads them: in a file they end at multiples of a size, and small files that
follow each other share a block. So windows, and with them the batches, are the same in one run as in many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from instructmining.reading.rows import WINDOW_BYTES
from instructmining.types import Example, Reject, bytes_of

Item = TypeVar("Item", bound="Example | Reject")
ROW_BYTES = 1024  # of a table's row, about: a block of a table has so many times fewer rows than one of text has bytes
Block: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True, order=True)
class Cut:
    """A place between two rows of an input, where a block ends."""

    file: int  # which of the input's files holds the first row after it
    at: int  # that row begins at this byte of the file's uncompressed text or later; in a table, is this row or a later


class BlockSource(Protocol):
    """What blocks depend on of a file."""

    @property
    def bytes_total(self) -> int | None:
        """Size of the file as it is stored."""

    @property
    def of_rows(self) -> bool:
        """Whether the offset of a row counts rows, not bytes."""


class Blocks:
    """The blocks of an input's files, and the part of them that is read."""

    def __init__(self, files: Sequence[BlockSource], block_bytes: int) -> None:
        """Take all files; the part is all of them.

        Args:
            files: in order.
            block_bytes: bytes of a block.
        """
        self._units = [max(1, block_bytes // ROW_BYTES) if file.of_rows else block_bytes for file in files]
        self._begin, self._end = Cut(0, 0), Cut(len(files), 0)
        self._group: list[int] = []  # of each file: files of one group may share a block
        before = 0
        for file in files:
            self._group.append(before // block_bytes)
            before += file.bytes_total or 0

    def restrict(self, begin: Cut | None, end: Cut | None) -> None:
        """Make the part what is between two cuts, None for the beginning and the end."""
        self._begin = begin or self._begin
        self._end = end or self._end

    @property
    def files(self) -> range:
        """The files that have rows in the part."""
        return range(self._begin.file, min(len(self._units), self._end.file + (self._end.at > 0)))

    def bounds(self, file: int) -> tuple[int, int | None]:
        """Return the offsets between which the rows of a file are in the part; None for its end."""
        return self._begin.at if file == self._begin.file else 0, self._end.at if file == self._end.file else None

    def of(self, file: int, offset: int) -> Block:
        """Return the block of a row."""
        return self._group[file], offset // self._units[file]

    def unit(self, file: int) -> int:
        """Return the bytes of a file's text, or the rows of a table, after which a block ends."""
        return self._units[file]

    def begins_at(self, file: int) -> bool:
        """Return whether a block begins with this file, whatever is in those before."""
        return file == 0 or self._group[file] != self._group[file - 1]


def windows_within(items: Iterable[Item | None], rows: int) -> Iterator[list[Item]]:
    """Group items by number of rows or bytes, whichever is full first; a longer item stands alone.

    Args:
        items: None where a block ends.
        rows: of a window.
    """
    taken: list[Item] = []
    size = 0
    for item in items:
        if item is not None:
            taken.append(item)
            size += bytes_of(item)
        if taken and (item is None or len(taken) == rows or size >= WINDOW_BYTES):
            yield taken
            taken, size = [], 0
    if taken:
        yield taken
