"""Tables to rows: Parquet, Arrow's files and streams, and tables in memory, by record batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeGuard, runtime_checkable

from instructmining.errors import InputError
from instructmining.reading.arrow_values import JsonRow, NoJson, RowMaker, first_line
from instructmining.reading.compression import file_size
from instructmining.reading.file_kinds import Kind
from instructmining.reading.parquet_footer import is_several
from instructmining.reading.values import utf8
from instructmining.types import Reject, RowOrReject, SourceRow

if TYPE_CHECKING:
    import pyarrow as pa

IN_MEMORY = "table"  # how messages call a table that has no path
_BATCH_ROWS = 128
_BUFFER = 1 << 20  # bytes of a column read at a time, instead of all that a row group has of it
_KEPT = 1000  # bytes kept of a row that is too long
_ARROW_FILE, _FEATHER_1 = b"ARROW1", b"FEA1"
_ARROW_BEGIN, _FOOTER_SIZE = 8, 4  # bytes before the first message of an Arrow file, and of what says its footer's size
_APART = "give each as a file of its own"
_SEVERAL = f"several files, one behind the other; {_APART}"

Batches: TypeAlias = "Iterator[tuple[int, pa.RecordBatch]]"  # each with the number of its first row


@runtime_checkable
class ArrowStream(Protocol):
    """A table that gives itself away through Arrow's C interface: pandas, Polars, pyarrow, DuckDB and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A PyCapsule of an Arrow stream."""


@runtime_checkable
class BatchedDataset(Protocol):
    """A table as ``datasets.Dataset`` is one: rows may be chosen and ordered anew over the same Arrow table."""

    def with_format(self, type: str | None) -> BatchedDataset:  # noqa: A002 - theirs
        """The same rows, given as the type says."""

    def iter(self, batch_size: int) -> Iterator[pa.Table]:
        """The rows in order, so many together."""


Table: TypeAlias = ArrowStream | BatchedDataset


def is_table(source: object) -> TypeGuard[Table]:
    """Whether rows can be read from an object in memory."""
    return isinstance(source, (ArrowStream, BatchedDataset))


def read_once(source: object) -> bool:
    """Whether it is a stream or an iterator, which is gone when it was read."""
    return hasattr(source, "read_next_batch") or isinstance(source, Iterator)


class TableRows:
    """Rows of one table in order, those that JSON cannot hold as rejects.

    Attributes:
        path: as it was given, or "table".
        blank: 0.
        bytes_total: size of the file, None for a table in memory.
    """

    def __init__(
        self, source: str | Table, *, max_row_bytes: int, kind: Kind = "arrow", name: str | None = None
    ) -> None:
        """Name a table; it is opened when the rows are asked for.

        Args:
            source: a file, or a table in memory.
            max_row_bytes: a row that is longer as JSON is a reject.
            kind: of a file: "parquet" or "arrow".
            name: how messages and positions call it; by default the path, or "table".

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
        self._share = 0.0  # of the table that is done with

    left_out: Sequence[str] = ()

    @property
    def once(self) -> bool:
        """Whether it is a stream, which is gone when it was read."""
        return read_once(self._source)

    @property
    def bytes_read(self) -> float:
        """Bytes of the file, by the share of its rows that came."""
        return self._share * (self.bytes_total or 0)

    @property
    def rows_total(self) -> int | None:
        """Rows, where the file's end says it.

        Raises:
            InputError: the file is damaged.
        """
        if self._kind != "parquet":
            return None
        with closing(self._opened()) as source:
            return source.rows

    def begin_at(self, line: int, offset: int) -> None:  # noqa: ARG002 - the row's number, which is one more
        """Begin with a row that was met before, so many rows behind the first."""
        self._begin = offset

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or the reject that stands for it; whole row groups before the first are not read.

        Raises:
            InputError: the table cannot be opened, names a column twice, its disk gives an error anywhere in it, or it
                is damaged before the first row. Damage behind that is a reject: it is the same each time it is read.
        """
        number = self._begin
        with closing(self._opened()) as source:
            try:
                make = self._maker(source.schema)
                for first, batch in source.batches(self._begin):
                    if not batch.schema.equals(make.schema):  # an iterable data set finds its types as it goes
                        make = self._maker(batch.schema)
                    for row in make.rows(batch.slice(max(0, number - first))):
                        number += 1
                        self._share = max(self._share, source.share(number))
                        yield self._made(number - 1, row)
            except _damage() as error:
                if number == 0 or (isinstance(error, OSError) and error.errno is not None):
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
    """A table of which batches can be taken."""

    schema: pa.Schema
    rows: int | None
    batches: Callable[[int], Batches]  # those that hold rows from that one on
    share: Callable[[int], float]  # of the table that is read when so many rows are, 0..1
    close: Callable[[], None]


def _damage() -> tuple[type[Exception], ...]:
    """What pyarrow and the owners of tables raise where bytes or values are not what they should be."""
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    return (pa.ArrowException, OSError, ValueError, TypeError)


def _parquet(path: str) -> _Opened:
    """Row groups one by one, so that batches begin at the same rows wherever the reading begins."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - only where tables are read

    # An absolute path is never taken for an address, as s3:rows.parquet would be.
    file = pq.ParquetFile(Path(path).absolute(), buffer_size=_BUFFER, page_checksum_verification=True)
    rows = file.metadata.num_rows
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != rows:
        raise ValueError(f"its row groups have {sum(group.num_rows for group in groups):,} rows, its footer {rows:,}")
    if is_several(path):
        raise ValueError(_SEVERAL)

    def batches(begin: int) -> Batches:
        first = 0
        for number, group in enumerate(groups):
            behind = first + group.num_rows
            if behind > begin:
                parts = file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[number], use_threads=False)
                end = first
                for at, part in _from(begin, first, parts):
                    end = at + part.num_rows
                    yield at, part
                if end != behind:
                    raise ValueError(f"row group {number} ends behind row {end:,}, its footer says {behind:,}")
            first = behind

    return _Opened(file.schema_arrow, rows, batches, lambda done: done / rows, file.close)


def _arrow(path: str) -> _Opened:
    """Arrow's file, which some tools call Feather, or its stream, which ``datasets`` keeps; mapped, not loaded.

    Raises:
        InputError: it is Feather's first version.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    with Path(path).open("rb") as opened:
        magic = opened.read(len(_ARROW_FILE))
    if magic.startswith(_FEATHER_1):
        raise InputError(f"{path}: is Feather version 1, which is not read; write it anew as version 2 or Parquet")
    file = pa.memory_map(path)
    if magic != _ARROW_FILE:
        stream = pa.ipc.open_stream(file)
        size = file.size()
        met = _Met(_to_the_end(stream, file), lambda met: met.rows * size / file.tell())
        return _Opened(stream.schema, None, lambda begin: _from(begin, 0, met), met.share, file.close)
    whole = pa.ipc.open_file(file)
    many = whole.num_record_batches
    _check_file(file, many)
    last = whole.get_batch(many - 1).num_rows if many else 0  # the others are most often of one size
    met = _Met(
        map(whole.get_batch, range(many)),
        lambda met: met.rows if met.batches == many else met.rows / met.batches * (many - 1) + last,
    )
    return _Opened(whole.schema, None, lambda begin: _from(begin, 0, met), met.share, file.close)


def _to_the_end(stream: pa.RecordBatchReader, file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    """The batches of a stream, which pyarrow takes for whole wherever it is cut between two of them.

    Raises:
        ValueError: it lacks the mark that ends it, or something follows it.
    """
    at = file.tell()
    for batch in stream:
        at = file.tell()
        yield batch
    if file.tell() == at:
        raise ValueError("the mark that ends a stream is missing, and with it perhaps rows")
    if more := file.size() - file.tell():
        raise ValueError(f"{more:,} bytes follow the end of the stream; {_APART}")


def _check_file(file: pa.NativeFile, batches: int) -> None:
    """Prove that an Arrow file's footer tells of all that stands before it.

    Raises:
        ValueError: files were put one behind the other: the footer is the last one's, its places are of the first; or
            it counts other batches than there are.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    end = file.size() - len(_ARROW_FILE) - _FOOTER_SIZE
    footer = end - int.from_bytes(file.read_at(_FOOTER_SIZE, end), "little")
    file.seek(_ARROW_BEGIN)
    at, met = _ARROW_BEGIN, 0
    with suppress(pa.ArrowException, EOFError, OSError):  # what is damaged is said where it is read
        for message in pa.ipc.MessageReader.open_stream(file):
            at, met = file.tell(), met + (message.type == "record batch")
        if at < file.tell() < footer:
            raise ValueError(_SEVERAL)
        if at < file.tell() == footer and met != batches:
            raise ValueError(f"it holds {met:,} batches, its footer says {batches:,}")


class _Met:
    """Batches as they come, of a table that does not say how many rows it has.

    Attributes:
        batches: so far.
        rows: in them.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], expected: Callable[[_Met], float]) -> None:
        """Take the batches when they are asked for.

        Args:
            batches: all of the table.
            expected: rows of the table, guessed from those so far.
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
        """Share of the table that so many rows are, 0..1."""
        return min(1.0, rows / self._expected(self)) if self.rows else 0.0


def _in_memory(table: Table) -> _Opened:
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    if isinstance(table, BatchedDataset):  # a stream of its own might be of the rows before some were chosen
        tables = table.with_format("arrow").iter(batch_size=_BATCH_ROWS)
        head = next(tables, None)
        schema = head.schema if head is not None else pa.schema([])
        every = (batch for part in chain([head] if head is not None else [], tables) for batch in part.to_batches())
        return _Opened(schema, None, lambda begin: _from(begin, 0, every), lambda _: 0.0, _nothing)
    stream = pa.RecordBatchReader.from_stream(table)
    return _Opened(stream.schema, None, lambda begin: _from(begin, 0, stream), lambda _: 0.0, _nothing)


def _nothing() -> None:
    """A table in memory is its owner's to close."""


def _from(begin: int, first: int, batches: Iterable[pa.RecordBatch]) -> Batches:
    """Batches, cut to a size, that hold rows from ``begin`` on; ``first`` is the number of the first row of all."""
    for batch in batches:
        for at in range(0, batch.num_rows, _BATCH_ROWS):
            part = batch.slice(at, _BATCH_ROWS)
            if first + at + part.num_rows > begin:
                yield first + at, part
        first += batch.num_rows
