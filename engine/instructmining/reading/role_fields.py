"""The fields of a row by the roles that they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from instructmining.errors import RowError
from instructmining.reading.conversations import (
    Unread,
    kind_of,
)
from instructmining.reading.formats import FieldRole, Shape


@dataclass(slots=True)
class Assignment:
    """Which of a row's fields takes which role, where their names alone decide it."""

    taken: Mapping[FieldRole, str]
    others: tuple[str, ...]  # fields that take none
    is_kept: bool  # for all rows of the same fields
    rows: int = 0  # good ones that have these fields


@dataclass(slots=True)
class Parsed:
    """The fields of a row, and which of them takes which role."""

    shape: Shape
    fields: Mapping[str, object]
    taken: Mapping[FieldRole, str]
    assignment: Assignment
    unread: Unread = field(default_factory=Unread)  # what holds text and is not read, so far

    def has(self, role: FieldRole) -> bool:
        """Whether a role is taken by more than null, or must be taken."""
        return role in self.shape.needs or (role in self.taken and self.fields[self.taken[role]] is not None)

    def value(self, role: FieldRole) -> tuple[str, object]:
        """The field that takes a role, and what it holds.

        Raises:
            RowError: none does.
        """
        if role in self.taken:
            return self.taken[role], self.fields[self.taken[role]]
        names = self.shape.fields[role]
        if len(names) == 1:
            raise RowError(f"field '{names[0]}' is missing")
        raise RowError(f"no field for a {role} (format {self.shape.name})")

    def text(self, role: FieldRole) -> str:
        """The text that takes a role that must be taken.

        Raises:
            RowError: none does, or it is no text.
        """
        name, value = self.value(role)
        if not isinstance(value, str):
            raise RowError(f"field '{name}' is {kind_of(value)}, wanted text")
        return value

    def text_or_none(self, role: FieldRole) -> str | None:
        """The text that takes a role that may be free; None where it is free or holds null.

        Raises:
            RowError: it is no text.
        """
        return self.text(role) if role in self.taken and self.fields[self.taken[role]] is not None else None
