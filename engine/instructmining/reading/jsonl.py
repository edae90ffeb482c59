"""Reads JSON lines and JSON arrays as a stream of rows; each row keeps its own bytes."""

from __future__ import annotations

import codecs
import io
import json
import math
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

import orjson

from instructmining.errors import InputError
from instructmining.reading.compression import BOM, DAMAGE
from instructmining.reading.conversations import kind_of
from instructmining.reading.encodings import wide_by_head
from instructmining.reading.file_rows import FileRows
from instructmining.reading.json_array import KEPT, JsonValues, document_of
from instructmining.reading.options import ReadOptions
from instructmining.reading.values import loads
from instructmining.types import Reject, RowOrReject, SourceRow

_CHUNK = 1 << 20
_LINES = frozenset({".jsonl", ".ndjson"})
_BLANK = re.compile(rb"\s*\n")  # any number of blank lines
_NEWLINES = re.compile(rb"[\r\n]\s*")
_ENCODINGS = frozenset({"utf-8", "utf-8-sig", "ascii"})


def _never(_: Collection[str]) -> bool:
    return False


class JsonRows(FileRows):
    """Rows of JSON lines, of a JSON array, or of the array in a document ``{"data": [{row}, ...]}``.

    The first bytes decide which of them a file is.
    """

    def __init__(self, path: str, options: ReadOptions, *, is_row: Callable[[Collection[str]], bool] = _never) -> None:
        """Create a reader, as :class:`FileRows` does.

        Args:
            path: path of the file.
            options: options of all files.
            is_row: whether an object with these fields is a row itself, whatever its ``data`` holds.

        Raises:
            InputError: there is no such file, it cannot be read, or an encoding other than UTF-8 was given.
        """
        super().__init__(path, options)
        self._is_row = is_row
        self._cut: tuple[int, int | None] = (0, None)  # lines that begin from here on and before there are read
        self._by_line = not _LINES.isdisjoint(suffix.lower() for suffix in Path(path).suffixes)
        if options.encoding is not None and codecs.lookup(options.encoding).name not in _ENCODINGS:
            raise InputError(
                f"{path}: JSON is read as UTF-8 only; --encoding {options.encoding} is of CSV and TSV; convert the file"
            )

    def cut(self, begin: int, end: int | None) -> None:
        """Leave out the lines that begin before or after; lines then count from the first one that is read.

        An array or a document is read from its beginning, and its rows before are not parsed.
        """
        self._cut = (begin, end)

    def rows_of(self, stream: io.BufferedReader, head: bytes) -> Iterator[RowOrReject]:
        """See :meth:`FileRows.rows_of`.

        Raises:
            InputError: the file is UTF-16 or UTF-32.
        """
        if (wide := _wide(head)) is not None:
            raise InputError(f"{self.path}: is {wide}; JSON is read as UTF-8 only; convert the file")
        start = head.removeprefix(BOM).lstrip()[:1]
        near, end = self._cut
        line, offset = self.begin or (1, near)
        document = document_of(head, by_line=self._by_line) if start == b"{" else None
        if document is not None and not self._is_row(document.names):
            self.left_out = list(document.names)
            values = JsonValues(stream, self._max_row_bytes, document=document, left_out=self.left_out)
            yield from self._values(values, offset)
        elif start == b"[" or (start == b"{" and ".json" in Path(self.path).suffixes):
            yield from self._values(JsonValues(stream, self._max_row_bytes), offset)
        else:
            if self.begin is None and near:
                offset = near - 1
                self.skip(stream, offset)
                offset += _skip_line(stream)  # one that begins before, or the newline of the last of these
            else:
                self.skip(stream, offset)
            yield from self._lines(stream, line, offset, math.inf if end is None else end)

    def _lines(self, stream: io.BufferedReader, first: int, offset: int, end: float) -> Iterator[RowOrReject]:
        number = first - 1
        is_blank = False  # whether the line before is blank
        while True:
            number += 1
            try:
                if is_blank:
                    lines = stream.read(_blank(stream.peek(), end - offset))
                    passed = lines.count(b"\n")
                    number, offset, self.blank = number + passed, offset + len(lines), self.blank + passed
                self.lines = number - 1
                if offset >= end:
                    return
                line = stream.readline(self._max_row_bytes + 1)
                size = len(line)
                if size > self._max_row_bytes and not line.endswith(b"\n"):
                    size += _skip_line(stream)
                    self.parsed = offset + size
                    yield self._reject(number, offset, f"row is longer than {self._max_row_bytes} bytes", line[:KEPT])
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
            is_blank = not text

    def _values(self, values: JsonValues, begin: int) -> Iterator[RowOrReject]:
        """Yield rows of a JSON array, or of concatenated objects over several lines, from an offset on.

        Only the text before the offset shows which brackets are open there, so it is scanned again.
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
            return self._reject(line, offset, f"row is {kind_of(fields)}, wanted an object", text)
        if b"\n" in text or b"\r" in text:
            text = _NEWLINES.sub(b" ", text)  # never inside a string, where JSON has no bare newline
        return SourceRow(self.path, line, offset, text, fields)

    def _reject(self, line: int, offset: int, reason: str, raw: bytes) -> Reject:
        return Reject(self.path, line, offset, reason, raw)


def _wide(head: bytes) -> str | None:
    """Detect UTF-16 or UTF-32 by its byte order mark or by the zeros of its first characters."""
    first = head[:4]
    if b"\0" in first and first.replace(b"\0", b"")[:1] in (b"{", b"["):
        return "UTF-32" if b"\0\0" in first else "UTF-16"
    return wide_by_head(head)


def _blank(text: bytes, most: float) -> int:
    """Return the bytes of the blank lines at the beginning of a text, of those that begin before a place in it."""
    found = _BLANK.match(text)
    if found is None or found.end() <= most:
        return 0 if found is None else found.end()
    return text.index(b"\n", max(0, int(most) - 1)) + 1


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
    if text.startswith(BOM):
        return "a byte order mark in the middle of the file; were files concatenated?"
    constants: list[str] = []
    with suppress(ValueError, RecursionError):
        json.loads(text, parse_constant=constants.append)
        if constants:
            return "invalid JSON: NaN or Infinity, which JSON does not have; write null"
    return f"invalid JSON: {error.msg}"
