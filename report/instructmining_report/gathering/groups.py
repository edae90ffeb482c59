"""Finds the groups of rows: the values of a field, such as the source that a row came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import SelectionError
from instructmining.scored.selection.qualifying import check_groups, group_name
from instructmining.types import SourceRow

# Fields that often say where a row is from or what it is about, the first with few values is taken.
USUAL = ("source", "dataset", "category", "task", "task_type", "type", "subset", "domain", "topic", "language", "lang")
_MOST_USUAL = 100  # values of a field that is taken without being named


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a set by one field."""

    field: str
    names: Sequence[str]  # of the groups, in the order of their first rows
    of_row: NDArray[np.int32]  # (rows,) place in names

    def counts(self) -> NDArray[np.int64]:
        """Return the rows of each group."""
        return np.bincount(self.of_row, minlength=len(self.names))


class GroupFinder:
    """Notes the groups by one or more fields while rows are read."""

    def __init__(self, name: str, fields: Sequence[str], *, named: bool) -> None:
        """Start without rows.

        Args:
            name: name of the source, for messages.
            fields: fields that are tried.
            named: whether the user named the field; then one that cannot group is an error, not left out.
        """
        self._name = name
        self._named = named
        self._numbers: dict[str, dict[str, int]] = {field: {} for field in fields}
        self._of_row: dict[str, list[NDArray[np.int32]]] = {field: [] for field in fields}
        self._found: set[str] = set()

    def add(self, rows: Sequence[SourceRow]) -> None:
        """Note some rows.

        Raises:
            SelectionError: the field that the user named holds lists, or has too many values.
        """
        for field in list(self._numbers):
            numbers = self._numbers[field]
            try:
                places = [numbers.setdefault(group_name(row, field), len(numbers)) for row in rows]
                check_groups(self._name, len(numbers), field)
            except SelectionError:
                if self._named:
                    raise
                del self._numbers[field]
                continue
            if not self._named and len(numbers) > _MOST_USUAL:
                del self._numbers[field]
                continue
            self._of_row[field].append(np.array(places, dtype=np.int32))
            if field not in self._found and any(field in row.fields for row in rows):
                self._found.add(field)

    def groups(self) -> dict[str, Groups]:
        """Return the groups by each field that has any; one value for all rows is no grouping unless it was named."""
        return {
            field: Groups(field, list(numbers), np.concatenate([np.empty(0, np.int32), *self._of_row[field]]))
            for field, numbers in self._numbers.items()
            if field in self._found and (self._named or len(numbers) > 1)
        }
