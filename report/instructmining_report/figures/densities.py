"""Counts of rows in the plane of two columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.scored.column_store import ColumnStore
from instructmining.scored.describe import Description
from instructmining.scored.scored_file import LENGTHS
from instructmining.types import MARGIN, PREDICTION
from instructmining_report.figures.axes import Axis, axis_of

MOST_PAIRS = 12
_BINS = 36
_MOST_BINS = 12  # of the running median
_LEAST_IN_BIN = 5  # rows of which a median is shown


@dataclass(frozen=True, slots=True)
class Density:
    """Rows in the plane of two columns."""

    across: str
    up: str
    across_axis: Axis
    up_axis: Axis
    counts: NDArray[np.int64]  # (bins up, bins across)
    rows: int  # rows that have both
    spearman: float | None
    medians: tuple[tuple[float, float], ...] = ()  # (across, median of up), in bins of equal numbers of rows


@dataclass(frozen=True, slots=True)
class PairedColumns:
    """The pairs of columns that move together most."""

    shown: tuple[Density, ...]
    pairs: int  # that there are
    margins: bool  # whether margins, which are differences of two other columns, were left out


def paired_columns(store: ColumnStore, described: Description) -> PairedColumns:
    """Return the planes of the pairs with the strongest rank correlation, without those that are sums of others."""
    names = [name for name in described.columns if not name.startswith(f"{MARGIN}.")]
    pairs = [
        (first, second)
        for place, first in enumerate(names)
        for second in names[place + 1 :]
        if described.spearman[first][second] is not None
    ]
    pairs.sort(key=lambda pair: -abs(described.spearman[pair[0]][pair[1]] or 0.0))
    shown = [_density(store, described, first, second) for first, second in pairs[:MOST_PAIRS]]
    return PairedColumns(
        tuple(one for one in shown if one is not None), len(pairs), len(names) < len(described.columns)
    )


def by_length(store: ColumnStore, described: Description, parts: Sequence[str], order_by: str) -> tuple[Density, ...]:
    """Return the planes of each length against the column that orders the rows, with running medians."""
    found = []
    for part in parts:
        if part == f"{MARGIN}.":
            continue
        for length in LENGTHS:
            across = f"{part}{length}"
            up = order_by if not part else f"{part}{order_by.split('.', 1)[-1]}"
            if across in described.columns and up in described.columns and across != up:
                density = _density(store, described, across, up, medians=True)
                found += [density] if density is not None else []
    return tuple(found)


def _density(
    store: ColumnStore, described: Description, across: str, up: str, *, medians: bool = False
) -> Density | None:
    x, y = store.column(across), store.column(up)
    both = ~np.isnan(x) & ~np.isnan(y)
    x, y = x[both], y[both]
    if not len(x):
        return None
    across_axis, up_axis = axis_of(x, _BINS), axis_of(y, _BINS)
    width, height = len(across_axis.edges) - 1, len(up_axis.edges) - 1
    flat = up_axis.places(y) * width + across_axis.places(x)
    return Density(
        across=across,
        up=up,
        across_axis=across_axis,
        up_axis=up_axis,
        counts=np.bincount(flat, minlength=width * height).reshape(height, width),
        rows=len(x),
        spearman=described.spearman[across][up],
        medians=_medians(x, y) if medians else (),
    )


def _medians(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """Return the median of y in bins of x with about equal numbers of rows; equal x are in one bin.

    None where a single bin has enough rows: one point is no line.
    """
    bins = min(_MOST_BINS, max(1, len(x) // (2 * _LEAST_IN_BIN)))
    borders = np.unique(np.quantile(x, np.linspace(0, 1, bins + 1)))
    places = np.clip(np.searchsorted(borders, x, side="right") - 1, 0, max(0, len(borders) - 2))
    found = []
    for place in np.unique(places).tolist():
        inside = places == place
        if inside.sum() >= _LEAST_IN_BIN:
            found.append((float(np.median(x[inside])), float(np.median(y[inside]))))
    return tuple(found) if len(found) > 1 else ()


def is_prediction(column: str) -> bool:
    """Return whether a column is a rule's prediction, of a row, a side or a margin."""
    return column == PREDICTION or column.endswith(f".{PREDICTION}")
