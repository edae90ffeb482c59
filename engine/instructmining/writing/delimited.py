"""Converts JSON lines to delimited text (RFC 4180): a header with every field, nested values as JSON text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

from instructmining.errors import OutputError
from instructmining.reading.values import dumps, loads

_MOST_FIELDS = 4096
_NEWLINE = "\r\n"  # for the csv module, so that it quotes a carriage return alone; rows end in a newline


def write_delimited(lines: BinaryIO, target: BinaryIO, known: Iterable[str], delimiter: str) -> None:
    """Write rows, read twice: for the fields and for the values. Memory holds one row.

    Null, and a field that a row lacks, are empty; text is as it is; all else is JSON.

    Args:
        lines: one JSON object per line, at the beginning; seekable.
        target: the file to write.
        known: fields that come last.
        delimiter: the delimiter between two fields.

    Raises:
        OutputError: the rows have too many different fields.
        OSError: the disk refuses it.
    """
    begin = lines.tell()
    names = _names(lines, frozenset(known))
    lines.seek(begin)
    if not names:
        return
    line_of = _Lines(delimiter)
    target.write(line_of(names))
    for line in lines:
        row = loads(line)
        target.write(line_of([_text(row.get(name)) for name in names]))


def _names(lines: Iterable[bytes], known: frozenset[str]) -> list[str]:
    """Return the fields of all rows in order of appearance, known ones last.

    Raises:
        OutputError: there are too many.
    """
    found: dict[str, None] = {}
    for line in lines:
        row: Mapping[str, object] = loads(line)
        found.update(dict.fromkeys(row))
        if len(found) > _MOST_FIELDS:
            raise OutputError(f"the rows have more than {_MOST_FIELDS:,} different fields; write .jsonl")
    return [*(name for name in found if name not in known), *(name for name in found if name in known)]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else dumps(value).decode()


class _Lines:
    """Makes lines of values."""

    def __init__(self, delimiter: str) -> None:
        self._buffer = io.StringIO(newline="")
        self._writer = csv.writer(self._buffer, delimiter=delimiter, lineterminator=_NEWLINE)

    def __call__(self, values: Sequence[str]) -> bytes:
        self._buffer.seek(0)
        self._buffer.truncate()
        self._writer.writerow(values)
        return f"{self._buffer.getvalue().removesuffix(_NEWLINE)}\n".encode()
