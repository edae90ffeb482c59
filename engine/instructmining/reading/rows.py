"""Files and tables to rows: the reader of each kind, chosen by suffix; streaming, never the whole file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from instructmining.arguments import shown
from instructmining.errors import InputError
from instructmining.reading.arrow import TABLES, Table, TableRows, is_table
from instructmining.reading.compression import PACKED
from instructmining.reading.delimited import DelimitedRows
from instructmining.reading.jsonl import JsonRows
from instructmining.reading.objects import Object, ObjectRows, is_objects
from instructmining.records import RowOrReject

MAX_ROW_BYTES = 64 * 2**20
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_OTHERS = frozenset({".xlsx", ".xls", ".ods", ".orc", ".avro", ".zip", ".tar", ".tgz", ".bz2", ".xz", ".lz4", ".7z"})

Whole: TypeAlias = str | Path | Table | Iterator[Object]
Source: TypeAlias = Whole | Sequence[Object]
Sources: TypeAlias = Whole | Sequence[Whole | Object]  # one of them, or several that are no lists themselves


class RowReader(Protocol):
    """Rows of one source in order, bad ones as rejects; counts what it passed."""

    path: str  # how messages and positions call the source
    blank: int  # blank lines skipped so far
    bytes_total: int | None  # size of the source, None where it is not known

    @property
    def once(self) -> bool:
        """Whether the rows can be asked for only once."""

    @property
    def rows_total(self) -> int | None:
        """Rows of the source; None where only reading it would tell."""

    @property
    def bytes_read(self) -> int:
        """Bytes of the source that are done with; all of them once it is read to the end or left."""

    def pass_over(self) -> None:
        """Count the source as read; its rows are not asked for."""

    def begin_at(self, line: int, offset: int) -> None:
        """Begin with a row that was met before, at the line and the offset that it had then."""

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or the reject that stands for it."""


def open_rows(source: Source, *, max_row_bytes: int = MAX_ROW_BYTES) -> RowReader:
    """The reader for a source; a file is opened when the rows are asked for.

    Args:
        source: a path, "-" for JSON lines on standard input, a table in memory, or rows as dicts.
        max_row_bytes: a longer row is a reject, of which the first bytes are kept.

    Raises:
        InputError: there is no such file, it cannot be read, or nothing here reads its kind.
    """
    if not isinstance(source, (str, Path)):
        if is_table(source):
            return TableRows(source, max_row_bytes=max_row_bytes)
        if is_objects(source) or isinstance(source, Iterator):
            return ObjectRows(source, max_row_bytes=max_row_bytes)
        raise InputError(_no_source(source))
    path = str(source)
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    packed = bool(suffixes) and suffixes[-1] in PACKED
    kind = suffixes[-2] if packed and len(suffixes) > 1 else suffixes[-1] if suffixes else ""
    if kind in _OTHERS or (packed and kind in TABLES):
        raise InputError(
            f"{path}: {''.join(suffixes[-2:]) if packed else kind} is not read by this version; wanted JSON, JSON "
            "lines, CSV (each also .gz or .zst), Parquet or Arrow"
        )
    if kind in TABLES:
        return TableRows(path, max_row_bytes=max_row_bytes)
    if kind in _DELIMITERS:
        return DelimitedRows(path, delimiter=_DELIMITERS[kind], max_row_bytes=max_row_bytes)
    return JsonRows(path, max_row_bytes=max_row_bytes)


def _no_source(source: object) -> str:
    said = f"{shown(source)} is neither a path nor a table"
    if isinstance(source, Mapping):
        return f"{said}; of a single row give a list: [row], of a data set in splits one of them"
    return (
        f"{said}: wanted an object with __arrow_c_stream__, as pandas, Polars and pyarrow have it, one split of "
        "datasets, or a list of dicts; a lazy frame must be collected before"
    )
