"""Cuts an input into shards of about equal size, from what its files say of themselves."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from instructmining.errors import InputError
from instructmining.reading.blocks import Blocks, Cut
from instructmining.reading.options import ReadOptions
from instructmining.reading.rows import RowReader, open_rows


def even_cuts(paths: Sequence[str], shards: int, options: ReadOptions) -> list[Cut]:
    """Return the cuts between the shards of an input, ascending; equal ones where a shard is empty.

    They depend on the files and the number of shards alone. Shards have about equal bytes, as the files are stored.
    Compressed and Arrow files that are larger than a shard are read for it, since they do not say how much they hold.

    Args:
        paths: files, in order.
        shards: how many.
        options: of reading; a cut lies where a block ends.

    Returns:
        One cut fewer than there are shards.

    Raises:
        InputError: a file cannot be read, or is a pipe.
    """
    readers = [open_rows(path, options) for path in paths]
    if once := next((reader.path for reader in readers if reader.once), None):
        raise InputError(f"{once}: can be read only once, so it cannot be read in parts; give files")
    cutting = _Cutting(readers, Blocks(readers, options.block_bytes), shards)
    return sorted(cutting.at(number) for number in range(1, shards))


class _Cutting:
    def __init__(self, readers: Sequence[RowReader], blocks: Blocks, shards: int) -> None:
        self._readers = readers
        self._blocks = blocks
        self._sizes = [reader.bytes_total or 0 for reader in readers]
        self._ends = list(accumulate(self._sizes))
        self._total = self._ends[-1] if self._ends else 0
        self._shards = shards
        self._units: dict[int, int | None] = {}

    def at(self, number: int) -> Cut:
        """Return the cut before a shard, counted from 0."""
        wanted = self._total * number / self._shards
        file = bisect_right(self._ends, wanted)
        if file == len(self._readers):
            return Cut(file, 0)
        share = 1 - (self._ends[file] - wanted) / self._sizes[file]
        units, unit = self._units_of(file), self._blocks.unit(file)
        if units is None:
            return self._beginning(file + (share > 0.5))
        at = round(share * units / unit) * unit
        if 0 < at < units:
            return Cut(file, at)
        return self._beginning(file + (at > 0))

    def _units_of(self, file: int) -> int | None:
        """Return the bytes of a file's text, or the rows of a table; None for one that is left whole."""
        if file not in self._units:
            is_large = self._sizes[file] > self._total / self._shards
            self._units[file] = self._readers[file].units_total(scan=is_large)
        return self._units[file]

    def _beginning(self, file: int) -> Cut:
        """Return the cut before a file, or before the next one that a block begins with."""
        while file < len(self._readers) and not self._blocks.begins_at(file):
            file += 1
        return Cut(file, 0)
