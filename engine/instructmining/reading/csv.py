"""Reads CSV and TSV: every value is text, named by the header; each row knows its line and byte."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator

import orjson

from instructmining.errors import InputError
from instructmining.errors.names import short
from instructmining.reading.compression import DAMAGE
from instructmining.reading.encodings import Encoding, encoding_of
from instructmining.reading.file_rows import FileRows
from instructmining.reading.options import ReadOptions
from instructmining.types import Reject, RowOrReject, SourceRow

_KEPT = 1000  # bytes kept of a row that is too long
_EMPTY = re.compile(rb"(?:\r?\n)+")
_MARK = "\ufeff"  # the byte order mark, as text
_SPACE = b" \t\r\n\v\f\0"  # white space in any encoding
_USUAL = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}  # delimiters as --delimiter names them


class DelimitedRows(FileRows):
    """Rows of delimited text (RFC 4180): quotes may hold newlines, and a quote inside is doubled."""

    def __init__(self, path: str, options: ReadOptions, *, delimiter: str) -> None:
        """Create a reader, as :class:`FileRows` does.

        Args:
            path: a file, or "-" for standard input.
            options: options of all files.
            delimiter: the delimiter between two fields of this file.

        Raises:
            InputError: there is no such file, or it cannot be read.
        """
        super().__init__(path, options)
        self._delimiter = delimiter
        self._encoding_name = options.encoding

    def cut(self, begin: int, end: int | None) -> None:
        """Leave out nothing: only what is before a row shows whether a newline there is in quotes."""

    def rows_of(self, stream: io.BufferedReader, head: bytes) -> Iterator[RowOrReject]:
        """See :meth:`FileRows.rows_of`.

        Raises:
            InputError: no header names each field once, or the file has another encoding than the one given.
        """
        encoding = encoding_of(self.path, self._encoding_name, head)
        # The csv module's limit is process-wide; the limit of a row is checked line by line.
        csv.field_size_limit(max(csv.field_size_limit(), self._max_row_bytes))
        lines = _Lines(stream, encoding, self._max_row_bytes)
        names = self._header(lines)
        if not names:
            return
        if self.begin is not None:
            lines.line, lines.offset = self.begin
            if stream.seekable():
                stream.seek(lines.offset)
            else:
                self.skip(stream, lines.offset - lines.taken)
        record: list[str] | Reject | None = None
        while (record := self._next(lines, is_after_blank=record == [])) is not None:
            self.parsed = lines.offset
            if record == []:
                self.blank += 1
            elif isinstance(record, list):
                yield self._row(names, record, lines)
            else:
                yield record

    def _header(self, lines: _Lines) -> list[str]:
        """Read the names of the fields; empty where the file is empty."""
        names: list[str] | Reject | None = []
        while names == []:
            names = self._next(lines)
        if isinstance(names, Reject):
            raise InputError(f"{self.path}, line {names.line}: {names.reason}; wanted a header that names the fields")
        if names is None:
            return []
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        if twice:
            named = repr(short(twice[0]))
            raise InputError(f"{self.path}: the header names {named} more than once; rename one of the fields")
        self._check_delimiter(names)
        return names

    def _check_delimiter(self, names: list[str]) -> None:
        """Refuse a header of one field that contains another delimiter."""
        others = {other: names[0].count(other) for other in _USUAL if other != self._delimiter}
        most = max(others, key=lambda other: others[other])
        if len(names) == 1 and others[most]:
            raise InputError(
                f"{self.path}: the header is one field, {short(names[0])!r}; give --delimiter {_USUAL[most]}"
            )

    def _next(self, lines: _Lines, *, is_after_blank: bool = False) -> list[str] | Reject | None:
        """Read the values of the next record, none for a blank line; None at the end."""
        lines.begin()
        try:
            if is_after_blank:
                self.blank += lines.pass_empty()
                lines.begin()
            record = next(csv.reader(lines, delimiter=self._delimiter, strict=True), None)
        except DAMAGE as error:
            lines.ended = True
            return self._reject(lines, f"the rest of the file cannot be read: {error}")
        except _TooLongError:
            return self._reject(lines, f"row is longer than {self._max_row_bytes} bytes (is a quote left open?)")
        except csv.Error as error:
            return self._reject(lines, f"invalid CSV: {_why_not_csv(error, lines.text)}")
        if lines.problem is not None:
            return self._reject(lines, lines.problem)
        # A line of tabs holds empty fields; a line of spaces holds nothing.
        return [] if record is not None and len(record) == 1 and not lines.text.strip(_SPACE) else record

    def _row(self, names: list[str], values: list[str], lines: _Lines) -> RowOrReject:
        if len(values) != len(names):
            return self._reject(lines, f"row has {len(values)} fields, the header {len(names)}")
        if len(names) > 1 and [values[0].removeprefix(_MARK), *values[1:]] == names:
            return self._reject(lines, "repeats the header; were files concatenated?")
        fields = dict(zip(names, values, strict=True))
        return SourceRow(self.path, lines.first, lines.start, orjson.dumps(fields), fields)

    def _reject(self, lines: _Lines, reason: str) -> Reject:
        return Reject(self.path, lines.first, lines.start, reason, lines.encoding.without_newline(lines.text))


def _why_not_csv(error: csv.Error, text: bytes) -> str:
    """Explain what is wrong with a record in the user's terms."""
    said = str(error)
    if "unexpected end of data" in said:
        return "a quote is left open"
    if "new-line character" in said:
        return "a carriage return outside of quotes; end lines in LF or CRLF, and quote a field that holds one"
    return f'{said}; a quote inside of quotes is doubled, not \\"' if b'\\"' in text else said


class _TooLongError(Exception):
    """A record has more bytes than a row may have."""


class _Lines:
    """Lines for the csv module, one at a time, so that the position after each record is known."""

    def __init__(self, stream: io.BufferedReader, encoding: Encoding, max_row_bytes: int) -> None:
        self.encoding = encoding
        self.line = 1  # number of the next line
        self.offset = 0
        self.taken = 0  # bytes of the stream read so far
        self.first = 1  # first line of the record
        self.start = 0
        self.ended = False  # nothing more can be read
        self.problem: str | None = None  # what is wrong with the record
        self._parts: list[bytes] = []  # lines of the record
        self._size = 0
        self._stream = stream
        self._max_row_bytes = max_row_bytes

    @property
    def text(self) -> bytes:
        """The record's own bytes; of one that is too long the first."""
        return b"".join(self._parts)

    def begin(self) -> None:
        """Start a new record here."""
        self.first, self.start, self.problem, self._parts, self._size = self.line, self.offset, None, [], 0

    def pass_empty(self) -> int:
        """Skip empty lines, all that are buffered, and return their number."""
        newline = self.encoding.newline
        found = _EMPTY.match(self._stream.peek()) if newline == b"\n" else None
        passed = self._stream.read(found.end()) if found is not None else b""
        many = passed.count(newline)
        self.offset += len(passed)
        self.taken += len(passed)
        self.line += many
        return many

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.ended:
            raise StopIteration
        encoding = self.encoding
        line = encoding.readline(self._stream, self._max_row_bytes + 1)
        if not line:
            raise StopIteration
        self._take(line)
        if self.start == 0 and not self._parts:
            self.start = len(encoding.mark) if line.startswith(encoding.mark) else 0
            line = line.removeprefix(encoding.mark)
        self._size += len(line)
        if self._size > self._max_row_bytes:
            self._pass(line)
            raise _TooLongError
        self._parts.append(line)
        try:
            return line.decode(encoding.codec)
        except UnicodeDecodeError as error:
            found = f"not {encoding.shown}: byte 0x{line[error.start]:02x} on line {self.line - 1}"
            hint = "; if the file is Latin-1, give --encoding latin-1" if encoding.is_default else ""
            self.problem = self.problem or found + hint
            return line.decode(encoding.codec, "replace")

    def _take(self, part: bytes) -> None:
        self.offset += len(part)
        self.taken += len(part)
        self.line += part.endswith(self.encoding.newline)

    def _pass(self, line: bytes) -> None:
        """Keep the first bytes of a record that is too long, and read to the end of its line."""
        self._parts = [b"".join([*self._parts, line])[:_KEPT]]
        while line and not line.endswith(self.encoding.newline):
            line = self.encoding.readline(self._stream, 1 << 20)
            self._take(line)
