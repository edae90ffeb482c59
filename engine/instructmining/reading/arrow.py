"""Reads rows from Parquet, Arrow files and streams, and tables in memory, one record batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeGuard, runtime_checkable

from instructmining.errors import InputError
from instructmining.reading.arrow_values import JsonRow, NoJson, RowMaker, first_line
from instructmining.reading.compression import file_size
from instructmining.reading.file_kinds import Kind
from instructmining.reading.parquet_footer import is_several
from instructmining.reading.values import utf8
from instructmining.stores.addresses import is_address
from instructmining.stores.files import open_file, table_source
from instructmining.types import Reject, RowOrReject, SourceRow

if TYPE_CHECKING:
    import pyarrow as pa

IN_MEMORY = "table"  # the name of a table without a path in messages
_BATCH_ROWS = 128
_BUFFER = 1 << 20  # bytes of a column read at a time, instead of its whole chunk of a row group
_KEPT = 1000  # bytes kept of a row that is too long
_ARROW_FILE, _FEATHER_1 = b"ARROW1", b"FEA1"
_ARROW_BEGIN, _FOOTER_SIZE = 8, 4  # bytes before an Arrow file's first message; bytes that hold its footer's size
_APART = "pass each as its own file"
_SEVERAL = f"several concatenated files; {_APART}"

Batches: TypeAlias = "Iterator[tuple[int, pa.RecordBatch]]"  # each with the number of its first row


@runtime_checkable
class ArrowStream(Protocol):
    """A table that exports itself through Arrow's C interface: pandas, Polars, pyarrow, DuckDB and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the table as a PyCapsule of an Arrow stream."""


@runtime_checkable
class BatchedDataset(Protocol):
    """A table like ``datasets.Dataset``: its rows may be selected or reordered over the same Arrow table."""

    def with_format(self, type: str | None) -> BatchedDataset:  # noqa: A002 - theirs
        """Return the same rows in the format of the type."""

    def iter(self, batch_size: int) -> Iterator[pa.Table]:
        """Yield the rows in order, in batches of the size."""


Table: TypeAlias = ArrowStream | BatchedDataset


def is_table(source: object) -> TypeGuard[Table]:
    """Return whether rows can be read from an object in memory."""
    return isinstance(source, (ArrowStream, BatchedDataset))


def read_once(source: object) -> bool:
    """Return whether the object is a stream or an iterator, which can be read only once."""
    return hasattr(source, "read_next_batch") or isinstance(source, Iterator)


class TableRows:
    """Rows of one table in order; rows that JSON cannot hold are rejects.

    Attributes:
        path: the path as given, or "table".
        blank: 0.
        bytes_total: size of the file in bytes; None for a table in memory.
        of_rows: true.
    """

    def __init__(
        self, source: str | Table, *, max_row_bytes: int, kind: Kind = "arrow", name: str | None = None
    ) -> None:
        """Create a reader; the table is opened on iteration.

        Args:
            source: a file, or a table in memory.
            max_row_bytes: a row longer than this as JSON is a reject.
            kind: kind of the file: "parquet" or "arrow".
            name: name in messages and positions; by default the path, or "table".

        Raises:
            InputError: there is no such file.
        """
        self.path = name or (utf8(source) if isinstance(source, str) else IN_MEMORY)
        self.blank = 0
        self.bytes_total = file_size(source) if isinstance(source, str) else None
        self._source = source
        self._kind = kind
        self._max_row_bytes = max_row_bytes
        self._begin = 0
        self._share = 0.0  # share of the table that was read, 0..1

    left_out: Sequence[str] = ()
    of_rows = True
    lines: int | None = None

    @property
    def once(self) -> bool:
        """Whether the table is a stream, which can be read only once."""
        return read_once(self._source)

    @property
    def bytes_read(self) -> float:
        """Bytes of the file read so far, estimated from the share of its rows."""
        return self._share * (self.bytes_total or 0)

    @property
    def rows_total(self) -> int | None:
        """Number of rows, where the end of the file states it.

        Raises:
            InputError: the file is damaged.
        """
        if self._kind != "parquet":
            return None
        with closing(self._opened()) as source:
            return source.rows

    def units_total(self, *, scan: bool) -> int | None:
        """Return the number of rows; of an Arrow file only where its batches may be read for it.

        Raises:
            InputError: the file is damaged.
        """
        with closing(self._opened()) as source:
            if source.rows is not None or not scan:
                return source.rows
            rows = 0
            try:
                for _, batch in source.batches(0):
                    rows += batch.num_rows
            except _damage() as error:
                if _is_of_the_disk(error):
                    raise self._unreadable(error) from error
            return rows

    def begin_at(self, line: int, offset: int) -> None:  # noqa: ARG002 - it is always offset + 1
        """Start at a row met before, with ``offset`` rows before it."""
        self._begin = offset

    def cut(self, begin: int, end: int | None) -> None:  # noqa: ARG002 - whoever reads the rows stops there
        """Leave out the batches before a row."""
        self._begin = begin

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or a reject in its place; row groups before the first row wanted are not read.

        Raises:
            InputError: the table cannot be opened, has two columns of one name or is damaged before the first row, or
                the disk fails anywhere. Damage after the first row is a reject: it is the same on every read.
        """
        number = self._begin
        with closing(self._opened()) as source:
            try:
                make = self._maker(source.schema)
                for first, batch in source.batches(self._begin):
                    if not batch.schema.equals(make.schema):  # an iterable data set learns its types as it goes
                        make = self._maker(batch.schema)
                    for row in make.rows(batch.slice(max(0, number - first))):
                        number += 1
                        self._share = max(self._share, source.share(number))
                        yield self._made(number - 1, row)
            except _damage() as error:
                if number == 0 or _is_of_the_disk(error):
                    raise self._unreadable(error) from error
                yield self._reject(number, f"the rest of the file cannot be read: {first_line(error)}", b"")
        self._share = 1.0

    def _maker(self, schema: pa.Schema) -> RowMaker:
        names = schema.names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{self.path}: {twice!r} names more than one column; rename one of them")
        return RowMaker(schema)

    def _made(self, number: int, row: JsonRow | NoJson) -> RowOrReject:
        if isinstance(row, NoJson):
            return self._reject(number, row.reason, row.raw[: self._max_row_bytes])
        fields, raw = row
        if len(raw) > self._max_row_bytes:
            return self._reject(number, f"row is longer than {self._max_row_bytes} bytes", raw[:_KEPT])
        return SourceRow(self.path, number + 1, number, raw, fields)

    def _reject(self, number: int, reason: str, raw: bytes) -> Reject:
        return Reject(self.path, number + 1, number, reason, raw)

    def _opened(self) -> _Opened:
        try:
            if not isinstance(self._source, str):
                return _in_memory(self._source)
            return _parquet(self._source) if self._kind == "parquet" else _arrow(self._source)
        except _damage() as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: BaseException) -> InputError:
        return InputError(f"{self.path}: cannot be read: {first_line(error)}")


@dataclass(frozen=True, slots=True)
class _Opened:
    """An open table, which yields batches."""

    schema: pa.Schema
    rows: int | None
    batches: Callable[[int], Batches]  # batches that hold rows from that row on
    share: Callable[[int], float]  # share of the table, 0..1, that a number of rows is
    close: Callable[[], None]


def _damage() -> tuple[type[Exception], ...]:
    """Return the exceptions that pyarrow and table libraries raise for damaged bytes or values."""
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    return (pa.ArrowException, OSError, ValueError, TypeError)


def _is_of_the_disk(error: BaseException) -> bool:
    """Return whether reading failed, unlike damage, which is the same on every read."""
    return isinstance(error, OSError) and error.errno is not None


def _parquet(path: str) -> _Opened:
    """Open a Parquet file; batches start at the same rows wherever reading begins."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - only where tables are read

    file = pq.ParquetFile(table_source(path), buffer_size=_BUFFER, page_checksum_verification=True)
    rows = file.metadata.num_rows
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != rows:
        raise ValueError(f"its row groups have {sum(group.num_rows for group in groups):,} rows, its footer {rows:,}")
    if is_several(path):
        raise ValueError(_SEVERAL)

    def batches(begin: int) -> Batches:
        first = 0
        for number, group in enumerate(groups):
            after = first + group.num_rows
            if after > begin:
                parts = file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[number], use_threads=False)
                end = first
                for at, part in _from(begin, first, parts):
                    end = at + part.num_rows
                    yield at, part
                if end != after:
                    raise ValueError(f"row group {number} ends after row {end:,}, its footer says {after:,}")
            first = after

    return _Opened(file.schema_arrow, rows, batches, lambda done: done / rows, file.close)


def _arrow(path: str) -> _Opened:
    """Open an Arrow file (which some tools call Feather) or stream (which ``datasets`` keeps); mapped, not loaded.

    Raises:
        InputError: it is Feather version 1.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    with open_file(path) as opened:
        magic = opened.read(len(_ARROW_FILE))
    if magic.startswith(_FEATHER_1):
        raise InputError(f"{path}: is Feather version 1, which is not read; write it again as version 2 or Parquet")
    file = pa.PythonFile(open_file(path), "r") if is_address(path) else pa.memory_map(path)
    if magic != _ARROW_FILE:
        stream = pa.ipc.open_stream(file)
        size = file.size()
        met = _Met(_to_the_end(stream, file), lambda met: met.rows * size / file.tell())
        return _Opened(stream.schema, None, lambda begin: _from(begin, 0, met), met.share, file.close)
    whole = pa.ipc.open_file(file)
    many = whole.num_record_batches
    _check_file(file, many)
    last = whole.get_batch(many - 1).num_rows if many else 0  # the other batches usually have one size
    met = _Met(
        map(whole.get_batch, range(many)),
        lambda met: met.rows if met.batches == many else met.rows / met.batches * (many - 1) + last,
    )
    return _Opened(whole.schema, None, lambda begin: _from(begin, 0, met), met.share, file.close)


def _to_the_end(stream: pa.RecordBatchReader, file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a stream; pyarrow alone takes a stream that is cut between two batches for a complete one.

    Raises:
        ValueError: the end-of-stream marker is missing, or bytes follow it.
    """
    at = file.tell()
    for batch in stream:
        at = file.tell()
        yield batch
    if file.tell() == at:
        raise ValueError("the end-of-stream marker is missing, and rows may be missing too")
    if more := file.size() - file.tell():
        raise ValueError(f"{more:,} bytes follow the end of the stream; {_APART}")


def _check_file(file: pa.NativeFile, batches: int) -> None:
    """Check that an Arrow file's footer covers everything before it.

    Raises:
        ValueError: files were concatenated (the footer is the last file's, its offsets point into the first), or the
            footer counts another number of batches than there are.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    end = file.size() - len(_ARROW_FILE) - _FOOTER_SIZE
    footer = end - int.from_bytes(file.read_at(_FOOTER_SIZE, end), "little")
    file.seek(_ARROW_BEGIN)
    at, met = _ARROW_BEGIN, 0
    with suppress(pa.ArrowException, EOFError, OSError):  # damage is reported where it is read
        for message in pa.ipc.MessageReader.open_stream(file):
            at, met = file.tell(), met + (message.type == "record batch")
        if at < file.tell() < footer:
            raise ValueError(_SEVERAL)
        if at < file.tell() == footer and met != batches:
            raise ValueError(f"it holds {met:,} batches, its footer says {batches:,}")


class _Met:
    """Batches in order of a table that does not state its number of rows.

    Attributes:
        batches: number of batches so far.
        rows: number of rows in them.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], expected: Callable[[_Met], float]) -> None:
        """Wrap the batches; nothing is read before iteration.

        Args:
            batches: all batches of the table.
            expected: estimates the rows of the table from the batches so far.
        """
        self.batches = 0
        self.rows = 0
        self._source = batches
        self._expected = expected

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._source:
            self.batches += 1
            self.rows += batch.num_rows
            yield batch

    def share(self, rows: int) -> float:
        """Return the share of the table, 0..1, that a number of rows is."""
        return min(1.0, rows / self._expected(self)) if self.rows else 0.0


def _in_memory(table: Table) -> _Opened:
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    if isinstance(table, BatchedDataset):  # its own Arrow stream might hold the rows before they were selected
        tables = table.with_format("arrow").iter(batch_size=_BATCH_ROWS)
        head = next(tables, None)
        schema = head.schema if head is not None else pa.schema([])
        every = (batch for part in chain([head] if head is not None else [], tables) for batch in part.to_batches())
        return _Opened(schema, None, lambda begin: _from(begin, 0, every), lambda _: 0.0, _nothing)
    stream = pa.RecordBatchReader.from_stream(table)
    return _Opened(stream.schema, None, lambda begin: _from(begin, 0, stream), lambda _: 0.0, _nothing)


def _nothing() -> None:
    """Close nothing: the owner of a table in memory closes it."""


def _from(begin: int, first: int, batches: Iterable[pa.RecordBatch]) -> Batches:
    """Yield batches of limited size that hold rows from ``begin`` on; ``first`` is the number of the first row."""
    for batch in batches:
        for at in range(0, batch.num_rows, _BATCH_ROWS):
            part = batch.slice(at, _BATCH_ROWS)
            if first + at + part.num_rows > begin:
                yield first + at, part
        first += batch.num_rows
