"""Figures of the groups of each set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from instructmining_report.gathering.groups import USUAL
from instructmining_report.gathering.scored_set import ScoredSet

MOST_GROUPS = 20
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Group:
    """A group in all sets; the figures of columns are of the first set that has it."""

    name: str
    rows: tuple[int, ...]  # in each set
    quantiles: tuple[float, ...]  # of the column that orders the rows: 5, 25, 50, 75 and 95 %; empty without values
    means: Mapping[str, float | None]  # column → mean


@dataclass(frozen=True, slots=True)
class Grouping:
    """The groups by one field."""

    field: str
    named: bool  # whether the user named the field
    groups: tuple[Group, ...]  # largest first
    others: int  # groups that are not shown
    other_rows: tuple[int, ...]  # their rows in each set
    columns: tuple[str, ...]


def group_field(sets: Sequence[ScoredSet], named: str | None) -> str | None:
    """Return the field that groups are made by: the one named, else the first usual one that the first set has."""
    there = sets[0].groups
    if named is not None:
        return next(iter(there), None)
    return next((field for field in USUAL if field in there), None)


def grouping_of(sets: Sequence[ScoredSet], field: str, order_by: str | None, *, named: bool) -> Grouping:
    """Return the figures of the largest groups."""
    counts: dict[str, list[int]] = {}
    for at, one in enumerate(sets):
        groups = one.groups.get(field)
        for name, rows in zip(groups.names, groups.counts().tolist(), strict=True) if groups is not None else ():
            counts.setdefault(name, [0] * len(sets))[at] = rows
    names = sorted(counts, key=lambda name: (*(-rows for rows in counts[name]), name))
    first = sets[0]
    shown, others = names[:MOST_GROUPS], names[MOST_GROUPS:]
    quantiles: dict[str, tuple[float, ...]] = dict.fromkeys(shown, ())
    means: dict[str, dict[str, float | None]] = {name: {} for name in shown}
    of_first = first.groups[field]
    members = {name: place for place, name in enumerate(of_first.names)}
    for column in first.columns:
        values = first.store.column(column)
        known = ~np.isnan(values)
        sums = np.bincount(of_first.of_row[known], values[known], minlength=len(of_first.names))
        rows = np.bincount(of_first.of_row[known], minlength=len(of_first.names))
        for name in shown:
            place = members.get(name, -1)
            there = place >= 0 and bool(rows[place])
            means[name][column] = float(sums[place] / rows[place]) if there else None
            if there and column == order_by:
                own = values[known & (of_first.of_row == place)]
                quantiles[name] = tuple(np.quantile(own, _QUANTILES).tolist())
    return Grouping(
        field=field,
        named=named,
        groups=tuple(Group(name, tuple(counts[name]), quantiles[name], means[name]) for name in shown),
        others=len(others),
        other_rows=tuple(sum(counts[name][place] for name in others) for place in range(len(sets))),
        columns=first.columns,
    )
