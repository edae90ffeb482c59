"""A line of the table: what was measured, against whom, what was wanted, and whether it was reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers.material import Material
from benchmarks.peers.rounds import Timed


@dataclass(frozen=True, slots=True)
class Line:
    """``found`` None: not measured, and the note says why."""

    what: str
    against: str
    found: float | None
    target: float | None = None
    unit: str = "x"
    at_most: bool = False  # the target is a bound from above
    note: str = ""

    @property
    def verdict(self) -> str:
        """ "met", "short", "not measured", or nothing where there is no target."""
        if self.found is None:
            return "not measured"
        if self.target is None:
            return ""
        reached = self.found <= self.target if self.at_most else self.found >= self.target
        return "met" if reached else "short"


@dataclass(slots=True)
class Entry:
    """One row of the issue's table, measured."""

    name: str
    lines: list[Line] = field(default_factory=list)
    timed: list[Timed] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """What every entry is given."""

    material: Material
    sample: Material  # fewer rows, to search settings with
    pythons: dict[str, Any]
    rounds: int  # 0: numbers are checked and nothing is timed


Measure = Callable[[Run], Entry]


class UnequalNumbersError(Exception):
    """Two sides did not do the same work."""


def check_close(name: str, found: Sequence[float], wanted: Sequence[float], within: float) -> float:
    """The largest difference.

    Raises:
        UnequalNumbersError: it is beyond the bound, or the sides have not the same rows.
    """
    if len(found) != len(wanted):
        raise UnequalNumbersError(f"{name}: {len(found)} values, wanted {len(wanted)}")
    largest = max(abs(one - other) for one, other in zip(found, wanted, strict=True))
    if not largest <= within:
        raise UnequalNumbersError(f"{name}: a value is {largest:.2g} off, wanted at most {within:g}")
    return largest
