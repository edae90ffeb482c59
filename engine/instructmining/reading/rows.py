"""Files and tables to rows: the reader of each kind, chosen by name and first bytes; never the whole file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeAlias

from instructmining.errors import InputError
from instructmining.reading.arrow import Table, TableRows, is_table
from instructmining.reading.compression import STANDARD_INPUT, file_size
from instructmining.reading.delimited import DelimitedRows
from instructmining.reading.jsonl import JsonRows
from instructmining.reading.kinds import HEAD_BYTES, Kind, kind_by_name, table_by_head
from instructmining.reading.options import ReadOptions
from instructmining.reading.standard_input import StandardInput
from instructmining.records import RowOrReject

_DEFAULT = ReadOptions()

Source: TypeAlias = str | Path | Table


class RowReader(Protocol):
    """Rows of one source in order, bad ones as rejects; counts what it passed."""

    path: str  # how messages and positions call the source
    bytes_total: int | None  # size of the source, None where it is not known

    @property
    def blank(self) -> int:
        """Blank lines skipped so far."""

    @property
    def rows_total(self) -> int | None:
        """Rows of the source; None where only reading it would tell."""

    @property
    def bytes_read(self) -> float:
        """Bytes of the source up to the end of the row met last; all of them once it is read to the end."""

    def begin_at(self, line: int, offset: int) -> None:
        """Begin with a row that was met before, at the line and the offset that it had then."""

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or the reject that stands for it."""


def open_rows(source: Source, options: ReadOptions = _DEFAULT) -> RowReader:
    """The reader for a source; the rows of a file are read when they are asked for.

    What the first bytes of a file are sure to be (Parquet, Arrow, gzip, zstd) it is, whatever its suffix says.

    Args:
        source: the path of a file, "-" for standard input, or a table in memory.
        options: how rows are read.

    Raises:
        InputError: there is no such file, it cannot be read, or nothing here reads its kind.
    """
    if not isinstance(source, (str, Path)):
        if not is_table(source):
            raise InputError(
                f"{type(source).__name__} is neither a path nor a table: wanted an object with __arrow_c_stream__, as "
                "pandas, Polars and pyarrow have it, or one split of datasets; a lazy frame must be collected before"
            )
        return TableRows(source, max_row_bytes=options.max_row_bytes)
    path = str(source)
    if path == STANDARD_INPUT:
        return StandardInput(options)
    name = kind_by_name(path)
    kind = _table_inside(path) or name.kind or ("json" if options.delimiter is None else "delimited")
    if kind in {"parquet", "arrow"}:
        return TableRows(path, max_row_bytes=options.max_row_bytes, kind=kind)
    if kind == "delimited":
        return DelimitedRows(path, options, delimiter=options.delimiter or name.delimiter)
    return JsonRows(path, options)


def _table_inside(path: str) -> Kind | None:
    """Parquet or Arrow, where a file begins like one; a pipe is not looked into.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    if not file_size(path) or not Path(path).is_file():
        return None
    try:
        with Path(path).open("rb") as file:
            return table_by_head(file.read(HEAD_BYTES))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
