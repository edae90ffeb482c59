"""Measurements to columns, and columns to rows: whole windows as arrays, rows made once at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from instructmining.indicators import Indicator, RowIndicator
from instructmining.records import PREDICTION, Column, ColumnValue, Measurements, Reject, ScoredRow, ScoredWindow
from instructmining.rules import Rule


def row_columns(
    measured: Measurements, indicators: Iterable[Indicator]
) -> tuple[ScoredWindow, NDArray[np.float32] | None]:
    """The columns of the row indicators, and the embeddings float32 (rows, size) where there are some.

    Rows with a model output that is not finite become rejects.
    """
    columns = {
        indicator.column: indicator.compute(measured) for indicator in indicators if isinstance(indicator, RowIndicator)
    }
    truncated = [tuple(roles) for roles in measured.truncated]
    finite = _finite(measured)
    refused = [
        (measured.places[row], Reject.of(measured.examples[row], "a model output is not a finite number"))
        for row in np.flatnonzero(~finite).tolist()
    ]
    in_order = sorted(measured.rejects + refused, key=lambda placed: placed[0])
    rejects = [reject for _, reject in in_order]
    if not refused:
        return ScoredWindow(measured.examples, truncated, columns, rejects, measured.end), measured.embedding
    kept = np.flatnonzero(finite)
    return (
        ScoredWindow(
            [measured.examples[row] for row in kept],
            [truncated[row] for row in kept],
            {name: _taken(column, kept) for name, column in columns.items()},
            rejects,
            measured.end,
        ),
        None if measured.embedding is None else measured.embedding[kept],
    )


def part(column: Column, begin: int, end: int) -> Column:
    """Some rows of a column of the whole run."""
    return _taken(column, np.arange(begin, end))


def predict(window: ScoredWindow, rule: Rule) -> None:
    """Add the rule's prediction as a column; it is undefined where one of its terms is."""
    values = {column: _or_nan(window.columns[column].values) for column in rule.terms}
    predicted = rule.predict(values)
    window.columns[PREDICTION] = Column(predicted, rule.reasons(values, predicted))


def rows_of(window: ScoredWindow, names: Sequence[str]) -> Iterator[ScoredRow]:
    """The rows with these columns, in their order."""
    notes: dict[int, dict[str, str]] = {}
    by_name = [_values(window.columns[name], name, notes) for name in names]
    by_row = zip(*by_name, strict=True) if by_name else (() for _ in window.examples)
    for row, (example, truncated, values) in enumerate(zip(window.examples, window.truncated, by_row, strict=True)):
        yield ScoredRow(example, dict(zip(names, values, strict=True)), truncated, notes.get(row, {}))


def _values(column: Column, name: str, notes: dict[int, dict[str, str]]) -> list[ColumnValue]:
    """As the row has them; the reason of each that is undefined goes into its row's notes."""
    finite = np.isfinite(column.values)
    numbers = np.where(finite, column.values, 0)
    values: list[ColumnValue] = (numbers.astype(np.int64) if column.whole else numbers).tolist()
    for row in np.flatnonzero(~finite).tolist():
        values[row] = None
        notes.setdefault(row, {})[name] = column.notes.get(row, "not a finite number")
    return values


def _or_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


def _taken(column: Column, rows: NDArray[np.int64]) -> Column:
    notes = {new: column.notes[old] for new, old in enumerate(rows.tolist()) if old in column.notes}
    return replace(column, values=column.values[rows], notes=notes)


def _finite(measured: Measurements) -> NDArray[np.bool_]:
    """Rows whose model outputs are all finite, (rows,)."""
    finite = np.ones(len(measured.examples), dtype=bool)
    for sums in (measured.conversation_nll, measured.response_nll):
        if sums is not None:
            finite &= np.isfinite(sums.total)
    if measured.reward is not None:
        finite &= np.isfinite(measured.reward)
    if measured.embedding is not None:
        finite &= np.isfinite(measured.embedding).all(axis=1)
    for answers in measured.answers.values():
        finite &= np.isfinite(answers)
    return finite
