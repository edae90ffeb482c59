"""Adds the columns of a file's folders to its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from instructmining.errors import InputError
from instructmining.errors.arguments import shown
from instructmining.reading.partitions import Columns
from instructmining.reading.values import dumps
from instructmining.types import Reject, RowOrReject, SourceRow

if TYPE_CHECKING:
    from instructmining.reading.rows import RowReader


class PartitionedRows:
    """The rows of a file with the columns of its folders after their own fields.

    A field that the row has itself stays as it is, if it says the same.

    Attributes:
        path: name of the file in messages.
        bytes_total: size of the file.
        columns: of the folders.
    """

    def __init__(self, rows: RowReader, columns: Columns) -> None:
        """Wrap a reader.

        Args:
            rows: of the file.
            columns: of its folders.
        """
        self.path = rows.path
        self.bytes_total = rows.bytes_total
        self.columns = columns
        self._rows = rows
        self._is_begun = False  # whether rows are left out before the first one
        self._names = frozenset(columns)
        self._added = dumps(columns)[1:]  # their JSON without the first bracket

    @property
    def blank(self) -> int:
        """Blank lines skipped so far."""
        return self._rows.blank

    @property
    def left_out(self) -> Sequence[str]:
        """Names of members of a document outside of its rows, so far."""
        return self._rows.left_out

    @property
    def once(self) -> bool:
        """Whether the rows can be read only once."""
        return self._rows.once

    @property
    def of_rows(self) -> bool:
        """Whether the offset of a row counts rows, not bytes."""
        return self._rows.of_rows

    @property
    def lines(self) -> int | None:
        """Lines read, where these count from a cut."""
        return self._rows.lines

    @property
    def rows_total(self) -> int | None:
        """Number of rows; None where it is only known after reading."""
        return self._rows.rows_total

    @property
    def bytes_read(self) -> float:
        """Bytes of the file up to the end of the last row."""
        return self._rows.bytes_read

    def units_total(self, *, scan: bool) -> int | None:
        """Return what offsets count of the file."""
        return self._rows.units_total(scan=scan)

    def begin_at(self, line: int, offset: int) -> None:
        """Start at a row met before."""
        self._is_begun = True
        self._rows.begin_at(line, offset)

    def cut(self, begin: int, end: int | None) -> None:
        """Leave out rows that are cheap to leave out."""
        self._is_begun = begin > 0
        self._rows.cut(begin, end)

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or a reject in its place.

        Raises:
            InputError: the first row of the file has a field of a column's name with another value; a later such row
                is a reject.
        """
        is_first = not self._is_begun
        for row in self._rows:
            if isinstance(row, Reject):
                yield row
                continue
            if self._names.isdisjoint(row.fields):
                is_first = False
                yield _with(row, self._added, self.columns)
                continue
            if problem := self._problem(row.fields):
                if is_first:
                    raise InputError(
                        f"{row.source}, line {row.line}: {problem}; rename the folder or the field, or give the file "
                        "itself, which leaves the folder's column out"
                    )
                yield Reject(row.source, row.line, row.offset, problem, row.raw)
                continue
            is_first = False
            columns = {name: value for name, value in self.columns.items() if name not in row.fields}
            yield _with(row, dumps(columns)[1:], columns) if columns else row

    def _problem(self, fields: Mapping[str, object]) -> str | None:
        for name, value in self.columns.items():
            if name in fields and not _says(fields[name], value):
                return f"field {name!r} is {shown(fields[name])}, the folder of the file says {shown(value)}"
        return None


def _with(row: SourceRow, added: bytes, columns: Columns) -> SourceRow:
    """Return a row with columns after its own fields; ``added`` is their JSON without the first bracket."""
    own = row.raw[:-1] if row.raw.endswith(b"}") else row.raw.rstrip()[:-1]
    raw = b",".join((own, added)) if row.fields else b"{" + added
    return SourceRow(row.source, row.line, row.offset, raw, {**row.fields, **columns})


def partition_of(reader: RowReader) -> Columns:
    """Return the columns that the folders of a reader's file give."""
    return reader.columns if isinstance(reader, PartitionedRows) else {}


def _says(value: object, text: str | None) -> bool:
    """Return whether a row's own value is the one that a folder says, whatever its type."""
    if value is None or text is None:
        return value is text
    if isinstance(value, bool):
        return str(value).lower() == text.lower()
    try:
        if isinstance(value, (int, float)):
            return str(value) == text or type(value)(text) == value
        return value == text or (isinstance(value, str) and _moment(value) == _moment(text))
    except ValueError:
        return False


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
