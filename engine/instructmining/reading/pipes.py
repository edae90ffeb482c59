"""Reads rows from standard input and other pipes; the first bytes decide the kind and compression."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from instructmining.errors import InputError
from instructmining.reading.arrow import TableRows
from instructmining.reading.compression import BOM, DAMAGE, STANDARD_INPUT, ByteSource, opened
from instructmining.reading.csv import DelimitedRows
from instructmining.reading.file_kinds import HEAD_BYTES, Kind, packing_by_head, table_by_head
from instructmining.reading.file_rows import FileRows
from instructmining.reading.formats import is_a_row
from instructmining.reading.json_array import is_told as is_object_told
from instructmining.reading.jsonl import JsonRows
from instructmining.reading.options import ReadOptions
from instructmining.reading.values import utf8
from instructmining.types import RowOrReject

_JSON = (b"{", b"[")
_DELIMITERS = (b",", b"\t", b";", b"|")  # delimiters of a header; which are read without --delimiter is narrower


class PipeRows:
    """Rows of standard input, or of another pipe, in order; bad ones are rejects.

    Input that begins like Parquet or Arrow is a table. Input whose first line starts with no bracket and has a
    delimiter, or for which a delimiter was given, is delimited text. Everything else is JSON.

    Attributes:
        path: "-", or the path as given.
        bytes_total: None, since a pipe does not state it.
        rows_total: None.
        of_rows: false.
        bytes_read: 0.
        once: true.
    """

    bytes_total: int | None = None
    rows_total: int | None = None
    of_rows = False
    lines: int | None = None
    bytes_read = 0.0
    once = True

    def __init__(self, path: str, options: ReadOptions) -> None:
        """Create a reader; nothing is read before iteration."""
        self.path = utf8(path)
        self._pipe = path
        self._options = options
        self._rows: FileRows | None = None

    @property
    def blank(self) -> int:
        """Blank lines skipped so far."""
        return self._rows.blank if self._rows is not None else 0

    @property
    def left_out(self) -> Sequence[str]:
        """Names of members of a document outside of its rows, so far."""
        return self._rows.left_out if self._rows is not None else ()

    def units_total(self, *, scan: bool) -> int | None:  # noqa: ARG002 - it could not be read again
        """Return None: what a pipe holds is known at its end."""
        return None

    def begin_at(self, line: int, offset: int) -> None:  # noqa: ARG002 - the signature of a file's reader
        """Refuse to start in the middle.

        Raises:
            InputError: always.
        """
        what = "standard input" if self.path == STANDARD_INPUT else f"{self.path}: a pipe"
        raise InputError(f"{what} cannot be read again from the middle; give a file")

    def cut(self, begin: int, end: int | None) -> None:
        """Leave out nothing."""

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or a reject in its place.

        Raises:
            InputError: the pipe cannot be read, or is damaged before the first row.
        """
        with opened(self._pipe, is_told=_is_told) as source:
            head = source.head()
            table = table_by_head(head)
            if table is not None:
                yield from self._table(source, table)
                return
            self._rows = self._text(head)
            yield from self._rows.rows_from(source)

    def _text(self, head: bytes) -> FileRows:
        begin = head.removeprefix(BOM).lstrip()
        header = begin.partition(b"\n")[0]
        delimiter = self._options.delimiter
        if delimiter is None and (begin.startswith(_JSON) or not any(usual in header for usual in _DELIMITERS)):
            return JsonRows(self._pipe, self._options, is_row=is_a_row)
        usual = "\t" if header.count(b"\t") > header.count(b",") else ","
        return DelimitedRows(self._pipe, self._options, delimiter=delimiter or usual)

    def _table(self, source: ByteSource, kind: Kind) -> Iterator[RowOrReject]:
        """Copy a table, whose rows lie anywhere in it, to a temporary file and read that."""
        with TemporaryDirectory(prefix="instructmining-") as folder:
            copy = Path(folder) / "table"
            try:
                with copy.open("wb") as file:
                    shutil.copyfileobj(source.stream, file, 1 << 20)
            except (*DAMAGE, OSError) as error:
                raise InputError(f"{self.path}: cannot be copied into {folder}: {error}") from error
            options = self._options
            yield from TableRows(str(copy), max_row_bytes=options.max_row_bytes, kind=kind, name=self.path)


def _is_told(head: bytes) -> bool:
    """Return whether the first bytes show what a pipe holds: a complete first object, or a line of text."""
    if len(head) < HEAD_BYTES:
        return False
    if packing_by_head(head) is not None or table_by_head(head) is not None:
        return True
    begin = head.removeprefix(BOM).lstrip()
    if begin.startswith(b"{"):
        return is_object_told(begin)
    return begin.startswith(b"[") or b"\n" in begin
