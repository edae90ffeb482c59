"""Scored files to blocks of columns: what describing, comparing, rescoring and selecting have in common."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.bundle import bundle_with, export_command
from instructmining.errors import InputError, RuleError, SelectionError
from instructmining.errors.arguments import check_type
from instructmining.errors.names import no_such
from instructmining.indicators import roles_of
from instructmining.reading.arrow import read_once
from instructmining.reading.compression import is_pipe
from instructmining.reading.file_states import state_of
from instructmining.reading.options import ReadOptions
from instructmining.reading.rows import Source, open_rows
from instructmining.reading.small_files import read_small
from instructmining.reading.values import dumps, loads
from instructmining.rules import Rule
from instructmining.types import COLUMNS, MARGIN, PAIR_COLUMNS, SCORE_COLUMNS, SIDES, Side, SourceRow
from instructmining.writing.run_writer import added_names

BLOCK_ROWS = 256  # the rows' own bytes are what a block costs
BLOCK_BYTES = 64 << 20  # of these bytes; a block ends at the first of the two
LARGEST = 1e100  # of numbers of which many squares are added
_OPTIONS = ReadOptions(max_row_bytes=2**31 - 2)  # what score took and added its columns to is read, whatever its limit
_COLUMNS = frozenset(SCORE_COLUMNS)
_NUMBERS = frozenset({int, float, NoneType})


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """Some rows of a scored file, one after the other."""

    rows: Sequence[SourceRow]
    columns: Mapping[str, NDArray[np.float64]]  # (rows,) by name without prefix, NaN where a value is null


class ScoredRows:
    """Rows that ``score`` has written, read as often as they are asked for; memory holds one block.

    Attributes:
        name: how messages call the source.
        path: of the file; None for a table in memory.
        files: that are read: it and the run file beside it.
        prefix: what ``score`` put before its columns' names.
        columns: names, without prefix, of the columns that ``score`` added to the first row, in its order; none where
            there are no rows.
        fields: names of all fields of the first row.
        names: the same as they are asked for: columns of ``score`` without the prefix.
    """

    def __init__(self, source: Source, *, prefix: str = "") -> None:
        """Look at the first row.

        Args:
            source: a file that ``score`` wrote, or a table or a list of dicts in memory with what it adds.
            prefix: what ``score`` put before its columns' names.

        Raises:
            InputError: the file cannot be read.
            SelectionError: its first line is not a row, or it is a stream, which cannot be read again.
        """
        if read_once(source):
            raise SelectionError("what can be read once cannot be looked at again; give a file, or a table in memory")
        if isinstance(source, str) and is_pipe(source):
            raise InputError("standard input and pipes cannot be read twice; give a file")
        check_type("prefix", prefix, str, wanted="text", error=SelectionError)
        self.path = Path(source) if isinstance(source, (str, Path)) else None
        self.files = (self.path, Path(f"{self.path}.run.json")) if self.path is not None else ()
        self.name = open_rows(source, _OPTIONS).path
        self.prefix = prefix
        self._source = source
        self._state = state_of(self.path)
        self._count: int | None = None  # rows, once all were read
        first = next(self.rows(), None)
        self.fields = tuple(first.fields) if first is not None else ()
        there = [field.removeprefix(prefix) for field in self.fields if field.startswith(prefix)]
        self.columns = tuple(name for name in there if name in _COLUMNS)
        self._added = frozenset(added_names(SCORE_COLUMNS, prefix))
        self._side_fields = frozenset(f"{prefix}{name}" for names in PAIR_COLUMNS.values() for name in names)
        self._plain_fields = [name for name in self.fields if name in {f"{prefix}{name}" for name in COLUMNS}]
        self._is_of_pairs = not self._plain_fields
        self.names = tuple(name.removeprefix(prefix) if name in self._added else name for name in self.fields)

    def rows(self) -> Iterator[SourceRow]:
        """All rows in order, the same each time.

        Raises:
            InputError: the file cannot be read, or was changed since it was first looked at.
            SelectionError: a line is not a row.
        """
        self.check_unchanged()
        count = 0
        for count, row in enumerate(open_rows(self._source, _OPTIONS), 1):
            if not isinstance(row, SourceRow):
                raise SelectionError(f"{self.name}, line {row.line}: {row.reason}; wanted a file that score wrote")
            if self._count is not None and count > self._count:
                raise self._changed()
            yield row if self.path is not None else self._with_notes(row)
        self.check_unchanged()
        if self._count not in {None, count}:
            raise self._changed()
        self._count = count

    def check_unchanged(self) -> None:
        """Prove that the file is still the one that was first looked at.

        Raises:
            InputError: it is another, or it grew.
        """
        if state_of(self.path) != self._state:
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(f"{self.name}: was changed while it was read; run this again when nothing writes the file")

    def _with_notes(self, row: SourceRow) -> SourceRow:
        """A table's row; in some tables the notes are JSON text, for want of a type for them."""
        name = f"{self.prefix}score_notes"
        text = row.fields.get(name)
        if not isinstance(text, str):
            return row
        try:
            fields = {**row.fields, name: loads(text)}
        except orjson.JSONDecodeError:
            return row
        return replace(row, raw=dumps(fields), fields=fields)

    def blocks(self, columns: Sequence[str], *, largest: float = math.inf) -> Iterator[ScoredBlock]:
        """All rows in order, with some of their columns as numbers.

        Args:
            columns: names without prefix.
            largest: number that is taken, whatever its sign.

        Raises:
            InputError: the file cannot be read.
            SelectionError: a line is not a row, has no such column, or something other than such a number in it.
        """
        for taken in self.row_blocks():
            block = ScoredBlock(taken, {column: self._numbers(taken, column) for column in columns})
            for column, values in block.columns.items() if largest < math.inf else ():
                if (too_large := np.abs(values) > largest).any():
                    row = taken[int(too_large.argmax())]
                    raise SelectionError(
                        f"{row.source}, line {row.line}: column {self.field(column)!r} is "
                        f"{values[too_large.argmax()]:g}, wanted a number between -{largest:g} and {largest:g}"
                    )
            yield block

    def row_blocks(self) -> Iterator[list[SourceRow]]:
        """All rows in order, some at a time.

        Raises:
            InputError: the file cannot be read.
            SelectionError: a line is not a row.
        """
        taken: list[SourceRow] = []
        size = 0
        for row in self.rows():
            taken.append(row)
            size += len(row.raw)
            if len(taken) == BLOCK_ROWS or size >= BLOCK_BYTES:
                yield taken
                taken, size = [], 0
        if taken:
            yield taken

    def sides(self, row: SourceRow) -> tuple[Side | None, ...]:
        """The sides that have columns in a row: both of a preference pair, else None alone.

        In a table that holds other rows too, a pair has their columns as nulls.
        """
        fields = row.fields
        of_sides = [name for name in self._side_fields if name in fields]
        if not of_sides:
            return (None,)
        plain = any(fields.get(name) is not None for name in self._plain_fields)
        return (
            SIDES
            if not plain and (self._is_of_pairs or any(fields[name] is not None for name in of_sides))
            else (None,)
        )

    def side_numbers(self, rows: Sequence[SourceRow], sides: Sequence[Side | None], column: str) -> NDArray[np.float64]:
        """A column of each row's side, float64 (rows,), NaN where it is null.

        Raises:
            SelectionError: a row has no such column, or something other than a number in it.
        """
        if not any(sides):
            return self._numbers(rows, column)
        names = [f"{self.prefix}{side}.{column}" if side else f"{self.prefix}{column}" for side in sides]
        return np.array([_number(row, name) for row, name in zip(rows, names, strict=True)], dtype=np.float64)

    def field(self, column: str) -> str:
        """The field that holds a column: with the prefix where it is one of ours, else a field of the row's own."""
        return f"{self.prefix}{column}" if column in _COLUMNS else column

    @property
    def bundle(self) -> Mapping[str, object] | None:
        """The bundle that gave the columns, by the run file beside the file; None where that does not say."""
        if self.path is None:
            return None
        try:
            run = orjson.loads(read_small(f"{self.path}.run.json"))
        except (OSError, orjson.JSONDecodeError):
            return None
        bundle = run.get("bundle") if isinstance(run, dict) else None
        return bundle if isinstance(bundle, dict) else None

    def numbers_or_missing(self, rows: Sequence[SourceRow], column: str) -> NDArray[np.float64]:
        """A column or a field of the rows' own, float64 (rows,), NaN where it is null or missing.

        Raises:
            SelectionError: a row has something other than a number there.
        """
        name = self.field(column)
        return np.array([_number(row, name) if name in row.fields else math.nan for row in rows], dtype=np.float64)

    def own_fields(self, row: SourceRow) -> dict[str, object]:
        """The row's fields without those that ``score`` added."""
        added = self._added
        return {name: value for name, value in row.fields.items() if name not in added}

    def check_terms(self, rule: Rule, *, bundles: Sequence[str | Path] = ()) -> None:
        """Prove that the rows have what a rule reads; rows that are not there lack nothing.

        Args:
            rule: its terms are looked for in the first row.
            bundles: folders that may give what is missing, behind the one that the run file names.

        Raises:
            RuleError: a term has no column; the message says how to compute it.
        """
        missing = [
            term
            for term in rule.terms
            if self.field(term) not in self.fields
            and not all(f"{self.prefix}{side}.{term}" in self.fields for side in SIDES)
        ]
        if not self.fields or not missing:
            return
        for term in missing:
            if term not in _COLUMNS:
                raise RuleError(f"{self.name}: rule {rule.id!r}: {no_such('column', term, self.names)}")
        there = ", ".join(self.columns) or "none (were they written with another --prefix?)"
        raise RuleError(
            f"{self.name}: rule {rule.id!r} needs {', '.join(missing)}; columns there: {there}. "
            f"{self._how_to_compute(missing, bundles)}"
        )

    def _how_to_compute(self, columns: Sequence[str], bundles: Sequence[str | Path]) -> str:
        command = f"instructmining score INPUT -o OUT --indicators {','.join(columns)}"
        roles = frozenset().union(*map(roles_of, columns))
        if not roles:
            return f"Compute what is missing: {command}"
        named = [str(self.bundle["path"])] if self.bundle is not None and "path" in self.bundle else []
        found = bundle_with(roles, [*named, *bundles])
        if found is not None:
            return f"Compute what is missing: {command} --bundle {found}"
        return (
            f"No bundle here has the role{'s' * (len(roles) > 1)} {', '.join(sorted(roles))} for it; export one: "
            f"{export_command(roles, 'BUNDLE')}; then compute what is missing: {command} --bundle BUNDLE"
        )

    def _numbers(self, rows: Sequence[SourceRow], column: str) -> NDArray[np.float64]:
        name = self.field(column)
        try:
            values = [row.fields[name] for row in rows]
        except KeyError:
            values = []
        if values and set(map(type, values)) <= _NUMBERS:
            return np.array(values, dtype=np.float64)  # of None it makes NaN
        return np.array([_number(row, name) for row in rows], dtype=np.float64)


def no_column(name: str, there: Collection[str]) -> str:
    """What is said of a column that is not there, with what the rows of pairs have in its place."""
    of_pairs = [f"{part}.{name}" for part in (*SIDES, MARGIN)]
    if all(other in there for other in of_pairs):
        return f"no column {name!r}: the rows are preference pairs; name {', '.join(of_pairs[:-1])} or {of_pairs[-1]}"
    return no_such("column", name, there)


def _number(row: SourceRow, name: str) -> float:
    if name not in row.fields:
        raise SelectionError(f"{row.source}, line {row.line}: {no_column(name, row.fields)}")
    value = row.fields[name]
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SelectionError(f"{row.source}, line {row.line}: column {name!r} is {str(value)[:60]!r}, wanted a number")
    return float(value)
