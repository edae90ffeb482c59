"""The fields of a row by their roles."""

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
    """Which field of a row has which role, where the names alone decide."""

    taken: Mapping[FieldRole, str]
    others: tuple[str, ...]  # fields without a role
    is_kept: bool  # valid for all rows with the same fields
    rows: int = 0  # good rows with these fields


@dataclass(slots=True)
class Parsed:
    """The fields of a row, and the field of each role."""

    shape: Shape
    fields: Mapping[str, object]
    taken: Mapping[FieldRole, str]
    assignment: Assignment
    unread: Unread = field(default_factory=Unread)  # fields that hold text and are not read, so far

    def has(self, role: FieldRole) -> bool:
        """Return whether a role has a field that is not null, or must have one."""
        return role in self.shape.needs or (role in self.taken and self.fields[self.taken[role]] is not None)

    def value(self, role: FieldRole) -> tuple[str, object]:
        """Return the field of a role, and its value.

        Raises:
            RowError: the role has no field.
        """
        if role in self.taken:
            return self.taken[role], self.fields[self.taken[role]]
        names = self.shape.fields[role]
        if len(names) == 1:
            raise RowError(f"field '{names[0]}' is missing")
        raise RowError(f"no field for a {role} (format {self.shape.name})")

    def text(self, role: FieldRole) -> str:
        """Return the text of a required role.

        Raises:
            RowError: the role has no field, or its value is not text.
        """
        name, value = self.value(role)
        if not isinstance(value, str):
            raise RowError(f"field '{name}' is {kind_of(value)}, wanted text")
        return value

    def text_or_none(self, role: FieldRole) -> str | None:
        """Return the text of an optional role; None where it has no field or is null.

        Raises:
            RowError: the value is not text.
        """
        return self.text(role) if role in self.taken and self.fields[self.taken[role]] is not None else None
