"""Reads examples from one or more files: formats, positions, counts."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TypeAlias, TypeVar

from instructmining.errors import InputError, RowError
from instructmining.errors.names import no_such
from instructmining.reading.blocks import Block, Blocks, Cut, windows_within
from instructmining.reading.formats import FieldOptions, FieldRole, FormatName
from instructmining.reading.parsers import Parsers
from instructmining.reading.parsing import RowParser
from instructmining.reading.progress import Progress
from instructmining.reading.rows import RowReader, first_of
from instructmining.reading.scores import ScoreFields, lacking
from instructmining.types import (
    EarlierScores,
    Example,
    InputWindow,
    Position,
    Reject,
    RowOrReject,
    SourceRow,
)

OF_DOCUMENT = " of the document"  # after the name of a member of a document outside of its rows
DETECTION_ROWS = 20  # a format is detected in the first rows of a file, or the file is refused
log = logging.getLogger(__name__)
Read = TypeVar("Read")
_Read: TypeAlias = tuple[RowOrReject, int, float]  # a row, and the blank lines and bytes up to it


class ExampleReader:
    """Examples of one or more files, in order; counts what was read.

    Attributes:
        rows: rows so far, with bad ones, without blank lines.
        rejected: bad rows among them.
        blank: blank lines skipped so far.
        lines: of the last file of a part, where the lines of its rows count from a cut; else None.
        ignored_in_vain: warnings about ignored fields that no row looked at has.
    """

    def __init__(
        self,
        readers: Sequence[RowReader],
        fields: FieldOptions,
        scores: ScoreFields,
        blocks: Blocks,
        *,
        limit: int | None,
        taken: frozenset[str],
        on_reject: Callable[[Reject], None],
    ) -> None:
        """Use :func:`read_examples`."""
        self.rows = 0
        self.rejected = 0
        self.blank = 0
        self.lines: int | None = None
        self.ignored_in_vain: list[str] = []
        self._readers = readers
        self._begun: dict[int, Iterator[RowOrReject]] = {}  # readers that can be read once and were looked into
        self._begin: Position | None = None
        self._blocks = blocks
        self._block: Block | None = None  # of the last row
        self._passed = 0  # blank lines of the current file that another part counts
        self._at = (0, 0, 0, 0)  # file, line and offset of the last row, and the blank lines before it
        self._progress = Progress(readers)
        self._fields = fields
        self._scores = scores
        self._parsers = Parsers(fields, scores, taken)
        self._kept: frozenset[str] = frozenset()
        self._parser: RowParser | None = None  # parser of the file being read
        self._limit = limit
        self._detection_rows = DETECTION_ROWS if limit is None else min(DETECTION_ROWS, limit)
        self._taken = taken
        self._on_reject = on_reject

    @property
    def formats(self) -> Mapping[str, FormatName]:
        """Format of each file, detected or given."""
        return self._parsers.formats

    @property
    def unread(self) -> Mapping[str, Mapping[str, int]]:
        """Per file, the fields that hold text and are not read, with their number of rows."""
        return self._parsers.unread

    @property
    def share_read(self) -> float | None:
        """Share of the files' bytes up to the end of the last row counted, 0..1; None where unknown.

        Safe to read from any thread.
        """
        return self._progress.share

    @property
    def rows_expected(self) -> float | None:
        """Estimated rows of all files, from the rows counted and their share; None where unknown."""
        return self._progress.rows_expected

    @property
    def taken(self) -> Mapping[tuple[FieldRole, str], int]:
        """Roles and their fields in the last file, with the number of rows that have them."""
        return self._parser.taken if self._parser is not None else {}

    @property
    def templated(self) -> Mapping[str, int]:
        """Template marks in texts read as one response, in the last file, with the number of rows."""
        return self._parser.templated if self._parser is not None else {}

    def look(self) -> frozenset[str]:
        """Read the first rows of every source, and check that each source can be read.

        Returns:
            The columns that the rows of every source already have scores for; a source without rows does not count.

        Raises:
            InputError: a source cannot be opened, its rows are in no known format, lack a field that was named or have
                one that a column would hide; or only some sources hold preference pairs, whose columns differ.
        """
        earlier: frozenset[str] | None = None
        pairs: dict[bool, str] = {}
        names: set[str] = set()
        for file, reader in enumerate(self._readers):
            first = self._first_rows(file, reader)
            if not first:
                continue
            names.update(*(row.fields for row in first))
            pairs[self._parsers.shape_of(reader, first).is_of_pairs] = reader.path
            found = self._scores.columns_of(first[0].fields)
            earlier = found if earlier is None else earlier & found
        if len(pairs) > 1:
            raise InputError(
                f"{pairs[True]} holds preference pairs and {pairs[False]} does not: their columns differ; score them "
                "separately"
            )
        self.ignored_in_vain = [
            no_such("field", name, sorted(names))
            for name in sorted(self._fields.ignore)
            if names and name not in names and "[]" not in name and not name.endswith(OF_DOCUMENT)
        ]
        return earlier or frozenset()

    def keep(self, columns: Iterable[str]) -> None:
        """Reject rows that lack one of these columns, which an earlier run computed and this one will not."""
        self._kept = frozenset(columns)

    def restrict(self, begin: Cut | None, end: Cut | None) -> None:
        """Read only the rows between two cuts, None for the beginning and the end of the input.

        A file's format is detected in its own first rows all the same.

        Raises:
            InputError: a source can be read only once.
        """
        if once := next((reader.path for reader in self._readers if reader.once), None):
            raise InputError(f"{once}: can be read only once, so it cannot be read in parts; give files")
        self._blocks.restrict(begin, end)
        self._progress.restrict(begin, end)

    def begin_after(self, position: Position) -> None:
        """Resume after a position that an earlier reader of the same files gave.

        Raises:
            InputError: the position is in standard input.
        """
        self.rows, self.rejected, self.blank = position.rows, position.rejected, position.blank
        self._parsers.resume(position)
        self._begin = position
        self._begin_reader(self._readers[position.file])

    def _begin_reader(self, reader: RowReader) -> None:
        """Let the reader of the file in which the run resumes start there, unless its rows need those before."""
        assert self._begin is not None
        if (parser := self._parsers.known(reader)) is None or not parser.looks_back:
            reader.begin_at(self._begin.line, self._begin.offset)

    def __iter__(self) -> Iterator[Example]:
        """Yield the examples; bad rows go to ``on_reject``.

        Raises:
            InputError: a file cannot be opened, is in no known format, or has a field that a column would hide.
        """
        for item in self._items():
            if isinstance(item, Example):
                yield item
            elif item is not None:
                self._on_reject(item)

    def windows(self, rows: int) -> Iterator[InputWindow]:
        """Yield windows of so many rows, good and bad in order, each with the position of its last row.

        A window ends where a block does, see :mod:`~instructmining.reading.blocks`.

        Raises:
            InputError: as for :meth:`__iter__`.
        """
        for taken in windows_within(self._items(), rows):
            file, line, offset, blank = self._at
            unread = {path: dict(counts) for path, counts in self.unread.items() if counts}
            counts = (self.rows, self.rejected, blank)
            yield InputWindow(taken, Position(file, line, offset, *counts, dict(self.formats), unread))

    def _items(self) -> Iterator[Example | Reject | None]:
        """Yield the rows of the part, and None before the first row of a block."""
        for file in self._blocks.files:
            if self._limit is not None and self.rows >= self._limit:
                return
            if self._begin is None or file >= self._begin.file:
                yield from self._of_file(file, self._readers[file])

    def _of_file(self, file: int, reader: RowReader) -> Iterator[Example | Reject | None]:
        blank_before = self.blank
        begin, end = self._blocks.bounds(file)
        is_cut, is_resumed = bool(begin) or end is not None, self._begin is not None and file == self._begin.file
        if is_cut:
            self._parser = self._parser_at(begin, reader)
            reader.cut(begin, end)
            if is_resumed:
                self._begin_reader(reader)
        source = self._begun.pop(file, None) or reader
        rows = ((row, reader.blank, reader.bytes_read) for row in source)
        first: deque[_Read] = deque()
        self._passed = 0
        if self._begin is not None and is_resumed:
            if not is_cut:
                self._parser = self._parsers.known(reader)
            self._skip((row for row, _, _ in rows), self._begin)
            if self._parser is not None and self._parser.looks_back:  # blank lines before are counted again
                blank_before -= reader.blank
            self._progress.note(self.rows, file, reader.bytes_read)
        elif not is_cut:
            first = first_of(rows, self._detection_rows, lambda read: read[0].raw)
            self._parser = self._parsers.detected_in([row for row, _, _ in first], reader)
        for row, blank, bytes_read in self._of_part(file, chain(_released(first), rows)):
            if (block := self._blocks.of(file, row.offset)) != self._block:
                self._block = block
                yield None
            self.rows += 1
            self.blank = blank_before + blank - self._passed
            self._progress.note(self.rows, file, bytes_read)
            self._at = (file, row.line, row.offset, self.blank)
            item = self._item(row, reader)
            if reader.left_out:
                self._name_left_out(reader)
            if isinstance(item, Reject):
                self.rejected += 1
            yield item
            if self.rows == self._limit:
                return
        self.blank = blank_before + reader.blank - self._passed
        self.lines = reader.lines if is_cut else None
        self._name_left_out(reader)
        if self._fields.unread == "warn" and self._parser is not None and self._parser.unread:
            named = ", ".join(f"{name} ({rows:,})" for name, rows in self._parser.unread.items())
            log.warning("%s: text that is not read, in rows: %s", reader.path, named)
        self._progress.note(self.rows, file, reader.bytes_total or 0)

    def _of_part(self, file: int, rows: Iterator[_Read]) -> Iterator[_Read]:
        """Yield the rows of a file that are in the part; blank lines before the first are the part before's."""
        begin, end = self._blocks.bounds(file)
        is_before = False
        for row, blank, bytes_read in rows:
            if row.offset < begin:
                is_before = True
                continue
            if is_before:
                is_before, self._passed = False, blank
            if end is not None and row.offset >= end:
                return
            yield row, blank, bytes_read
        if is_before:
            self._passed = self._readers[file].blank

    def _parser_at(self, begin: int, reader: RowReader) -> RowParser | None:
        """The parser of a file as the rows before an offset leave it; None where none of them is good."""
        rows = iter(reader)
        first = first_of(rows, self._detection_rows, raw_of)
        parser = self._parsers.detected_in(first, reader)
        for row in chain(_released(first), rows):
            if row.offset >= begin or (parser is not None and not parser.looks_back):
                break
            if isinstance(row, SourceRow):
                if parser is None:
                    with suppress(InputError):
                        parser = self._parsers.detected(reader, [row])
                if parser is not None:
                    with suppress(RowError):
                        parser.pass_over(self._own(row)[0])
        return parser

    def _name_left_out(self, reader: RowReader) -> None:
        """Count the members of a document outside of its rows as not read, once.

        Raises:
            InputError: ``unread`` is "error".
        """
        if self._parser is not None:
            for name in reader.left_out:
                self._parser.leave_out(f"{name}{OF_DOCUMENT}", reader.path)

    def _skip(self, rows: Iterator[RowOrReject], position: Position) -> None:
        """Skip the rows up to a position: one, or all where rows are read with those before them."""
        for row in rows:
            if self._parser is not None and isinstance(row, SourceRow):
                with suppress(RowError):
                    self._parser.pass_over(self._own(row)[0])
            if (row.line, row.offset) == (position.line, position.offset):
                return

    def _first_rows(self, file: int, reader: RowReader) -> list[SourceRow]:
        rows = iter(reader)
        first = first_of(rows, self._detection_rows, raw_of)
        good = [row for row in first if isinstance(row, SourceRow)]
        if reader.once:
            self._begun[file] = chain(_released(first), rows)
        return good

    def _item(self, row: RowOrReject, reader: RowReader) -> Example | Reject:
        if isinstance(row, Reject):
            return row
        if self._parser is None:
            try:
                self._parser = self._parsers.detected(reader, [row])
            except InputError as error:
                return Reject(row.source, row.line, row.offset, str(error), row.raw)
        try:
            return self._example(row, self._parser)
        except RowError as error:
            return Reject(row.source, row.line, row.offset, str(error), row.raw)

    def _example(self, row: SourceRow, parser: RowParser) -> Example:
        """Make an example from a row, with its earlier scores.

        Raises:
            RowError: the row holds none, has a field that is also a column, or lacks a column.
        """
        own, scores = self._own(row)
        example = parser.example(own)
        if scores is not None:
            example = replace(example, scores=scores)
        if self._kept and (missing := lacking(example, self._kept)):
            raise RowError(
                f"the row was not scored with {', '.join(missing)}, as the first rows were; --recompute computes all "
                "columns again"
            )
        return example

    def _own(self, row: SourceRow) -> tuple[SourceRow, EarlierScores | None]:
        """Split a row into the row without its earlier scores, and the scores.

        Raises:
            RowError: a field is also a column.
        """
        own, scores = self._scores.taken_off(row) if self._scores.are_in(row.fields) else (row, None)
        if not self._taken.isdisjoint(own.fields):
            hidden = self._taken & own.fields.keys()
            raise RowError(f"field {min(hidden)!r} is also a column of score; --prefix renames the columns")
        return own, scores


def raw_of(row: RowOrReject) -> bytes:
    """The row's own bytes."""
    return row.raw


def _released(items: deque[Read]) -> Iterator[Read]:
    """Yield the items and hold no reference to those already yielded."""
    while items:
        yield items.popleft()
