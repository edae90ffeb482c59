"""The values of a JSON array, of the array in a document, or of objects one after the other, each as its own bytes.

Only brackets and strings are looked at, so that a row keeps its bytes and a bad row costs no other. Each byte is looked
at once, however it arrives; memory holds one value, and of one that is too long its first bytes alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from instructmining.reading.compression import BOM, DAMAGE

KEPT = 1000  # bytes kept of a row that is too long, or that stopped the reading
_CHUNK = 1 << 20
_SYMBOL = re.compile(rb'["{}\[\]]')
# From inside a string to its end, or as far as there is one; possessive, so that escapes take no memory.
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_OPENING, _CLOSING = re.compile(rb"[\[{]+"), re.compile(rb"[\]}]+")
_BETWEEN = b" \t\r\n,"
_DATA = b'"data"'
_OBJECT = re.compile(rb"\s*\{")
_COLON = re.compile(rb"\s*:")
_QUOTE = ord('"')


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes of one value, or of what is none."""

    line: int
    offset: int
    end: int
    text: bytes
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """An object whose ``data`` are rows."""

    array: int  # byte at which their array begins
    names: tuple[str, ...]  # of the members before it


def document_of(head: bytes, *, by_line: bool = False) -> Document | None:
    """The document ``{"data": [{row}, ...]}`` that a file begins with; None where it begins with anything else.

    An object that something follows is a row, whatever it holds, and so is one whose ``data`` are no objects.

    Args:
        head: the first bytes of a file, which begin with an object.
        by_line: whether the file's name says that each line is a row, so that a line without an end is one.
    """
    begin = _beginning_of(head)
    if begin.array is None or (begin.end is None and by_line and b"\n" not in head):
        return None
    return Document(begin.array, tuple(begin.names)) if begin.end is None or not head[begin.end :].strip() else None


def is_told(head: bytes) -> bool:
    """Whether the first bytes of a file, which begin with an object, tell a document from a row."""
    begin = _beginning_of(head)
    return begin.end is not None and (begin.array is None or bool(head[begin.end :].strip()))


@dataclass(slots=True)
class _Beginning:
    """What is seen of the object with which a file begins."""

    names: list[str] = field(default_factory=list)  # of the members before its rows
    array: int | None = None  # where its rows begin
    end: int | None = None  # behind it, where that is in sight


def _beginning_of(head: bytes) -> _Beginning:
    depth, at, key = 0, 0, b""
    seen = _Beginning()
    while (match := _SYMBOL.search(head, at)) is not None:
        symbol, at = match.group(), match.end()
        if symbol == b'"':
            text = _STRING.match(head, match.start())
            if text is None:
                break
            at = text.end()
            if depth == 1 and _COLON.match(head, at):
                key = text.group()
                if seen.array is None and key != _DATA:
                    seen.names.append(_name(key))
        elif symbol in (b"[", b"{"):
            if seen.array is None and symbol == b"[" and depth == 1 and key == _DATA and _OBJECT.match(head, at):
                seen.array = match.start()
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                seen.end = at
                break
    return seen


class JsonValues:
    """Cuts the values out of a stream."""

    def __init__(
        self,
        stream: io.BufferedReader,
        max_row_bytes: int,
        *,
        document: Document | None = None,
        left_out: list[str] | None = None,
    ) -> None:
        """Begin at the beginning of a file.

        Args:
            stream: the file.
            max_row_bytes: a longer row is a problem.
            document: whose rows are wanted; what is before and after them in it is no row.
            left_out: takes the names of the members of the document after its rows.
        """
        self._stream = stream
        self._max_row_bytes = max_row_bytes
        self._buffer = bytearray()
        self._offset = 0  # of the buffer's first byte in the file
        self._line = 1  # on which the byte stands up to which lines were counted
        self._counted = 0  # where that is in the buffer
        self._cursor = 0  # everything in the buffer before it was looked at
        self._done = 0  # everything before it belongs to values that were given
        self._depth = 0  # brackets open around the cursor, the array's own not counted
        self._start: tuple[int, int, int] | None = None  # line, offset, and place in the buffer of the open value
        self._cut = b""  # the first bytes of the open value, where it is too long to be kept
        self._in_string = False
        self._string = 0  # where the open string begins in the buffer
        self._in_array = False
        self._problem = ""  # what ended the reading early
        self._before = document.array if document is not None else 0  # bytes of the document before its array
        self._in_document = document is not None
        self._left_out = left_out if left_out is not None else []
        self._behind = 0  # brackets of the document that are open after its array
        self._last_text = b""  # that was met there

    def __iter__(self) -> Iterator[Piece]:
        """Yield the values in order, and what stands where none should."""
        if self._before:
            before = self._stream.read(self._before)
            self._offset, self._line = len(before), 1 + before.count(b"\n")
        while not self._problem and self._more():
            yield from self._scan()
        yield from self._rest()

    def _more(self) -> bool:
        """Read on; what is done leaves the buffer, and of a value that is too long all but its first bytes."""
        keep = self._done
        if self._start is not None:
            line, offset, place = self._start
            if not self._cut and len(self._buffer) - place > self._max_row_bytes:
                self._cut = bytes(self._buffer[place : place + KEPT])
            keep = self._cursor if self._cut else place
            self._start = (line, offset, place - keep)
        elif self._in_string:
            keep = min(self._string, self._cursor)
        self._count_lines(keep)
        self._counted -= keep
        self._offset += keep
        self._cursor -= keep
        self._string -= keep
        self._done = max(self._done - keep, 0)
        del self._buffer[:keep]
        try:
            more = self._stream.read1(_CHUNK)
        except DAMAGE as error:
            self._problem = f"the rest of the file cannot be read: {error}"
            return False
        first = self._offset == 0 and not self._buffer
        self._buffer += more
        if first and self._buffer.startswith(BOM):
            self._cursor = self._done = len(BOM)
        return bool(more)

    def _scan(self) -> Iterator[Piece]:
        """Look at what is new in the buffer."""
        buffer = self._buffer
        while not self._problem:
            if self._in_string:
                inside = _IN_STRING.match(buffer, self._cursor)
                self._cursor = inside.end() if inside is not None else self._cursor
                if self._cursor >= len(buffer) or buffer[self._cursor] != _QUOTE:
                    return  # the string goes on, or ends in half an escape
                self._cursor += 1
                self._in_string = False
                yield from self._text()
                continue
            match = _SYMBOL.search(buffer, self._cursor)
            if match is None:
                if self._start is not None or self._behind:
                    self._cursor = len(buffer)
                return
            if self._depth == 0 and not self._behind and self._buffer[self._done : match.start()].strip(_BETWEEN):
                yield self._between(self._done, match.start())
            yield from self._step(match.group(), match.start())

    def _step(self, symbol: bytes, place: int) -> Iterator[Piece]:
        if self._behind:
            self._name_behind(place)
        self._cursor = place + 1
        if symbol == b'"':
            self._in_string, self._string = True, place
        elif self._behind:
            self._behind += 1 if symbol in (b"[", b"{") else -1
            self._done = self._cursor
        elif symbol in (b"[", b"{"):
            self._open(symbol, place)
            if self._depth:
                self._depth += self._run(_OPENING, len(self._buffer))
        elif self._depth:
            self._depth -= 1 + self._run(_CLOSING, self._cursor + self._depth - 2)
            if self._depth == 0:
                yield self._value()
        elif symbol == b"]" and self._in_array:
            self._in_array = False
            self._behind = int(self._in_document)
            self._in_document = False
            self._done = self._cursor
        else:
            self._done = place
            self._problem = "a closing bracket without its opening"

    def _run(self, brackets: re.Pattern[bytes], most: int) -> int:
        """How many more brackets stand at the cursor, up to a place; it goes behind them."""
        begin = self._cursor
        run = brackets.match(self._buffer, begin, max(begin, most))
        self._cursor = run.end() if run is not None else begin
        return self._cursor - begin

    def _open(self, symbol: bytes, place: int) -> None:
        if self._depth == 0 and symbol == b"[" and not self._in_array:
            self._in_array = True
            self._done = self._cursor
            return
        if self._depth == 0:
            self._count_lines(place)
            self._start = (self._line, self._offset + place, place)
        self._depth += 1

    def _text(self) -> Iterator[Piece]:
        """A string has ended."""
        if self._behind:
            self._last_text = bytes(self._buffer[self._string : self._cursor]) if self._behind == 1 else b""
            self._done = self._cursor
        elif self._depth == 0:
            yield self._piece(self._string, self._cursor, "row is text, wanted an object")

    def _name_behind(self, place: int) -> None:
        """What a colon follows is the name of a member of the document."""
        if self._behind == 1 and self._last_text:
            if self._buffer[self._done : place].lstrip().startswith(b":"):
                self._left_out.append(_name(self._last_text))
            self._last_text = b""

    def _value(self) -> Piece:
        line, offset, place = self._start or (0, 0, 0)
        end = self._offset + self._cursor
        self._start, self._done = None, self._cursor
        if end - offset > self._max_row_bytes:
            text = self._cut or bytes(self._buffer[place : min(place + KEPT, self._cursor)])
            self._cut = b""
            return Piece(line, offset, end, text, f"row is longer than {self._max_row_bytes} bytes")
        return Piece(line, offset, end, bytes(memoryview(self._buffer)[place : self._cursor]))

    def _between(self, begin: int, end: int) -> Piece:
        """Text between two values, without the commas and spaces around it."""
        gap = self._buffer[begin:end]
        begin += len(gap) - len(gap.lstrip(_BETWEEN))
        end -= len(gap) - len(gap.rstrip(_BETWEEN))
        return self._piece(begin, end, "text outside of any row")

    def _rest(self) -> Iterator[Piece]:
        """What is left is one piece: the open value, or what stopped the reading."""
        problem = self._problem
        if not problem and self._depth:
            problem = "the file ends in the middle of a row"
        if not problem and self._in_array:
            problem = "the file ends before its array is closed"
        if not problem and self._behind:
            problem = "the file ends before its document is closed"
        if not problem and self._buffer[self._done :].strip(_BETWEEN):
            problem = "text outside of any row"
        if not problem:
            return
        most = KEPT if self._problem else len(self._buffer)
        if self._start is not None:
            line, offset, place = self._start
            text = self._cut or bytes(self._buffer[place : place + most])
            yield Piece(line, offset, self._offset + len(self._buffer), text, problem)
        else:
            yield self._piece(self._done, min(self._done + most, len(self._buffer)), problem)

    def _count_lines(self, end: int) -> None:
        """Up to a place in the buffer; the places never go back, so that each byte is looked at once."""
        if end > self._counted:
            self._line += self._buffer.count(b"\n", self._counted, end)
            self._counted = end

    def _piece(self, begin: int, end: int, problem: str) -> Piece:
        self._count_lines(begin)
        self._done = max(self._done, end)
        return Piece(self._line, self._offset + begin, self._offset + end, bytes(self._buffer[begin:end]), problem)


def _name(text: bytes) -> str:
    """What a string in JSON holds."""
    try:
        return str(orjson.loads(text))
    except orjson.JSONDecodeError:
        return text.strip(b'"').decode("utf-8", "replace")
