"""What all readers of rows from a file's bytes share."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
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
    """Rows of one file in order, bad ones as rejects, read from front to back; counts what it passed.

    Attributes:
        path: how messages and positions call it: as it was given, in UTF-8.
        blank: blank lines skipped so far.
        bytes_total: size of the file, None for standard input.
        rows_total: None, since nothing in such a file says it.
        left_out: names of what a document holds beside its rows, so far.
        begin: line and offset of the row to begin with, None for the first.
        parsed: uncompressed bytes of the file up to the end of the row met last.
    """

    rows_total: int | None = None

    def __init__(self, path: str, options: ReadOptions) -> None:
        """Name a file; it is opened when the rows are asked for.

        Args:
            path: a file, or "-" for standard input.
            options: of all files.

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
        """Whether it is a pipe, whose rows can be asked for only once."""
        return is_pipe(self._file)

    @property
    def bytes_read(self) -> float:
        """Bytes of the file up to the end of the row met last; of a compressed file an estimate that never falls."""
        return self._bytes_read

    def begin_at(self, line: int, offset: int) -> None:
        """Begin with a row that was met before, at the line and the offset that it had then."""
        self.begin = (line, offset)

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or the reject that stands for it.

        Raises:
            InputError: the file cannot be opened, the disk gives an error anywhere in it, or compressed data is damaged
                before the first row. Damage behind that is a reject: it is the same each time the file is read.
        """
        with opened(self._file) as source:
            yield from self.rows_from(source)

    def rows_from(self, source: ByteSource) -> Iterator[RowOrReject]:
        """Yield the rows of a source that is open, at its beginning; see :meth:`__iter__`."""
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
        """Yield the rows from :attr:`begin` on, or the rejects that stand for them; keep :attr:`parsed` up to date.

        Args:
            stream: at its beginning.
            head: its first bytes, which the stream gives again.
        """

    def skip(self, stream: io.BufferedReader, size: int) -> None:
        """Pass over the first bytes.

        Raises:
            InputError: they cannot be read.
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
