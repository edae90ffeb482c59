"""Orders the rows of a set, from those that a selection keeps first to those that it keeps last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import SelectionError
from instructmining.scored.scored_file import no_column
from instructmining.types import PREDICTION
from instructmining_report.gathering.scored_set import ScoredSet
from instructmining_report.options import ReportOptions

# What orders rows where nothing is predicted, and whether more is better.
_INSTEAD = {
    "reward": True,
    "ifd": False,
    "perplexity": False,
    "coherence": True,
    "understandability": True,
    "naturalness": True,
    "mtld": True,
}


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a set's rows."""

    column: str
    descending: bool
    rows: NDArray[np.int64]  # row numbers, best first; rows without a value are left out
    chosen_here: bool  # whether the column was chosen since there is no prediction


def order_column(columns: Sequence[str], options: ReportOptions, name: str) -> tuple[str, bool] | None:
    """Return the column that orders rows and whether the largest come first; None without a column.

    Raises:
        SelectionError: the column that the user named is not there.
    """
    if options.by is not None:
        if columns and options.by not in columns:
            raise SelectionError(f"{name}: {no_column(options.by, columns)}")
        return (options.by, options.descending) if columns else None
    for column in (PREDICTION, f"chosen.{PREDICTION}"):
        if column in columns:
            return column, False
    for column, descending in _INSTEAD.items():
        for there in (column, f"margin.{column}", f"chosen.{column}"):
            if there in columns:
                return there, descending
    return (columns[0], False) if columns else None


def order_of(one: ScoredSet, options: ReportOptions) -> Order | None:
    """Return the order of a set's rows, equal values in file order as ``select`` does; None without a column.

    Raises:
        SelectionError: the column that the user named is not there.
    """
    chosen = order_column(one.columns, options, one.source.name)
    if chosen is None:
        return None
    column, descending = chosen
    values = one.store.column(column)
    known = np.flatnonzero(~np.isnan(values))
    keys = -values[known] if descending else values[known]
    is_prediction = column.endswith(PREDICTION)
    rows = known[np.argsort(keys, kind="stable")]
    return Order(column, descending, rows, options.by is None and not is_prediction)
