"""How far each further set is from the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from instructmining.scored.compare import ColumnDifference, difference
from instructmining.scored.matching import match
from instructmining_report.gathering.scored_set import ScoredSet


@dataclass(frozen=True, slots=True)
class SetDifference:
    """A set against the first one."""

    label: str
    common: int  # rows that both have
    left: int  # rows of the first set alone
    entered: int  # rows of this set alone
    columns: Mapping[str, ColumnDifference]


def differences_of(sets: Sequence[ScoredSet]) -> tuple[SetDifference, ...]:
    """Return the differences, as ``compare`` finds them."""
    first = sets[0]
    found = []
    for other in sets[1:]:
        matching = match(first.digests, other.digests)
        left, entered = int(matching.left.sum()), int(matching.entered.sum())
        columns = {
            name: difference(first.store.column(name), other.store.column(name))
            for name in first.columns
            if name in other.columns
        }
        found.append(SetDifference(other.label, first.rows - left, left, entered, columns))
    return tuple(found)
