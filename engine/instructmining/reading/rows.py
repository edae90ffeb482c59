"""Chooses the reader of a file or table by its name and first bytes; never reads the whole file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from instructmining.errors import InputError
from instructmining.errors.arguments import shown
from instructmining.reading.arrow import Table, TableRows, is_table
from instructmining.reading.compression import file_size, is_pipe
from instructmining.reading.csv import DelimitedRows
from instructmining.reading.file_kinds import HEAD_BYTES, Kind, kind_by_name, table_by_head
from instructmining.reading.formats import is_a_row
from instructmining.reading.jsonl import JsonRows
from instructmining.reading.objects import Object, ObjectRows, is_objects
from instructmining.reading.options import ReadOptions
from instructmining.reading.pipes import PipeRows
from instructmining.stores.files import open_file
from instructmining.types import RowOrReject

WINDOW_BYTES = 8 << 20  # bytes of the rows held together; a window of usual rows has fewer
_DEFAULT = ReadOptions()

Whole: TypeAlias = str | Path | Table | Iterator[Object]
Source: TypeAlias = Whole | Sequence[Object]
Sources: TypeAlias = Whole | Sequence[Whole | Object]  # one source, or several sources that are no lists themselves
Item = TypeVar("Item")


class RowReader(Protocol):
    """Rows of one source in order; bad ones are rejects. Counts what was read."""

    path: str  # name of the source in messages and positions
    bytes_total: int | None  # size of the source, None where it is not known

    @property
    def blank(self) -> int:
        """Blank lines skipped so far."""

    @property
    def left_out(self) -> Sequence[str]:
        """Names of members of a document outside of its rows, so far."""

    @property
    def once(self) -> bool:
        """Whether the rows can be read only once, as from a pipe."""

    @property
    def of_rows(self) -> bool:
        """Whether the offset of a row counts rows, not bytes."""

    @property
    def lines(self) -> int | None:
        """Lines read, counted as those of rows are; None where these never count from a cut."""

    @property
    def rows_total(self) -> int | None:
        """Number of rows; None where it is only known after reading."""

    @property
    def bytes_read(self) -> float:
        """Bytes of the source up to the end of the last row; all of them at the end."""

    def units_total(self, *, scan: bool) -> int | None:
        """Return the bytes of the text, or the rows of the table: what offsets count; None where it is not known.

        Args:
            scan: whether to read the file for it, where it does not say.
        """

    def begin_at(self, line: int, offset: int) -> None:
        """Start at a row met before, at the line and offset that it had then."""

    def cut(self, begin: int, end: int | None) -> None:
        """Leave out what is cheap to leave out of the rows before an offset, and of those from another on.

        The lines of rows may count from the cut then.
        """

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or a reject in its place."""


def open_rows(source: Source, options: ReadOptions = _DEFAULT) -> RowReader:
    """Return the reader of a source; rows are read on iteration.

    First bytes of Parquet, Arrow, gzip or zstd decide the kind of a file, whatever its suffix is.

    Args:
        source: the path of a file, "-" for standard input, a table in memory, or rows as dicts.
        options: how rows are read.

    Raises:
        InputError: there is no such file, it cannot be read, or its kind is not supported.
    """
    if not isinstance(source, (str, Path)):
        return _in_memory(source, options)
    path = str(source)
    if is_pipe(path):
        return PipeRows(path, options)
    name = kind_by_name(path)
    kind = _table_inside(path) or name.kind or ("json" if options.delimiter is None else "delimited")
    if kind in {"parquet", "arrow"}:
        return TableRows(path, max_row_bytes=options.max_row_bytes, kind=kind)
    if kind == "delimited":
        return DelimitedRows(path, options, delimiter=options.delimiter or name.delimiter)
    return JsonRows(path, options, is_row=is_a_row)


def _in_memory(source: Table | Iterator[Object] | Sequence[Object], options: ReadOptions) -> RowReader:
    if is_objects(source):  # first, since a service reads many short lists
        return ObjectRows(source, max_row_bytes=options.max_row_bytes)
    if is_table(source):
        return TableRows(source, max_row_bytes=options.max_row_bytes)
    if isinstance(source, Iterator):
        return ObjectRows(source, max_row_bytes=options.max_row_bytes)
    raise InputError(_no_source(source))


def first_of(items: Iterator[Item], most: int, raw: Callable[[Item], bytes]) -> deque[Item]:
    """Return the first items: so many, or as many as have the bytes of a window."""
    taken: deque[Item] = deque()
    size = 0
    while len(taken) < most and size < WINDOW_BYTES and (item := next(items, None)) is not None:
        taken.append(item)
        size += len(raw(item))
    return taken


def _no_source(source: object) -> str:
    said = f"{shown(source)} is neither a path nor a table"
    if isinstance(source, Mapping):
        return f"{said}; pass a single row as a list, [row], and one split of a data set with splits"
    return (
        f"{said}: wanted an object with __arrow_c_stream__, as pandas, Polars and pyarrow have it, one split of "
        "datasets, or a list of dicts; collect a lazy frame first"
    )


def _table_inside(path: str) -> Kind | None:
    """Detect Parquet or Arrow by the first bytes of a file.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    if not file_size(path):
        return None
    try:
        with open_file(path) as file:
            return table_by_head(file.read(HEAD_BYTES))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
