"""Bytes to rows: JSON lines and JSON arrays, plain, .gz or .zst, streamed; each row keeps its own bytes."""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import orjson
import zstandard

from instructmining.errors import InputError
from instructmining.records import Reject, SourceRow

MAX_ROW_BYTES = 64 * 2**20
_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"
# A string, an opening or closing bracket, or a quote whose string does not end in the buffer.
_STRUCTURE = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|"', re.DOTALL)
_BETWEEN = b" \t\r\n,"
READ_ERRORS = (OSError, EOFError, zlib.error, zstandard.ZstdError)
_NEWLINES = re.compile(rb"\s*[\r\n]\s*")

RowOrReject: TypeAlias = SourceRow | Reject


class RowReader:
    """Rows of one file in order, bad ones as rejects; counts what it passed.

    Attributes:
        blank: blank lines skipped so far.
        bytes_read: bytes taken from the file so far, compressed where the file is.
        bytes_total: size of the file, None for standard input.
    """

    def __init__(self, path: str, *, max_row_bytes: int = MAX_ROW_BYTES) -> None:
        """Name a file; it is opened when the rows are asked for.

        Args:
            path: a file, or "-" for standard input.
            max_row_bytes: a longer row is a reject, of which the first bytes are kept.

        Raises:
            InputError: there is no such file, or it cannot be read.
        """
        self.path = path
        self.blank = 0
        self._max_row_bytes = max_row_bytes
        self._raw: BinaryIO | None = None
        self.bytes_total: int | None = None
        if path != "-":
            file = Path(path)
            if file.is_dir():
                raise InputError(f"{path}: is a folder; wanted a file of rows")
            try:
                self.bytes_total = file.stat().st_size
            except OSError as error:
                raise InputError(f"{path}: {error.strerror}") from error

    @property
    def bytes_read(self) -> int:
        """Bytes taken from the file so far."""
        return self._raw.tell() if self._raw is not None and not self._raw.closed and self.path != "-" else 0

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or the reject that stands for it.

        Raises:
            InputError: the file cannot be opened, or reading fails before the first byte.
        """
        with self._opened() as stream:
            head = stream.peek(_CHUNK)[:_CHUNK]
            start = head.removeprefix(_BOM).lstrip()[:1]
            if start == b"[" or (start == b"{" and ".json" in Path(self.path).suffixes):
                yield from self._values(stream)
            else:
                yield from self._lines(stream)

    @contextmanager
    def _opened(self) -> Iterator[io.BufferedReader]:
        try:
            raw: BinaryIO = sys.stdin.buffer if self.path == "-" else Path(self.path).open("rb")
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}") from error
        self._raw = raw
        suffix = Path(self.path).suffix
        stream: io.BufferedReader
        if suffix == ".gz":
            stream = io.BufferedReader(gzip.GzipFile(fileobj=raw), _CHUNK)  # type: ignore[arg-type]
        elif suffix == ".zst":
            reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            stream = io.BufferedReader(reader, _CHUNK)
        else:
            stream = io.BufferedReader(raw, _CHUNK)  # type: ignore[arg-type]
        try:
            yield stream
        finally:
            if self.path != "-":
                raw.close()

    def _lines(self, stream: io.BufferedReader) -> Iterator[RowOrReject]:
        offset = 0
        number = 0
        while True:
            number += 1
            try:
                line = stream.readline(self._max_row_bytes + 1)
                size = len(line)
                if size > self._max_row_bytes and not line.endswith(b"\n"):
                    size += _skip_line(stream)
                    yield self._reject(number, offset, f"row is longer than {self._max_row_bytes} bytes", line[:1000])
                    offset += size
                    continue
            except READ_ERRORS as error:
                yield self._reject(number, offset, f"the rest of the file cannot be read: {error}", b"")
                return
            if not line:
                return
            start = offset
            offset += size
            if number == 1:
                line = line.removeprefix(_BOM)
            text = line.strip()
            if text:
                yield self._parse(number, start, text)
            else:
                self.blank += 1

    def _values(self, stream: io.BufferedReader) -> Iterator[RowOrReject]:
        """Rows of a JSON array, or of objects written one after the other over several lines.

        Only brackets and strings are looked at here, so that a row keeps its bytes and a bad row costs no other.
        """
        buffer = stream.read(len(_BOM)).removeprefix(_BOM)
        base, line = 0, 1  # offset and line of the buffer's first byte
        cursor = 0  # everything in the buffer before it was looked at
        depth = start = 0  # brackets open around the cursor, the array's own not counted; where the open row starts
        in_array = ended = False
        while True:
            match = _STRUCTURE.search(buffer, cursor)
            if match is None or match.group() == b'"':
                if ended:
                    break
                keep = start if depth else cursor
                if len(buffer) - keep > self._max_row_bytes:
                    reason = f"row is longer than {self._max_row_bytes} bytes; the rest of the file is not read"
                    yield self._reject(line, base + keep, reason, buffer[keep : keep + 1000])
                    return
                try:
                    more = stream.read1(max(_CHUNK, len(buffer) - keep))
                except READ_ERRORS as error:
                    yield self._reject(line, base + keep, f"the rest of the file cannot be read: {error}", buffer[keep:])
                    return
                if depth:
                    cursor = len(buffer) if match is None else match.start()
                line += buffer.count(b"\n", 0, keep)
                base, cursor, start = base + keep, cursor - keep, start - keep
                buffer, ended = buffer[keep:] + more, not more
                continue
            symbol = match.group()
            if depth == 0 and (gap := buffer[cursor : match.start()].strip(_BETWEEN)):
                yield self._reject(line + buffer.count(b"\n", 0, cursor), base + cursor, "text outside of any row", gap)
            cursor = match.end()
            if depth == 0 and symbol == b"[" and not in_array:
                in_array = True
            elif depth == 0 and symbol == b"]" and in_array:
                in_array = False
            elif symbol in (b"{", b"["):
                start = match.start() if depth == 0 else start
                depth += 1
            elif symbol in (b"}", b"]"):
                if depth == 0:
                    at = line + buffer.count(b"\n", 0, match.start())
                    rest = buffer[match.start() :]
                    yield self._reject(at, base + match.start(), "a closing bracket without its opening", rest)
                    return
                depth -= 1
                if depth == 0:
                    at = line + buffer.count(b"\n", 0, start)
                    yield self._parse(at, base + start, buffer[start:cursor])
            elif depth == 0:
                at = line + buffer.count(b"\n", 0, match.start())
                yield self._reject(at, base + match.start(), "row is a text, wanted an object", symbol)
        begin = start if depth else cursor
        if depth or in_array or buffer[begin:].strip(_BETWEEN):
            at = line + buffer.count(b"\n", 0, begin)
            reason = "the file ends in the middle of a row" if depth else "the file ends before its array is closed"
            yield self._reject(at, base + begin, reason, buffer[begin:])

    def _parse(self, line: int, offset: int, text: bytes) -> RowOrReject:
        try:
            fields = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return self._reject(line, offset, _why_not_json(text, error), text)
        if not isinstance(fields, dict):
            return self._reject(line, offset, f"row is {_json_type(fields)}, wanted an object", text)
        if b"\n" in text or b"\r" in text:
            text = _NEWLINES.sub(b" ", text)  # never inside a string: JSON has no bare newline there
        return SourceRow(self.path, line, offset, text, fields)

    def _reject(self, line: int, offset: int, reason: str, raw: bytes) -> Reject:
        return Reject(self.path, line, offset, reason, raw)


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
