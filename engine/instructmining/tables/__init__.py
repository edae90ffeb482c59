"""Tables of formatted cells: what the text and the HTML of a result share, so that both show the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

ABSENT = "-"  # a number that is undefined


@dataclass(frozen=True, slots=True)
class Spread:
    """A column's quantiles, drawn in HTML as a box between the least and the greatest value."""

    quantiles: tuple[float, ...]  # (7,) at 0, 5, 25, 50, 75, 95 and 100 %


@dataclass(frozen=True, slots=True)
class Bar:
    """A number with a sign, drawn in HTML as a bar to the left or to the right of 0."""

    value: float
    reach: float  # greatest absolute value of the table, which fills its half; above 0


Mark: TypeAlias = Spread | Bar


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names its rows; all cells are text."""

    caption: str
    header: tuple[str, ...]  # the first is that of the rows' names
    rows: tuple[tuple[str, ...], ...]
    units: tuple[str, ...] = ()  # (rows,) of the rows' numbers, "" for none; shown in HTML
    marks: tuple[Mark | None, ...] = ()  # (rows,) drawn in HTML beside each name

    def lines(self) -> Iterator[tuple[str, ...]]:
        """Yield the cells of the header, then those of each row."""
        yield self.header
        yield from self.rows


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, with the name of what it is about."""

    text: str
    name: str = ""  # as its user wrote it, such as a path

    def __str__(self) -> str:
        """Return the line with the name before it."""
        return f"{self.name}: {self.text}" if self.name else self.text


@dataclass(frozen=True, slots=True)
class Facts:
    """Labels and their values, one a line."""

    caption: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scatter:
    """Points, drawn in HTML; the axis down is symmetric about 0."""

    caption: str
    across: tuple[float, ...]  # (points,)
    down: tuple[float, ...]  # (points,)
    labels: tuple[str, ...]  # (points,) shown where the pointer rests


Block: TypeAlias = Table | Line | Facts | Scatter


def number(value: float | None, form: str = "{:.5g}") -> str:
    """Format a number; ``-`` for None."""
    return ABSENT if value is None else form.format(value)


def counted(rows: int) -> str:
    """Return a number of rows in words."""
    return f"{rows:,} row{'' if rows == 1 else 's'}"
