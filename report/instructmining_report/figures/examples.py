"""Chooses the best, median and worst rows of a set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from instructmining_report.figures.ordering import Order

Kind = Literal["best", "median", "worst"]


@dataclass(frozen=True, slots=True)
class ChosenRow:
    """A row that is shown."""

    number: int  # in the file, from 0
    rank: int  # in the order, from 1
    kind: Kind


def chosen_rows(order: Order, each: int) -> tuple[ChosenRow, ...]:
    """Return so many of the best, median and worst rows, in order; each row once, and fewer where there are fewer."""
    rows = len(order.rows)
    kinds: dict[int, Kind] = {}
    middle = max(0, (rows - each) // 2)
    kinds.update(dict.fromkeys(range(min(each, rows)), "best"))
    for place in range(max(0, rows - each), rows):
        kinds.setdefault(place, "worst")
    for place in range(middle, min(rows, middle + each)):
        kinds.setdefault(place, "median")
    return tuple(ChosenRow(int(order.rows[place]), place + 1, kinds[place]) for place in sorted(kinds))
