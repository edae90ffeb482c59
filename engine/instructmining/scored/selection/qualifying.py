"""Reads the numbers that a choice needs of every row, and decides which rows are candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import SelectionError
from instructmining.errors.names import no_such
from instructmining.reading.values import dumps
from instructmining.scored.scored_file import LENGTHS, ScoredRows, no_column
from instructmining.scored.selection.options import SelectionOptions
from instructmining.types import SourceRow

_MOST_GROUPS = 100_000  # names held in memory
_LONGEST_GROUP = 1000  # longest name, in characters


class Verdict(IntEnum):
    """Why a row is kept or not. After these come two per condition: the row fails it, and its column is null."""

    UNDECIDED = -1
    KEPT = 0
    NO_VALUE = 1
    NO_LENGTH = 2
    NO_QUOTA = 3
    ABOVE = 4
    FULL = 5
    OVER_BUDGET = 6
    NEAR = 7
    FIRST_CONDITION = 8


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of rows with the same value in a column."""

    names: Sequence[str]
    of_row: NDArray[np.int32]  # (rows,) index of each row's group in ``names``


@dataclass(frozen=True, slots=True)
class Contents:
    """What rows have of what a selection asks for: all rows of a scored file, or those of a part of it."""

    rows: int
    has_values: bool  # whether the column to order by is a number in any row
    missing: frozenset[str]  # columns asked for that no row has
    groups: Sequence[str]  # in the order of their first rows
    fields: Sequence[str]  # of the first row

    def check(self, name: str, choice: SelectionOptions, by: str) -> None:
        """Check that the rows can answer a selection.

        Args:
            name: of the scored file.
            choice: which rows to keep.
            by: field to order by.

        Raises:
            SelectionError: no row has a number to order by, or they lack a column or a group that is asked for.
        """
        if not self.rows:
            return
        if not self.has_values:
            raise SelectionError(f"{name}: no row has a number in column {by!r}")
        for column in sorted(self.missing):
            raise SelectionError(f"{name}: {no_column(column, self.fields)}")
        check_groups(name, len(self.groups), choice.group_by or "")
        unknown = choice.quotas.keys() - set(self.groups)
        for group in choice.quotas:
            if group in unknown:
                missing = no_such("group", group, self.groups)
                raise SelectionError(f"{name}: --quota {group}={choice.quotas[group]}: {missing}")


def check_groups(name: str, groups: int, column: str) -> None:
    """Check that there are not too many groups.

    Raises:
        SelectionError: there are.
    """
    if groups > _MOST_GROUPS:
        raise SelectionError(f"{name}: column {column!r} has more than {_MOST_GROUPS:,} values; wanted one of groups")


class Columns:
    """The numbers of every row, and the verdicts on rows that are no candidates.

    Attributes:
        values: float64 (rows,), the column to order by, NaN where it is null.
        verdicts: int16 (rows,), values of :class:`Verdict`.
        lengths: float64 (rows,), tokens of prompt and response; None without a token budget.
        groups: the groups; None without ``group_by``.
        contents: what the rows have of what is asked for; see :meth:`Contents.check`.
    """

    def __init__(self, source: ScoredRows, choice: SelectionOptions, by: str) -> None:
        """Read the source, once.

        Args:
            source: the rows.
            choice: which of them to keep.
            by: column to order by.

        Raises:
            InputError: the source cannot be read.
            SelectionError: a row has no number in the column to order by, or no group's name.
        """
        self._source = source
        self._choice = choice
        self._numbers: dict[str, int] = {}  # group → its index
        wanted = [condition.column for condition in choice.conditions]
        self._missing = set(wanted if choice.group_by is None else [*wanted, choice.group_by])  # in all rows so far
        values, verdicts, lengths, of_row = (
            [np.empty(0)],
            [np.empty(0, np.int16)],
            [np.empty(0)],
            [np.empty(0, np.int32)],
        )
        for block in source.blocks([by, *(LENGTHS if choice.tokens is not None else ())]):
            values.append(block.columns[by])
            verdicts.append(np.where(np.isnan(block.columns[by]), Verdict.NO_VALUE, Verdict.UNDECIDED).astype(np.int16))
            if choice.tokens is not None:
                lengths.append(block.columns[LENGTHS[0]] + block.columns[LENGTHS[1]])
                _set(verdicts[-1], np.isnan(lengths[-1]), Verdict.NO_LENGTH)
            self._missing -= {name for name in self._missing if self._is_in(name, block.rows)}
            self._test(block.rows, verdicts[-1])
            if choice.group_by is not None:
                of_row.append(self._groups_of(block.rows))
        self.values = np.concatenate(values)
        self.verdicts = np.concatenate(verdicts)
        self.lengths = np.concatenate(lengths) if choice.tokens is not None else None
        self.groups = Groups(list(self._numbers), np.concatenate(of_row)) if choice.group_by is not None else None
        self.contents = Contents(
            rows=len(self.values),
            has_values=not np.isnan(self.values).all(),
            missing=frozenset(self._missing),
            groups=list(self._numbers),
            fields=source.names,
        )
        if self.groups is not None:
            closed = np.array([not choice.has_room(name) for name in self.groups.names], dtype=bool)
            _set(self.verdicts, closed[self.groups.of_row], Verdict.NO_QUOTA)

    def _is_in(self, column: str, rows: Sequence[SourceRow]) -> bool:
        field = self._source.field(column)
        return any(field in row.fields for row in rows)

    def _test(self, rows: Sequence[SourceRow], verdicts: NDArray[np.int16]) -> None:
        for number, condition in enumerate(self._choice.conditions):
            field = self._source.field(condition.column)
            first = Verdict.FIRST_CONDITION + 2 * number
            _set(verdicts, np.array([row.fields.get(field) is None for row in rows], dtype=np.bool_), first + 1)
            _set(verdicts, ~condition.passes(rows, field), first)

    def _groups_of(self, rows: Sequence[SourceRow]) -> NDArray[np.int32]:
        field = self._source.field(self._choice.group_by or "")
        found = [self._numbers.setdefault(group_name(row, field), len(self._numbers)) for row in rows]
        check_groups(self._source.name, len(self._numbers), field)
        return np.array(found, dtype=np.int32)


def _set(verdicts: NDArray[np.int16], rows: NDArray[np.bool_], verdict: int) -> None:
    """Set the verdict of those rows that have none yet."""
    verdicts[rows & (verdicts == Verdict.UNDECIDED)] = verdict


def group_name(row: SourceRow, field: str) -> str:
    """Return the group of a row: text, numbers as in JSON, or "null".

    Raises:
        SelectionError: the field holds a list or an object, or a long text.
    """
    value = row.fields.get(field)
    if isinstance(value, (dict, list)):
        raise SelectionError(f"{row.source}, line {row.line}: column {field!r} is not a single value to group by")
    name = value if isinstance(value, str) else dumps(value).decode()
    if len(name) > _LONGEST_GROUP:
        raise SelectionError(
            f"{row.source}, line {row.line}: column {field!r} has {len(name):,} characters, wanted a group's name "
            f"of at most {_LONGEST_GROUP:,}"
        )
    return name
