"""The base of all readers of rows from a file's bytes."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from instructmining.errors import InputError
from instructmining.reading.compression import DAMAGE, ByteSource, file_size, is_pipe, opened
from instructmining.reading.options import ReadOptions
from instructmining.reading.values import utf8
from instructmining.types import RowOrReject

if TYPE_CHECKING:
    pass


_CHUNK = 1 << 20


class FileRows(ABC):
    """Rows of one file in order, read from front to back; bad ones are rejects.

    Attributes:
        path: name in messages and positions: the path as given, in UTF-8.
        blank: blank lines skipped so far.
        bytes_total: size of the file in bytes; None for standard input.
        rows_total: None, since such a file does not state it.
        lines: lines read, counted as those of rows are, where these count from a cut; else None.
        left_out: names of members of a document outside of its rows, so far.
        begin: line and offset of the first row to read; None to read all.
        of_rows: false, since offsets count bytes.
        parsed: uncompressed bytes of the file up to the end of the last row.
    """

    rows_total: int | None = None
    lines: int | None = None
    of_rows = False

    def __init__(self, path: str, options: ReadOptions) -> None:
        """Create a reader; the file is opened on iteration.

        Args:
            path: a file, or "-" for standard input.
            options: options of all files.

        Raises:
            InputError: there is no such file, or it cannot be read.
        """
        self.path = utf8(path)
        self._file = path
        self.blank = 0
        self.bytes_total = None if is_pipe(path) else file_size(path)
        self.begin: tuple[int, int] | None = None
        self.parsed = 0
        self.left_out: list[str] = []
        self._max_row_bytes = options.max_row_bytes
        self._bytes_read = 0.0

    @property
    def once(self) -> bool:
        """Whether the file is a pipe, whose rows can be read only once."""
        return is_pipe(self._file)

    @property
    def bytes_read(self) -> float:
        """Bytes of the file up to the end of the last row; in a compressed file an estimate that never falls."""
        return self._bytes_read

    def units_total(self, *, scan: bool) -> int | None:
        """Return the bytes of the text; of a compressed file only where it may be read for it.

        Raises:
            InputError: the file cannot be read.
        """
        with opened(self._file) as source:
            if not source.is_packed:
                return self.bytes_total
            return _size(source.stream) if scan else None

    def begin_at(self, line: int, offset: int) -> None:
        """Start at a row met before, at the line and offset that it had then."""
        self.begin = (line, offset)

    @abstractmethod
    def cut(self, begin: int, end: int | None) -> None:
        """Leave out what is cheap to leave out, see :meth:`~instructmining.reading.rows.RowReader.cut`."""

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or a reject in its place.

        Raises:
            InputError: the file cannot be opened, the disk fails anywhere, or compressed data is damaged before the
                first row. Damage after the first row is a reject: it is the same on every read.
        """
        with opened(self._file) as source:
            yield from self.rows_from(source)

    def rows_from(self, source: ByteSource) -> Iterator[RowOrReject]:
        """Yield the rows of an open source at its beginning; see :meth:`__iter__`."""
        most = self.bytes_total or 0
        self.blank, self.parsed, self._bytes_read = 0, 0, 0.0
        try:
            for row in self.rows_of(source.stream, source.head()):
                self._bytes_read = max(self._bytes_read, min(most, source.position(self.parsed)))
                yield row
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        self._bytes_read = most

    @abstractmethod
    def rows_of(self, stream: io.BufferedReader, head: bytes) -> Iterator[RowOrReject]:
        """Yield the rows from :attr:`begin` on, or rejects in their place; keep :attr:`parsed` up to date.

        Args:
            stream: the stream, at its beginning.
            head: its first bytes, which the stream yields again.
        """

    def skip(self, stream: io.BufferedReader, size: int) -> None:
        """Skip the first bytes.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            if stream.seekable():
                stream.seek(size)
                return
            while size > 0:
                part = stream.read(min(size, _CHUNK))
                if not part:
                    return
                size -= len(part)
        except DAMAGE as error:
            raise InputError(f"{self.path}: cannot be read: {error}") from error


def _size(stream: io.BufferedReader) -> int:
    """Return the bytes of a stream up to its end, or to where it is damaged."""
    size = 0
    with suppress(*DAMAGE):
        while part := stream.read(_CHUNK):
            size += len(part)
    return size
