"""What :func:`instructmining.compare` finds in two scored sets, and how it is shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from instructmining.tables import Bar, Line, Table, counted, number
from instructmining.tables.html import as_html
from instructmining.types import unit

_DIFFERENCE = ("mean A", "mean B", "B - A", "standardized", "sd A", "sd B", "KS", "Wasserstein", "null A", "null B")


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """A column in two sets, over the rows that have a value; None where a figure is undefined."""

    first_mean: float | None
    second_mean: float | None
    first_deviation: float | None  # sample standard deviation (n − 1)
    second_deviation: float | None
    first_nulls: int
    second_nulls: int
    difference: float | None  # of the means, second − first
    standardized: float | None  # the difference / square root of the mean of both variances
    ks: float | None  # Kolmogorov-Smirnov statistic, 0..1
    wasserstein: float | None  # Wasserstein-1 distance, in the column's unit


@dataclass(frozen=True, slots=True)
class SetCounts:
    """The size of a set."""

    name: str  # name of the source
    rows: int
    tokens: Mapping[str, int]  # sums of input_length and output_length, where the set has them
    values_from_other: bool  # it has no scores; those of equal rows in the other set were used
    unmatched: int  # rows without values, since the other set has no equal row

    def said(self) -> str:
        """Return the size of the set in words, without its name."""
        tokens = "".join(f", {name.replace('_', ' ')} {count:,} tokens" for name, count in self.tokens.items())
        borrowed = "; has no scores, uses those of the other set" if self.values_from_other else ""
        unmatched = f", which lacks {self.unmatched:,} of its rows" if self.unmatched else ""
        return f"{counted(self.rows)}{tokens}{borrowed}{unmatched}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of two sets; rows are equal if all fields but those of ``score`` are; each matches one other row."""

    first: SetCounts
    second: SetCounts
    common: int  # rows that both sets have
    left: int  # rows in the first set only
    entered: int  # rows in the second set only
    columns: Mapping[str, ColumnDifference]  # columns that both sets have

    def lines(self) -> Iterator[Line]:
        """Yield both sets, then the rows that only one of them has."""
        yield Line(self.first.said(), f"A: {self.first.name}")
        yield Line(self.second.said(), f"B: {self.second.name}")
        moved = f"left (in A alone) {self.left:,}, entered (in B alone) {self.entered:,}"
        yield Line(f"in both {self.common:,}, {moved}")

    def differences(self) -> Table:
        """Return a line for each column."""
        columns = self.columns.values()
        rows = [
            (
                name,
                *(number(value) for value in (one.first_mean, one.second_mean, one.difference, one.standardized)),
                *(number(value) for value in (one.first_deviation, one.second_deviation, one.ks, one.wasserstein)),
                f"{one.first_nulls:,}",
                f"{one.second_nulls:,}",
            )
            for name, one in self.columns.items()
        ]
        shifts = [abs(one.standardized) for one in columns if one.standardized is not None]
        reach = max(filter(math.isfinite, shifts), default=0.0)
        return Table(
            caption="columns; a bar shows the standardized difference, to the right where B has the greater mean",
            header=("column", *_DIFFERENCE),
            rows=tuple(rows),
            units=tuple(unit(name) for name in self.columns),
            marks=tuple(Bar(one.standardized, reach) if one.standardized and reach else None for one in columns),
        )

    def _repr_html_(self) -> str:
        """Return the text report as HTML, for notebooks."""
        return as_html([*self.lines(), *([self.differences()] if self.columns else [])])
