"""Splits a JSON array, the array in a document, or concatenated objects into values, each as its own bytes.

Only brackets and strings are scanned, so a row keeps its bytes and a bad row affects no other. Each byte is scanned
once, however it arrives; memory holds one value, of one that is too long only its first bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from instructmining.reading.compression import BOM, DAMAGE

KEPT = 1000  # bytes kept of a row that is too long, or of text that ended the reading
_CHUNK = 1 << 20
_SYMBOL = re.compile(rb'["{}\[\]]')
# From inside a string to its end, or to the end of the buffer; possessive, so escapes take no memory.
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
    """The bytes of one value, or of text that is none."""

    line: int
    offset: int
    end: int
    text: bytes
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """An object whose ``data`` are rows."""

    array: int  # byte at which the array begins
    names: tuple[str, ...]  # names of the members before it


def document_of(head: bytes, *, by_line: bool = False) -> Document | None:
    """Return the document ``{"data": [{row}, ...]}`` at the start of a file; None where it starts with anything else.

    An object followed by anything is a row, whatever it holds, and so is an object whose ``data`` holds no objects.

    Args:
        head: first bytes of a file that starts with an object.
        by_line: whether the file's name says that each line is a row; an object without an end is then a row.
    """
    begin = _beginning_of(head)
    if begin.array is None or (begin.end is None and by_line and b"\n" not in head):
        return None
    return Document(begin.array, tuple(begin.names)) if begin.end is None or not head[begin.end :].strip() else None


def is_told(head: bytes) -> bool:
    """Return whether the first bytes of a file that starts with an object suffice to tell a document from a row."""
    begin = _beginning_of(head)
    return begin.end is not None and (begin.array is None or bool(head[begin.end :].strip()))


@dataclass(slots=True)
class _Beginning:
    """What is visible of the object at the start of a file."""

    names: list[str] = field(default_factory=list)  # names of the members before its rows
    array: int | None = None  # byte at which its rows begin
    end: int | None = None  # byte after the object, where visible


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
    """Splits a stream into its values."""

    def __init__(
        self,
        stream: io.BufferedReader,
        max_row_bytes: int,
        *,
        document: Document | None = None,
        left_out: list[str] | None = None,
    ) -> None:
        """Start at the beginning of a file.

        Args:
            stream: the file.
            max_row_bytes: a longer row is a problem.
            document: the document that holds the rows; its other members are no rows.
            left_out: collects the names of the members after the rows.
        """
        self._stream = stream
        self._max_row_bytes = max_row_bytes
        self._buffer = bytearray()
        self._offset = 0  # offset in the file of the buffer's first byte
        self._line = 1  # line of the byte at _counted
        self._counted = 0  # place in the buffer up to which lines were counted
        self._cursor = 0  # everything in the buffer before it was scanned
        self._done = 0  # everything before it belongs to values already yielded
        self._depth = 0  # brackets open at the cursor, without the array's own
        self._start: tuple[int, int, int] | None = None  # line, offset, and place in the buffer of the open value
        self._cut = b""  # first bytes of the open value, where it is too long to keep
        self._in_string = False
        self._string = 0  # where the open string begins in the buffer
        self._in_array = False
        self._problem = ""  # what ended the reading early
        self._before = document.array if document is not None else 0  # bytes of the document before its array
        self._in_document = document is not None
        self._left_out = left_out if left_out is not None else []
        self._open_after = 0  # brackets of the document that are open after its array
        self._last_text = b""  # the last string after the array

    def __iter__(self) -> Iterator[Piece]:
        """Yield the values in order, and any text between them."""
        if self._before:
            before = self._stream.read(self._before)
            self._offset, self._line = len(before), 1 + before.count(b"\n")
        while not self._problem and self._more():
            yield from self._scan()
        yield from self._rest()

    def _more(self) -> bool:
        """Read more; drops yielded values from the buffer, and all but the first bytes of a value that is too long."""
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
        """Scan the new bytes in the buffer."""
        buffer = self._buffer
        while not self._problem:
            if self._in_string:
                inside = _IN_STRING.match(buffer, self._cursor)
                self._cursor = inside.end() if inside is not None else self._cursor
                if self._cursor >= len(buffer) or buffer[self._cursor] != _QUOTE:
                    return  # the string continues, or ends in half an escape
                self._cursor += 1
                self._in_string = False
                yield from self._text()
                continue
            match = _SYMBOL.search(buffer, self._cursor)
            if match is None:
                if self._start is not None or self._open_after:
                    self._cursor = len(buffer)
                return
            if self._depth == 0 and not self._open_after and self._buffer[self._done : match.start()].strip(_BETWEEN):
                yield self._between(self._done, match.start())
            yield from self._step(match.group(), match.start())

    def _step(self, symbol: bytes, place: int) -> Iterator[Piece]:
        if self._open_after:
            self._name_before_colon(place)
        self._cursor = place + 1
        if symbol == b'"':
            self._in_string, self._string = True, place
        elif self._open_after:
            self._open_after += 1 if symbol in (b"[", b"{") else -1
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
            self._open_after = int(self._in_document)
            self._in_document = False
            self._done = self._cursor
        else:
            self._done = place
            self._problem = "a closing bracket without its opening"

    def _run(self, brackets: re.Pattern[bytes], most: int) -> int:
        """Count the brackets at the cursor, up to a place, and move the cursor past them."""
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
        """Handle the end of a string."""
        if self._open_after:
            self._last_text = bytes(self._buffer[self._string : self._cursor]) if self._open_after == 1 else b""
            self._done = self._cursor
        elif self._depth == 0:
            yield self._piece(self._string, self._cursor, "row is text, wanted an object")

    def _name_before_colon(self, place: int) -> None:
        """Record the name of a member of the document, once a colon follows it."""
        if self._open_after == 1 and self._last_text:
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
        """Return text between two values, without commas and spaces around it."""
        gap = self._buffer[begin:end]
        begin += len(gap) - len(gap.lstrip(_BETWEEN))
        end -= len(gap) - len(gap.rstrip(_BETWEEN))
        return self._piece(begin, end, "text outside of any row")

    def _rest(self) -> Iterator[Piece]:
        """Yield what is left as one piece: the open value, or what ended the reading."""
        problem = self._problem
        if not problem and self._depth:
            problem = "the file ends in the middle of a row"
        if not problem and self._in_array:
            problem = "the file ends before its array is closed"
        if not problem and self._open_after:
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
        """Count lines up to a place in the buffer; places never go back, so each byte is counted once."""
        if end > self._counted:
            self._line += self._buffer.count(b"\n", self._counted, end)
            self._counted = end

    def _piece(self, begin: int, end: int, problem: str) -> Piece:
        self._count_lines(begin)
        self._done = max(self._done, end)
        return Piece(self._line, self._offset + begin, self._offset + end, bytes(self._buffer[begin:end]), problem)


def _name(text: bytes) -> str:
    """Parse a JSON string."""
    try:
        return str(orjson.loads(text))
    except orjson.JSONDecodeError:
        return text.strip(b'"').decode("utf-8", "replace")
