"""CSV and TSV to rows: every value is text, named by the header; each row knows its line and byte."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import orjson

from instructmining.errors import InputError
from instructmining.reading.compression import BOM, DAMAGE, FileRows
from instructmining.records import Reject, RowOrReject, SourceRow

_KEPT = 1000  # bytes kept of a row that is too long
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class DelimitedRows(FileRows):
    """Rows of a file of delimited text as RFC 4180 has it: quotes may hold newlines, and a quote inside is doubled."""

    def __init__(self, path: str, *, delimiter: str, max_row_bytes: int) -> None:
        """Name a file, as :class:`FileRows` does.

        Args:
            path: a file.
            delimiter: between two fields.
            max_row_bytes: a longer row is a reject.

        Raises:
            InputError: there is no such file, or it cannot be read.
        """
        super().__init__(path, max_row_bytes=max_row_bytes)
        self._delimiter = delimiter

    def rows_of(self, stream: io.BufferedReader, head: bytes) -> Iterator[RowOrReject]:
        """See :meth:`FileRows.rows_of`.

        Raises:
            InputError: there is no header that names each field once.
        """
        if head.startswith(_UTF16):
            raise InputError(f"{self.path}: is UTF-16; wanted UTF-8")
        # The limit is the process's; ours is that of a row, which is checked line by line.
        csv.field_size_limit(max(csv.field_size_limit(), self._max_row_bytes))
        lines = _Lines(stream, self._max_row_bytes)
        names = self._header(lines)
        if not names:
            return
        if self.begin is not None:
            lines.line, lines.offset = self.begin
            if stream.seekable():
                stream.seek(lines.offset)
            else:
                self.skip(stream, lines.offset - lines.taken)
        while (record := self._next(lines)) is not None:
            if record == []:
                self.blank += 1
            elif isinstance(record, list):
                yield self._row(names, record, lines)
            else:
                yield record

    def _header(self, lines: _Lines) -> list[str]:
        """The names of the fields; none where the file is empty."""
        names: list[str] | Reject | None = []
        while names == []:
            names = self._next(lines)
        if isinstance(names, Reject):
            raise InputError(f"{self.path}, line {names.line}: {names.reason}; wanted a header that names the fields")
        if names is None:
            return []
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"{self.path}: the header names {twice[0]!r} more than once; rename one of the fields")
        return names

    def _next(self, lines: _Lines) -> list[str] | Reject | None:
        """The values of the next record, none of a blank line; None at the end."""
        lines.begin()
        try:
            record = next(csv.reader(lines, delimiter=self._delimiter, strict=True), None)
        except DAMAGE as error:
            lines.ended = True
            return self._reject(lines, f"the rest of the file cannot be read: {error}")
        except _TooLongError:
            return self._reject(lines, f"row is longer than {self._max_row_bytes} bytes (is a quote left open?)")
        except csv.Error as error:
            reason = "a quote is left open" if "unexpected end of data" in str(error) else str(error)
            return self._reject(lines, f"invalid CSV: {reason}")
        if lines.problem is not None:
            return self._reject(lines, lines.problem)
        # A line of tabs alone holds empty fields, one of spaces nothing.
        return [] if record is not None and len(record) == 1 and not lines.text.strip() else record

    def _row(self, names: list[str], values: list[str], lines: _Lines) -> RowOrReject:
        if len(values) != len(names):
            return self._reject(lines, f"row has {len(values)} fields, the header {len(names)}")
        fields = dict(zip(names, values, strict=True))
        return SourceRow(self.path, lines.first, lines.start, orjson.dumps(fields), fields)

    def _reject(self, lines: _Lines, reason: str) -> Reject:
        return Reject(self.path, lines.first, lines.start, reason, lines.text.rstrip(b"\r\n"))


class _TooLongError(Exception):
    """A record has more bytes than a row may."""


class _Lines:
    """Lines as the csv module takes them: one at a time, so that the place behind each record is known."""

    def __init__(self, stream: io.BufferedReader, max_row_bytes: int) -> None:
        self.line = 1  # of what comes next
        self.offset = 0
        self.taken = 0  # bytes of the stream so far
        self.first = 1  # of the record
        self.start = 0
        self.ended = False  # nothing more can be read
        self.problem: str | None = None  # of the record
        self._parts: list[bytes] = []  # its lines
        self._size = 0
        self._stream = stream
        self._max_row_bytes = max_row_bytes

    @property
    def text(self) -> bytes:
        """The record's own bytes; of one that is too long the first."""
        return b"".join(self._parts)

    def begin(self) -> None:
        """From here on a record."""
        self.first, self.start, self.problem, self._parts, self._size = self.line, self.offset, None, [], 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.ended:
            raise StopIteration
        line = self._stream.readline(self._max_row_bytes + 1)
        if not line:
            raise StopIteration
        self._take(line)
        if self.start == 0 and not self._parts:
            self.start = len(BOM) if line.startswith(BOM) else 0
            line = line.removeprefix(BOM)
        self._size += len(line)
        if self._size > self._max_row_bytes:
            self._pass(line)
            raise _TooLongError
        self._parts.append(line)
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            self.problem = self.problem or f"not UTF-8: byte 0x{line[error.start]:02x} on line {self.line - 1}"
            return line.decode("utf-8", "replace")

    def _take(self, part: bytes) -> None:
        self.offset += len(part)
        self.taken += len(part)
        self.line += part.endswith(b"\n")

    def _pass(self, line: bytes) -> None:
        """Keep the first bytes of a record that is too long, and read to the end of its line."""
        self._parts = [b"".join([*self._parts, line])[:_KEPT]]
        while line and not line.endswith(b"\n"):
            line = self._stream.readline(1 << 20)
            self._take(line)
