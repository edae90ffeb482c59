"""Standard input and other pipes to rows: of any kind and compression that files have, found by its first bytes."""

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
_DELIMITERS = (b",", b"\t", b";", b"|")  # of a header; which of them is read unasked is less


class PipeRows:
    """Rows of standard input, or of another pipe, in order, bad ones as rejects.

    It is a table where it begins like Parquet or Arrow, delimited text where its first line begins with no bracket and
    has a delimiter in it, or where one is asked for, else JSON.

    Attributes:
        path: "-", or as it was given.
        bytes_total: None, since nothing says it.
        rows_total: None.
        bytes_read: 0.
        once: true.
    """

    bytes_total: int | None = None
    rows_total: int | None = None
    bytes_read = 0.0
    once = True

    def __init__(self, path: str, options: ReadOptions) -> None:
        """Nothing is read before the rows are asked for."""
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
        """Names of what a document holds beside its rows, so far."""
        return self._rows.left_out if self._rows is not None else ()

    def begin_at(self, line: int, offset: int) -> None:  # noqa: ARG002 - as of a file
        """Refuse to begin in the middle.

        Raises:
            InputError: always.
        """
        what = "standard input" if self.path == STANDARD_INPUT else f"{self.path}: a pipe"
        raise InputError(f"{what} cannot be read again from the middle; give a file")

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or the reject that stands for it.

        Raises:
            InputError: it cannot be read, or is damaged before the first row.
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
        """A table's rows lie anywhere in it, so it is kept in a temporary file meanwhile."""
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
    """Whether the first bytes tell what a pipe holds: a first object to its end, of text else a line."""
    if len(head) < HEAD_BYTES:
        return False
    if packing_by_head(head) is not None or table_by_head(head) is not None:
        return True
    begin = head.removeprefix(BOM).lstrip()
    if begin.startswith(b"{"):
        return is_object_told(begin)
    return begin.startswith(b"[") or b"\n" in begin
