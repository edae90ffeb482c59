"""What a selection keeps at each cut: the best 1 %, 2 %, … of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.scored.scored_file import LENGTHS
from instructmining.types import SIDES
from instructmining_report.figures.ordering import Order
from instructmining_report.gathering.groups import Groups
from instructmining_report.gathering.scored_set import ScoredSet

PERCENTS = tuple(range(1, 101))
SHOWN = (10, 25, 50, 75, 100)  # percents of the table
MOST_GROUPS = 12


@dataclass(frozen=True, slots=True)
class Cuts:
    """Figures of the rows kept at each cut; all lists have one value per percent."""

    column: str
    descending: bool
    candidates: int  # rows that have a value
    rows: tuple[int, ...]
    border: tuple[float | None, ...]  # value of the last row kept
    tokens: tuple[int, ...] | None  # of prompts and responses; None where their lengths are not there
    means: dict[str, tuple[float | None, ...]]  # column → mean of the rows kept that have it
    deviations: dict[str, tuple[float | None, ...]]  # column → root of the mean variance of all rows and of those kept
    groups: dict[str, tuple[int, ...]]  # group → rows kept


def cuts_of(one: ScoredSet, order: Order, groups: Groups | None) -> Cuts:
    """Return the figures at each cut."""
    candidates = len(order.rows)
    # As select rounds a fraction.
    rows = np.floor(np.array(PERCENTS) / 100 * candidates + 0.5).astype(np.int64)
    by = one.store.column(order.column)[order.rows]
    means, deviations = {}, {}
    for column in one.columns:
        values = one.store.column(column)[order.rows]
        means[column] = _means(values, rows)
        deviations[column] = _deviations(values, rows)
    return Cuts(
        column=order.column,
        descending=order.descending,
        candidates=candidates,
        rows=tuple(rows.tolist()),
        border=tuple(float(by[count - 1]) if count else None for count in rows.tolist()),
        tokens=_tokens(one, order, rows),
        means=means,
        deviations=deviations,
        groups={} if groups is None else _groups(groups, order, rows),
    )


def _means(values: NDArray[np.float64], rows: NDArray[np.int64]) -> tuple[float | None, ...]:
    known = ~np.isnan(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])[rows]
    counts = np.concatenate([[0], np.cumsum(known)])[rows]
    return tuple(total / count if count else None for total, count in zip(sums.tolist(), counts.tolist(), strict=True))


def _deviations(values: NDArray[np.float64], rows: NDArray[np.int64]) -> tuple[float | None, ...]:
    """Return what ``compare`` divides a difference of means by, for the rows kept at each cut against all."""
    known = ~np.isnan(values)
    if not known.any():
        return (None,) * len(rows)
    centred = np.where(known, values - values[known].mean(), 0.0)
    counts, sums, squares = (
        np.concatenate([[0.0], np.cumsum(one)])[rows] for one in (known.astype(np.float64), centred, centred**2)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        variances = np.maximum(squares - sums**2 / counts, 0.0) / (counts - 1)
    pooled = np.sqrt((variances + variances[-1]) / 2)
    return tuple(value if np.isfinite(value) and value > 0 else None for value in pooled.tolist())


def _tokens(one: ScoredSet, order: Order, rows: NDArray[np.int64]) -> tuple[int, ...] | None:
    parts = [part for part in one.parts if part in {"", *(f"{side}." for side in SIDES)}]
    names = [f"{part}{length}" for part in parts for length in LENGTHS]
    if not all(name in one.columns for name in names):
        return None
    total = sum((np.nan_to_num(one.store.column(name)) for name in names), start=np.zeros(one.rows))
    sums = np.concatenate([[0.0], np.cumsum(total[order.rows])])[rows]
    return tuple(int(value) for value in sums.tolist())


def _groups(groups: Groups, order: Order, rows: NDArray[np.int64]) -> dict[str, tuple[int, ...]]:
    of_row = groups.of_row[order.rows]
    counts = np.bincount(of_row, minlength=len(groups.names))
    largest = sorted(range(len(counts)), key=lambda place: (-counts[place], place))[:MOST_GROUPS]
    found = {}
    for place in largest:
        kept = np.concatenate([[0], np.cumsum(of_row == place)])[rows]
        found[groups.names[place]] = tuple(kept.tolist())
    return found
