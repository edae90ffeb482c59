"""Reads scored files as blocks of rows and columns, for all commands that work on them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import NoneType

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.bundle import bundle_with, export_command
from instructmining.errors import InputError, RuleError, SelectionError
from instructmining.errors.arguments import check_type
from instructmining.errors.names import few, no_such
from instructmining.indicators import roles_of
from instructmining.reading.arrow import read_once
from instructmining.reading.compression import is_pipe
from instructmining.reading.digests import input_digest
from instructmining.reading.file_kinds import kind_by_name
from instructmining.reading.file_states import state_of
from instructmining.reading.options import ReadOptions
from instructmining.reading.rows import Source, open_rows
from instructmining.reading.small_files import read_small
from instructmining.reading.values import dumps, loads
from instructmining.rules import Rule
from instructmining.stores.addresses import plain
from instructmining.types import COLUMNS, MARGIN, PAIR_COLUMNS, PREDICTION, SCORE_COLUMNS, SIDES, Side, SourceRow
from instructmining.writing.run_writer import added_names

BLOCK_ROWS = 256  # most rows of a block
BLOCK_BYTES = 64 << 20  # a block ends when its rows reach this size
LARGEST = 1e100  # largest number whose squares can still be summed
_OPTIONS = ReadOptions(max_row_bytes=2**31 - 2)  # a row may have grown beyond the limit of score by its columns
_COLUMNS = frozenset(SCORE_COLUMNS)
_NUMBERS = frozenset({int, float, NoneType})


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """Consecutive rows of a scored file."""

    rows: Sequence[SourceRow]
    columns: Mapping[str, NDArray[np.float64]]  # name without prefix → (rows,), NaN where a value is null


class ScoredRows:
    """Rows that ``score`` wrote; can be read several times, and memory holds one block.

    Attributes:
        name: name of the source in messages.
        path: path or address of the file; None for a table in memory.
        files: files that are read: the file and its run file.
        prefix: prefix of the columns of ``score``.
        is_delimited: whether the file is delimited text, which has empty text for null.
        columns: names, without prefix, of the columns of ``score`` in the first row, in order; empty without rows.
        fields: names of all fields of the first row.
        names: the same, columns of ``score`` without the prefix.
    """

    def __init__(self, source: Source, *, prefix: str = "") -> None:
        """Read the first row.

        Args:
            source: a file that ``score`` wrote, or scored rows in memory as a table or a list of dicts.
            prefix: prefix of the columns of ``score``.

        Raises:
            InputError: the file cannot be read, or only once, as a pipe.
            SelectionError: the first line is not a row, or the source is a stream, which can be read only once.
        """
        if read_once(source):
            raise SelectionError("a stream or an iterator can be read only once; give a file, or a table in memory")
        if isinstance(source, str) and is_pipe(source):
            raise InputError("standard input and pipes cannot be read twice; give a file")
        check_type("prefix", prefix, str, wanted="text", error=SelectionError)
        self.path = plain(str(source)) if isinstance(source, (str, Path)) else None
        self._source = source if self.path is None else self.path
        self.files = (self.path, f"{self.path}.run.json") if self.path is not None else ()
        self.name = open_rows(self._source, _OPTIONS).path
        self.prefix = prefix
        self._state = state_of(self.path)
        self._count: int | None = None  # number of rows, once all were read
        self._added = frozenset(added_names(SCORE_COLUMNS, prefix))
        self.is_delimited = self.path is not None and kind_by_name(self.path).kind == "delimited"
        first = next(self.rows(), None)
        self.fields = tuple(first.fields) if first is not None else ()
        there = [field.removeprefix(prefix) for field in self.fields if field.startswith(prefix)]
        self.columns = tuple(name for name in there if name in _COLUMNS)
        self._side_fields = frozenset(f"{prefix}{name}" for names in PAIR_COLUMNS.values() for name in names)
        self._plain_fields = [name for name in self.fields if name in {f"{prefix}{name}" for name in COLUMNS}]
        self._is_of_pairs = not self._plain_fields
        self.names = tuple(name.removeprefix(prefix) if name in self._added else name for name in self.fields)

    def rows(self) -> Iterator[SourceRow]:
        """Yield all rows in order, the same ones each time.

        Raises:
            InputError: the file cannot be read, or changed since it was opened.
            SelectionError: a line is not a row.
        """
        self.check_unchanged()
        count = 0
        for count, row in enumerate(open_rows(self._source, _OPTIONS), 1):
            if not isinstance(row, SourceRow):
                raise SelectionError(f"{self.name}, line {row.line}: {row.reason}; wanted a file that score wrote")
            if self._count is not None and count > self._count:
                raise self._changed()
            if self.path is None:
                yield self._with_notes(row)
            else:
                yield self._with_types(row) if self.is_delimited else row
        self.check_unchanged()
        if self._count not in {None, count}:
            raise self._changed()
        self._count = count

    def check_unchanged(self) -> None:
        """Check that the file did not change since it was opened.

        Raises:
            InputError: it changed.
        """
        if state_of(self.path) != self._state:
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(f"{self.name}: was changed while it was read; run this again when nothing writes the file")

    def _with_notes(self, row: SourceRow) -> SourceRow:
        """Return the row of a table with its notes parsed; tables that have no type for them hold JSON text."""
        name = f"{self.prefix}score_notes"
        text = row.fields.get(name)
        if not isinstance(text, str):
            return row
        try:
            fields = {**row.fields, name: loads(text)}
        except orjson.JSONDecodeError:
            return row
        return replace(row, raw=dumps(fields), fields=fields)

    def _with_types(self, row: SourceRow) -> SourceRow:
        """Return a row of delimited text with what ``score`` added in its types; its own fields stay text."""
        fields = {name: _typed(value) if name in self._added else value for name, value in row.fields.items()}
        return replace(row, raw=dumps(fields), fields=fields)

    def blocks(self, columns: Sequence[str], *, largest: float = math.inf) -> Iterator[ScoredBlock]:
        """Yield all rows in order, with some columns as numbers.

        Args:
            columns: names without prefix.
            largest: largest absolute value allowed.

        Raises:
            InputError: the file cannot be read.
            SelectionError: a line is not a row, lacks a column, or holds no such number in it.
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
        """Yield all rows in order, in lists.

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
        """Return the sides that have columns in a row: both of a preference pair, else only None.

        In a table with other rows too, the plain columns of a pair are null.
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
        """Return a column of one side of each row, float64 (rows,), NaN where it is null.

        Raises:
            SelectionError: a row lacks the column, or holds no number in it.
        """
        if not any(sides):
            return self._numbers(rows, column)
        names = [f"{self.prefix}{side}.{column}" if side else f"{self.prefix}{column}" for side in sides]
        return np.array([self._number(row, name) for row, name in zip(rows, names, strict=True)], dtype=np.float64)

    def field(self, column: str) -> str:
        """Return the field that holds a column: with the prefix for a column of ``score``, else the name itself."""
        return f"{self.prefix}{column}" if column in _COLUMNS else column

    @cached_property
    def digest(self) -> dict[str, object] | None:
        """What identifies the file, which is read for it once; None for a table in memory.

        Raises:
            InputError: the file cannot be read.
        """
        return None if self.path is None else input_digest(self.path)

    @property
    def run(self) -> Mapping[str, object]:
        """The content of the run file; empty where there is none, or it is damaged."""
        if self.path is None:
            return {}
        try:
            run = orjson.loads(read_small(f"{self.path}.run.json"))
        except (OSError, orjson.JSONDecodeError):
            return {}
        return run if isinstance(run, dict) else {}

    @property
    def bundle(self) -> Mapping[str, object] | None:
        """The bundle that computed the columns, as the run file names it; None where it does not."""
        bundle = self.run.get("bundle")
        return bundle if isinstance(bundle, dict) else None

    def numbers_or_missing(self, rows: Sequence[SourceRow], column: str) -> NDArray[np.float64]:
        """Return a column, or another field, float64 (rows,), NaN where it is null or missing.

        Raises:
            SelectionError: a row holds no number in it.
        """
        name = self.field(column)
        found = [self._number(row, name) if name in row.fields else math.nan for row in rows]
        return np.array(found, dtype=np.float64)

    def own_fields(self, row: SourceRow) -> dict[str, object]:
        """Return the row's fields without those that ``score`` added."""
        added = self._added
        return {name: value for name, value in row.fields.items() if name not in added}

    def check_terms(self, rule: Rule, *, bundles: Sequence[str | Path] = ()) -> None:
        """Check that the first row has the terms of a rule; a file without rows passes.

        Args:
            rule: the rule.
            bundles: folders of bundles that may compute what is missing, tried after the one that the run file names.

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
            return np.array(values, dtype=np.float64)  # None becomes NaN
        return np.array([self._number(row, name) for row in rows], dtype=np.float64)

    def _number(self, row: SourceRow, name: str) -> float:
        """Return a field as a number, NaN where it is null; in delimited text numbers are text.

        Raises:
            SelectionError: the row lacks the field, or holds no number in it.
        """
        if name not in row.fields:
            raise SelectionError(f"{row.source}, line {row.line}: {no_column(name, row.fields)}")
        given = row.fields[name]
        value = _typed(given) if self.is_delimited else given
        if value is None:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SelectionError(
                f"{row.source}, line {row.line}: column {name!r} is {str(given)[:60]!r}, wanted a number"
            )
        return float(value)


def _typed(value: object) -> object:
    """Return the value that a text of delimited text stands for: empty for null, else JSON; any other text as it is."""
    if not isinstance(value, str):
        return value
    with suppress(orjson.JSONDecodeError):
        return loads(value) if value else None
    return value


LENGTHS = ("input_length", "output_length")
_HOW_TO_ADD = {
    PREDICTION: "; score the file with --rule first (if select wrote it, select --keep-scores keeps the column), or "
    "name another column",
    **dict.fromkeys(
        LENGTHS, f", of which --tokens takes the sum; score the file with --indicators {','.join(LENGTHS)}"
    ),
}


def not_scored(files: Sequence[str], fields: Sequence[str] = ()) -> str:
    """Return the message for files without any column that ``score`` adds."""
    there = f"; fields: {few(fields)}" if fields else ""
    return (
        f"{' and '.join(files)}: no column that score adds{there}. Score it first: instructmining score FILE -o …; if "
        "select wrote it, select --keep-scores keeps the columns; or give --prefix, if they have one"
    )


def no_column(name: str, there: Collection[str]) -> str:
    """Return the message for a missing column; for preference pairs it names the columns of their sides."""
    of_pairs = [f"{part}.{name}" for part in (*SIDES, MARGIN)]
    if all(other in there for other in of_pairs):
        return f"no column {name!r}: the rows are preference pairs; name {', '.join(of_pairs[:-1])} or {of_pairs[-1]}"
    return no_such("column", name, there) + _HOW_TO_ADD.get(name, "")
