"""Reads scored rows: splits the columns of an earlier run of ``score`` off the row and keeps them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

import orjson

from instructmining.errors import RowError
from instructmining.reading.json_members import without
from instructmining.types import (
    COLUMNS,
    PAIR_COLUMNS,
    SCORE_COLUMNS,
    SIDES,
    ColumnValue,
    EarlierScores,
    Example,
    SourceRow,
)


class ScoreFields:
    """The fields that ``score`` adds to a row, by their names with a prefix."""

    def __init__(self, prefix: str) -> None:
        """Build the names.

        Args:
            prefix: prefix of the columns that ``score`` wrote.
        """
        self._columns = {f"{prefix}{column}": column for column in SCORE_COLUMNS}
        self._truncated, self._notes = f"{prefix}truncated", f"{prefix}score_notes"
        self.names = frozenset((*self._columns, self._truncated, self._notes))

    def are_in(self, fields: Mapping[str, object]) -> bool:
        """Return whether a row was scored; a field called ``reward`` alone may be the user's own."""
        return self._notes in fields and self._truncated in fields

    def columns_of(self, fields: Mapping[str, object]) -> frozenset[str]:
        """Return the columns that a row has scores for; for a pair, those that both sides have."""
        if not self.are_in(fields):
            return frozenset()
        there = {self._columns[name] for name in fields if name in self._columns}
        of_pairs = {column for column in COLUMNS if there.issuperset(PAIR_COLUMNS[column][: len(SIDES)])}
        return frozenset((there & set(COLUMNS)) | of_pairs)

    def taken_off(self, row: SourceRow) -> tuple[SourceRow, EarlierScores]:
        """Split a scored row into the row without scores, and the scores.

        Raises:
            RowError: a column is no number, or the notes are no object.
        """
        fields = row.fields
        columns = {self._columns[name]: _number(name, fields[name]) for name in fields if name in self._columns}
        scores = EarlierScores(columns, self._reasons(fields[self._notes]), self._roles(fields[self._truncated]))
        own = {name: value for name, value in fields.items() if name not in self.names}
        return replace(row, raw=without(row.raw, fields, self.names), fields=own), scores

    def _reasons(self, value: object) -> dict[str, str]:
        notes = _parsed(value)
        if not isinstance(notes, dict):
            raise RowError(f"field '{self._notes}' is {notes!r}, wanted an object of columns and reasons")
        return {self._columns.get(str(name), str(name)): str(reason) for name, reason in notes.items()}

    def _roles(self, value: object) -> tuple[str, ...]:
        roles = _parsed(value)
        if not isinstance(roles, list):
            raise RowError(f"field '{self._truncated}' is {value!r}, wanted a list of roles")
        return tuple(map(str, roles))


@lru_cache(maxsize=8)
def score_fields(prefix: str) -> ScoreFields:
    """Return the fields that ``score`` adds with a prefix; a service asks for each request."""
    return ScoreFields(prefix)


def lacking(example: Example, wanted: Collection[str]) -> list[str]:
    """Return the wanted columns that an example has no earlier score for; in a pair, on either side."""
    there: Collection[str] = example.scores.columns if example.scores is not None else ()
    if example.rejected is None:
        return [column for column in wanted if column not in there]
    return [column for column in wanted if not all(f"{side}.{column}" in there for side in SIDES)]


def _parsed(value: object) -> object:
    """Parse a text, in tables that have no type for objects or lists."""
    if isinstance(value, str):
        with suppress(orjson.JSONDecodeError):
            return orjson.loads(value)
    return value


def _number(name: str, value: object) -> ColumnValue:
    """Return a column's value; delimited text holds numbers as text, and null stays null."""
    number = value
    if isinstance(value, str):
        number = None if not value else _parsed(value)
    if isinstance(number, bool) or not isinstance(number, (int, float, type(None))):
        raise RowError(f"column {name!r} is {str(value)[:60]!r}, wanted a number")
    return number
