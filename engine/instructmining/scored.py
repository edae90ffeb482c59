"""Scored files to blocks of columns: what describing, comparing, rescoring and selecting have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import SelectionError
from instructmining.readers import Source, open_rows
from instructmining.records import COLUMNS, SourceRow
from instructmining.tabular import IN_MEMORY, is_table, read_once

BLOCK_ROWS = 4096  # the rows' own bytes are what a block costs


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """Some rows of a scored file, one after the other."""

    rows: Sequence[SourceRow]
    columns: Mapping[str, NDArray[np.float64]]  # (rows,) by name without prefix, NaN where a value is null


class ScoredRows:
    """Rows that ``score`` has written, read as often as they are asked for; memory holds one block.

    Attributes:
        name: how messages call the source.
        columns: names, without prefix, of the columns that ``score`` added to the first row, in its order; none where
            there are no rows.
    """

    def __init__(self, source: Source, *, prefix: str = "") -> None:
        """Look at the first row.

        Args:
            source: a file that ``score`` wrote, or a table in memory with what it adds.
            prefix: what ``score`` put before its columns' names.

        Raises:
            InputError: the file cannot be read.
            SelectionError: its first line is not a row, or it is a stream, which cannot be read again.
        """
        if read_once(source):
            raise SelectionError("a stream of record batches can be read once; give a table, as its read_all() does")
        self.name = IN_MEMORY if is_table(source) else str(source)
        self._source = source
        self._prefix = prefix
        first = next(self.rows(), None)
        there = first.fields if first is not None else {}
        self.columns = tuple(column for column in COLUMNS if f"{prefix}{column}" in there)

    def rows(self) -> Iterator[SourceRow]:
        """All rows in order.

        Raises:
            InputError: the file cannot be read.
            SelectionError: a line is not a row.
        """
        for row in open_rows(self._source):
            if not isinstance(row, SourceRow):
                raise SelectionError(f"{self.name}, line {row.line}: {row.reason}; wanted a file that score wrote")
            yield row

    def blocks(self, columns: Sequence[str]) -> Iterator[ScoredBlock]:
        """All rows in order, with some of their columns as numbers.

        Args:
            columns: names without prefix.

        Raises:
            InputError: the file cannot be read.
            SelectionError: a line is not a row, has no such column, or something other than a number in it.
        """
        rows = self.rows()
        while taken := list(islice(rows, BLOCK_ROWS)):
            yield ScoredBlock(taken, {column: self._numbers(taken, column) for column in columns})

    @property
    def prefix(self) -> str:
        """What ``score`` put before its columns' names."""
        return self._prefix

    def field(self, column: str) -> str:
        """The field that holds a column: with the prefix where it is one of ours, else a field of the row's own."""
        return f"{self._prefix}{column}" if column in COLUMNS else column

    def numbers_or_missing(self, rows: Sequence[SourceRow], column: str) -> NDArray[np.float64]:
        """A column or a field of the rows' own, float64 (rows,), NaN where it is null or missing.

        Raises:
            SelectionError: a row has something other than a number there.
        """
        name = self.field(column)
        return np.array([_number(row, name) if name in row.fields else math.nan for row in rows], dtype=np.float64)

    def _numbers(self, rows: Sequence[SourceRow], column: str) -> NDArray[np.float64]:
        name = f"{self._prefix}{column}"
        return np.array([_number(row, name) for row in rows], dtype=np.float64)


def _number(row: SourceRow, name: str) -> float:
    if name not in row.fields:
        raise SelectionError(
            f"{row.source}, line {row.line}: no column {name!r}; columns: {', '.join(list(row.fields)[-14:])}"
        )
    value = row.fields[name]
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SelectionError(f"{row.source}, line {row.line}: column {name!r} is {value!r}, wanted a number")
    return float(value)
