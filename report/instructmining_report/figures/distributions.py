"""Histograms of a column in several sets, with shared bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.scored.describe import ColumnSummary, Description
from instructmining_report.figures.axes import Axis, axis_of
from instructmining_report.gathering.scored_set import ScoredSet


@dataclass(frozen=True, slots=True)
class SetDistribution:
    """A column in one set."""

    label: str
    summary: ColumnSummary
    shares: NDArray[np.float64]  # (bins,) of the rows that have a value
    beyond: int  # rows beyond the ends of the axis


@dataclass(frozen=True, slots=True)
class Distribution:
    """A column in all sets that have it."""

    column: str
    axis: Axis | None  # None where no row has a value
    sets: tuple[SetDistribution, ...]


def distributions(sets: Sequence[ScoredSet], described: Sequence[Description]) -> tuple[Distribution, ...]:
    """Return the distribution of each column, in the order of the first set that has it."""
    columns = list(dict.fromkeys(column for one in sets for column in one.columns))
    return tuple(_distribution(column, sets, described) for column in columns)


def _distribution(column: str, sets: Sequence[ScoredSet], described: Sequence[Description]) -> Distribution:
    having = [
        (one, description) for one, description in zip(sets, described, strict=True) if column in description.columns
    ]
    values = [one.store.known(column) for one, _ in having]
    pooled = np.concatenate(values) if values else np.empty(0)
    axis = axis_of(pooled) if len(pooled) else None
    found = []
    for (one, description), known in zip(having, values, strict=True):
        counts = axis.counts(known) if axis is not None else np.empty(0)
        shares = counts / len(known) if len(known) else np.zeros(len(counts))
        beyond = len(known) - int(counts.sum())
        found.append(SetDistribution(one.label, description.columns[column], shares, beyond))
    return Distribution(column, axis, tuple(found))
