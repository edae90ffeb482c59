"""JSON lines and JSON arrays to rows, streamed; each row keeps its own bytes."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from instructmining.errors import InputError
from instructmining.reading.compression import BOM, DAMAGE, FileRows
from instructmining.reading.options import ReadOptions
from instructmining.reading.values import loads
from instructmining.records import Reject, RowOrReject, SourceRow

_CHUNK = 1 << 20
# A string, an opening or closing bracket, or a quote whose string does not end in the buffer.
_STRUCTURE = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|"', re.DOTALL)
_KEPT = 1000  # bytes kept of a row that is too long, or that stopped the reading
_BETWEEN = b" \t\r\n,"
_NEWLINES = re.compile(rb"[\r\n]\s*")
_DATA = b'"data"'
_ENCODINGS = frozenset({"utf-8", "utf-8-sig", "ascii"})
_OBJECT = re.compile(rb"\s*\{")


class JsonRows(FileRows):
    """Rows of JSON lines, of a JSON array, or of the array in a document ``{"data": [{row}, ...]}``.

    Which of them it is shows in the first bytes.
    """

    def __init__(self, path: str, options: ReadOptions) -> None:
        """Name a file, as :class:`FileRows` does.

        Raises:
            InputError: there is no such file, it cannot be read, or another encoding than UTF-8 is asked for.
        """
        super().__init__(path, options)
        if options.encoding is not None and codecs.lookup(options.encoding).name not in _ENCODINGS:
            raise InputError(
                f"{path}: JSON is read as UTF-8 only; --encoding {options.encoding} is of CSV and TSV; convert the file"
            )

    def rows_of(self, stream: io.BufferedReader, head: bytes) -> Iterator[RowOrReject]:
        """See :meth:`FileRows.rows_of`."""
        start = head.removeprefix(BOM).lstrip()[:1]
        line, offset = self.begin or (1, 0)
        array = array_of_document(head) if start == b"{" else None
        if array is not None:
            yield from self._values(_Values(stream, self._max_row_bytes, array=array), offset)
        elif start == b"[" or (start == b"{" and ".json" in Path(self.path).suffixes):
            yield from self._values(_Values(stream, self._max_row_bytes), offset)
        else:
            self.skip(stream, offset)
            yield from self._lines(stream, line, offset)

    def _lines(self, stream: io.BufferedReader, first: int, offset: int) -> Iterator[RowOrReject]:
        number = first - 1
        while True:
            number += 1
            try:
                line = stream.readline(self._max_row_bytes + 1)
                size = len(line)
                if size > self._max_row_bytes and not line.endswith(b"\n"):
                    size += _skip_line(stream)
                    self.parsed = offset + size
                    yield self._reject(number, offset, f"row is longer than {self._max_row_bytes} bytes", line[:_KEPT])
                    offset += size
                    continue
            except DAMAGE as error:
                yield self._reject(number, offset, f"the rest of the file cannot be read: {error}", b"")
                return
            if not line:
                return
            start = offset
            self.parsed = offset = offset + size
            if start == 0 and line.startswith(BOM):
                line, start = line.removeprefix(BOM), len(BOM)
            text = line.strip()
            if text:
                yield self._parse(number, start, text)
            else:
                self.blank += 1

    def _values(self, values: _Values, begin: int) -> Iterator[RowOrReject]:
        """Rows of a JSON array, or of objects written one after the other over several lines, from an offset on.

        Which brackets are open there only the text before it tells, so that is looked through again.
        """
        for piece in values:
            if piece.offset < begin:
                continue
            self.parsed = piece.end
            if piece.problem:
                yield self._reject(piece.line, piece.offset, piece.problem, piece.text)
            else:
                yield self._parse(piece.line, piece.offset, piece.text)

    def _parse(self, line: int, offset: int, text: bytes) -> RowOrReject:
        try:
            fields = loads(text)
        except orjson.JSONDecodeError as error:
            return self._reject(line, offset, _why_not_json(text, error), text)
        if not isinstance(fields, dict):
            return self._reject(line, offset, f"row is {_json_type(fields)}, wanted an object", text)
        if b"\n" in text or b"\r" in text:
            text = _NEWLINES.sub(b" ", text)  # never inside a string: JSON has no bare newline there
        return SourceRow(self.path, line, offset, text, fields)

    def _reject(self, line: int, offset: int, reason: str, raw: bytes) -> Reject:
        return Reject(self.path, line, offset, reason, raw)


@dataclass(frozen=True, slots=True)
class _Piece:
    """The bytes of one value, or of what is none."""

    line: int
    offset: int
    end: int
    text: bytes
    problem: str = ""


class _Values:
    """Cuts the values out of a JSON array, which may be that of a document.

    Only brackets and strings are looked at here, so that a row keeps its bytes and a bad row costs no other.
    """

    def __init__(self, stream: io.BufferedReader, max_row_bytes: int, *, array: int | None = None) -> None:
        """Begin at the beginning of a file.

        Args:
            stream: the file.
            max_row_bytes: a longer row is a problem.
            array: where the array of a document begins; what is before and behind it in the document is no row.
        """
        self._stream = stream
        self._max_row_bytes = max_row_bytes
        self._buffer = b""
        self._offset = 0  # of the buffer's first byte in the file
        self._line = 1  # on which the byte stands up to which lines were counted
        self._counted = 0  # where that is in the buffer
        self._cursor = 0  # everything in the buffer before it was looked at
        self._depth = 0  # brackets open around the cursor, the array's own not counted
        self._start = 0  # where the open value begins, if there is one
        self._in_array = False
        self._problem = ""  # what ended the reading early
        self._before = array or 0  # bytes of the document before its array
        self._in_document = array is not None
        self._behind = 0  # brackets of the document that are open behind its array

    def __iter__(self) -> Iterator[_Piece]:
        if self._before:
            before = self._stream.read(self._before)
            self._offset, self._line = len(before), 1 + before.count(b"\n")
        while not self._problem and (match := self._structure()) is not None:
            if self._behind:
                self._pass(match)
                continue
            if self._depth == 0 and self._buffer[self._cursor : match.start()].strip(_BETWEEN):
                yield self._between(self._cursor, match.start())
            yield from self._step(match)
        yield from self._rest()

    def _structure(self) -> re.Match[bytes] | None:
        """The next bracket or whole string; None at the end."""
        while True:
            match = _STRUCTURE.search(self._buffer, self._cursor)
            if match is not None and match.group() != b'"':
                return match
            if not self._refill(match):
                return None

    def _refill(self, match: re.Match[bytes] | None) -> bool:
        """Drop what is done from the buffer and read on; False where nothing more comes."""
        keep = self._start if self._depth else self._cursor
        if len(self._buffer) - keep > self._max_row_bytes:
            self._problem = f"row is longer than {self._max_row_bytes} bytes; the rest of the file is not read"
            return False
        try:
            more = self._stream.read1(max(_CHUNK, len(self._buffer) - keep))
        except DAMAGE as error:
            self._problem = f"the rest of the file cannot be read: {error}"
            return False
        if self._depth:
            self._cursor = len(self._buffer) if match is None else match.start()
        self._count_lines(keep)
        self._counted -= keep
        self._offset += keep
        self._cursor -= keep
        self._start -= keep
        self._buffer = self._buffer[keep:] + more
        if self._offset == 0 and keep == 0 and self._buffer.startswith(BOM) and self._cursor == 0:
            self._cursor = len(BOM)
        return bool(more)

    def _step(self, match: re.Match[bytes]) -> Iterator[_Piece]:
        symbol = match.group()
        self._cursor = match.end()
        if symbol in (b"[", b"{"):
            if self._depth == 0 and symbol == b"[" and not self._in_array:
                self._in_array = True
                return
            if self._depth == 0:
                self._start = match.start()
            self._depth += 1
        elif symbol in (b"]", b"}"):
            if self._depth:
                self._depth -= 1
                if self._depth == 0:
                    yield self._value()
            elif symbol == b"]" and self._in_array:
                self._in_array = False
                self._behind = int(self._in_document)
                self._in_document = False
            else:
                self._cursor = match.start()
                self._problem = "a closing bracket without its opening"
        elif self._depth == 0:
            yield self._piece(match.start(), self._cursor, "row is a text, wanted an object")

    def _pass(self, match: re.Match[bytes]) -> None:
        """Go past what a document has behind its array."""
        self._cursor = match.end()
        self._behind += (match.group() in (b"[", b"{")) - (match.group() in (b"]", b"}"))

    def _value(self) -> _Piece:
        if self._cursor - self._start > self._max_row_bytes:
            problem = f"row is longer than {self._max_row_bytes} bytes"
            return self._piece(self._start, min(self._cursor, self._start + _KEPT), problem)
        return self._piece(self._start, self._cursor)

    def _between(self, begin: int, end: int) -> _Piece:
        """Text between two values, without the commas and spaces around it."""
        gap = self._buffer[begin:end]
        begin += len(gap) - len(gap.lstrip(_BETWEEN))
        end -= len(gap) - len(gap.rstrip(_BETWEEN))
        return self._piece(begin, end, "text outside of any row")

    def _rest(self) -> Iterator[_Piece]:
        """What is left is one piece: the open value, or what stopped the reading."""
        begin = self._start if self._depth else self._cursor
        problem = self._problem
        if not problem and self._depth:
            problem = "the file ends in the middle of a row"
        if not problem and self._in_array:
            problem = "the file ends before its array is closed"
        if not problem and self._behind:
            problem = "the file ends before its document is closed"
        if not problem and self._buffer[begin:].strip(_BETWEEN):
            problem = "text outside of any row"
        if problem:
            end = begin + _KEPT if self._problem else len(self._buffer)
            yield self._piece(begin, end, problem)

    def _count_lines(self, end: int) -> None:
        """Up to a place in the buffer; the places never go back, so that each byte is looked at once."""
        self._line += self._buffer.count(b"\n", self._counted, end)
        self._counted = end

    def _piece(self, begin: int, end: int, problem: str = "") -> _Piece:
        self._count_lines(begin)
        return _Piece(self._line, self._offset + begin, self._offset + end, self._buffer[begin:end], problem)


def array_of_document(head: bytes) -> int | None:
    """Where the array of rows begins in a document ``{"data": [{row}, ...]}``; None where there is no such document.

    An object that something follows is a row, whatever it holds, and so is one whose ``data`` are no objects.

    Args:
        head: the first bytes of a file, which begin with an object.
    """
    depth, key, found = 0, 0, None
    for match in _STRUCTURE.finditer(head):
        symbol = match.group()
        if symbol == _DATA and depth == 1:
            key = match.end()
        elif symbol in (b"[", b"{"):
            is_data = symbol == b"[" and depth == 1 and key and head[key : match.start()].strip() == b":"
            if is_data and found is None and _OBJECT.match(head, match.end()):
                found = match.start()
            depth += 1
        elif symbol in (b"]", b"}"):
            depth -= 1
            if depth == 0:
                return found if not head[match.end() :].strip() else None
    return found


def _skip_line(stream: io.BufferedReader) -> int:
    size = 0
    while True:
        part = stream.readline(_CHUNK)
        size += len(part)
        if not part or part.endswith(b"\n"):
            return size


def _why_not_json(text: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as problem:
        return f"not UTF-8: byte 0x{text[problem.start]:02x} at byte {problem.start} of the row"
    return f"invalid JSON: {error.msg}"


def _json_type(value: object) -> str:
    names: dict[type, str] = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
