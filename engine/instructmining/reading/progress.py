"""How much of an input, or of a part of it, was read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from instructmining.reading.blocks import Cut
from instructmining.reading.rows import RowReader


class Progress:
    """Rows and stored bytes up to the last row; safe to read from any thread."""

    def __init__(self, readers: Sequence[RowReader]) -> None:
        """Take the readers of all files; nothing is read yet."""
        self._readers = readers
        sizes = [reader.bytes_total for reader in readers]
        self._is_known = None not in sizes
        self._sizes = [size or 0 for size in sizes]
        self._before_file = list(accumulate(self._sizes, initial=0))
        self._begin, self._end = 0.0, float(self._before_file[-1])  # bytes of all files that the part lies between
        self._seen = (0, 0.0)  # rows, and bytes of all files up to the end of the last row

    def restrict(self, begin: Cut | None, end: Cut | None) -> None:
        """Count only what is between two cuts; None for the beginning and the end of the input."""
        self._begin = self._before(begin) if begin is not None else self._begin
        self._end = self._before(end) if end is not None else self._end
        self._seen = (0, self._begin)

    def note(self, rows: int, file: int, bytes_read: float) -> None:
        """Note the rows so far, and the bytes of the current file."""
        self._seen = (rows, self._before_file[file] + bytes_read)

    @property
    def share(self) -> float | None:
        """Share of the part's bytes up to the end of the last row counted, 0..1; None where unknown."""
        if not self._is_known:
            return None
        if self._end <= self._begin:
            return 1.0
        return min(1.0, max(0.0, (self._seen[1] - self._begin) / (self._end - self._begin)))

    @property
    def rows_expected(self) -> float | None:
        """Estimated rows of the part, from the rows counted and their share; None where unknown."""
        share = self.share
        return self._seen[0] / share if share and self._end > self._begin else None

    def _before(self, cut: Cut) -> float:
        """The stored bytes of all files before a cut; in a compressed file an estimate."""
        before = float(self._before_file[cut.file])
        if not cut.at:
            return before
        size = self._sizes[cut.file]
        units = self._readers[cut.file].units_total(scan=False) or size
        return before + size * min(1.0, cut.at / max(1, units))
