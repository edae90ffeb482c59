"""Makes the parser of each file of an input: detects the format in the file's first rows, or knows it from before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from instructmining.errors import InputError
from instructmining.reading.formats import FieldOptions, FormatName, Shape
from instructmining.reading.parsing import RowParser
from instructmining.reading.partitioned_rows import partition_of
from instructmining.reading.rows import RowReader
from instructmining.reading.scores import ScoreFields
from instructmining.types import Position, RowOrReject, SourceRow


class Parsers:
    """The parsers of an input's files.

    Attributes:
        formats: format of each file, detected or given.
        unread: per file, the fields that hold text and are not read, with their number of rows.
    """

    def __init__(self, fields: FieldOptions, scores: ScoreFields, taken: frozenset[str]) -> None:
        """Know no file yet.

        Args:
            fields: how the fields of rows are read.
            scores: the fields that an earlier run added.
            taken: names of columns that will be added; a row must not have them already.
        """
        self.formats: dict[str, FormatName] = {}
        self.unread: dict[str, Mapping[str, int]] = {}
        self._fields = fields
        self._scores = scores
        self._taken = taken

    def resume(self, position: Position) -> None:
        """Know the files up to a position that an earlier reader gave."""
        self.formats = {path: self._fields.shape_named(name).name for path, name in position.formats.items()}
        self.unread = dict(position.unread)

    def known(self, reader: RowReader) -> RowParser | None:
        """Return the parser of a file; None where its format is not known yet."""
        return self._of(reader) if reader.path in self.formats else None

    def detected_in(self, first: Iterable[RowOrReject], reader: RowReader) -> RowParser | None:
        """Return the parser of a file with these first rows; None where none of them is good."""
        good = [row for row in first if isinstance(row, SourceRow)]
        return self.detected(reader, good) if good else None

    def detected(self, reader: RowReader, good: Sequence[SourceRow]) -> RowParser:
        """Return the parser of a file with these first good rows.

        Raises:
            InputError: the rows are in no known format, or have a field that a column would hide.
        """
        self.formats[reader.path] = self.shape_of(reader, good).name
        return self._of(reader)

    def shape_of(self, reader: RowReader, good: Sequence[SourceRow]) -> Shape:
        """Return the shape of a file with these first good rows.

        Raises:
            InputError: as for :meth:`detected`.
        """
        own = []
        for row in good:
            fields = row.fields
            if self._scores.are_in(fields):
                fields = {name: value for name, value in fields.items() if name not in self._scores.names}
            elif hidden := self._taken & fields.keys():
                raise InputError(
                    f"{row.source}, line {row.line}: the row has a field {min(hidden)!r}, which is also a column "
                    "of score; give --prefix to rename the columns"
                )
            own.append(replace(row, fields=fields))
        return self._fields_of(reader).shape_of(own)

    def _of(self, reader: RowReader) -> RowParser:
        parser = RowParser(self._fields.shape_named(self.formats[reader.path]), self._fields_of(reader))
        parser.unread.update(self.unread.get(reader.path, {}))
        self.unread[reader.path] = parser.unread
        return parser

    def _fields_of(self, reader: RowReader) -> FieldOptions:
        """Return the options of a file: a column of its folders has a role only if it was named for one."""
        columns = partition_of(reader).keys() - set(self._fields.map.values())
        return replace(self._fields, ignore=self._fields.ignore | columns) if columns else self._fields
