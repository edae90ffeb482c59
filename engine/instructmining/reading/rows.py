"""Files and tables to rows: the reader of each kind, chosen by name and first bytes; never the whole file."""

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
from instructmining.types import RowOrReject

WINDOW_BYTES = 8 << 20  # of the rows that are held together; a window of usual rows has less
_DEFAULT = ReadOptions()

Whole: TypeAlias = str | Path | Table | Iterator[Object]
Source: TypeAlias = Whole | Sequence[Object]
Sources: TypeAlias = Whole | Sequence[Whole | Object]  # one of them, or several that are no lists themselves
Item = TypeVar("Item")


class RowReader(Protocol):
    """Rows of one source in order, bad ones as rejects; counts what it passed."""

    path: str  # how messages and positions call the source
    bytes_total: int | None  # size of the source, None where it is not known

    @property
    def blank(self) -> int:
        """Blank lines skipped so far."""

    @property
    def left_out(self) -> Sequence[str]:
        """Names of what a document holds beside its rows, so far."""

    @property
    def once(self) -> bool:
        """Whether the rows can be asked for only once, as those of a pipe."""

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
        source: the path of a file, "-" for standard input, a table in memory, or rows as dicts.
        options: how rows are read.

    Raises:
        InputError: there is no such file, it cannot be read, or nothing here reads its kind.
    """
    if not isinstance(source, (str, Path)):
        if is_table(source):
            return TableRows(source, max_row_bytes=options.max_row_bytes)
        if is_objects(source) or isinstance(source, Iterator):
            return ObjectRows(source, max_row_bytes=options.max_row_bytes)
        raise InputError(_no_source(source))
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


def first_of(items: Iterator[Item], most: int, raw: Callable[[Item], bytes]) -> deque[Item]:
    """The first items: so many, or as many as have the bytes of a window."""
    taken: deque[Item] = deque()
    size = 0
    while len(taken) < most and size < WINDOW_BYTES and (item := next(items, None)) is not None:
        taken.append(item)
        size += len(raw(item))
    return taken


def _no_source(source: object) -> str:
    said = f"{shown(source)} is neither a path nor a table"
    if isinstance(source, Mapping):
        return f"{said}; of a single row give a list: [row], of a data set in splits one of them"
    return (
        f"{said}: wanted an object with __arrow_c_stream__, as pandas, Polars and pyarrow have it, one split of "
        "datasets, or a list of dicts; a lazy frame must be collected before"
    )


def _table_inside(path: str) -> Kind | None:
    """Parquet or Arrow, where a file begins like one.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    if not file_size(path):
        return None
    try:
        with Path(path).open("rb") as file:
            return table_by_head(file.read(HEAD_BYTES))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
