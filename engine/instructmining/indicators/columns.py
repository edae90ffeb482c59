"""Converts measurements to columns, and columns to rows: windows as arrays, rows made once at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from instructmining.indicators import Indicator, RowIndicator
from instructmining.indicators.base import Measurements
from instructmining.rules import Rule
from instructmining.types import (
    PREDICTION,
    SCORE_COLUMNS,
    Column,
    ColumnValue,
    EarlierScores,
    Example,
    Reject,
    ScoredRow,
    ScoredWindow,
    pair_columns,
)

_PLACE = {name: place for place, name in enumerate(SCORE_COLUMNS)}


def row_columns(
    measured: Measurements, indicators: Iterable[Indicator]
) -> tuple[ScoredWindow, NDArray[np.float32] | None]:
    """Compute the columns of the row indicators; also returns the embeddings, float32 (rows, size), or None.

    Rows with a model output that is not finite become rejects; a pair with both its sides.
    """
    columns = {
        indicator.column: indicator.compute(measured) for indicator in indicators if isinstance(indicator, RowIndicator)
    }
    truncated = [tuple(roles) for roles in measured.truncated]
    finite = _finite(measured)
    refused = [
        (measured.places[row], Reject.of(_row_at(measured.examples, row), "a model output is not a finite number"))
        for row in np.flatnonzero(~finite).tolist()
        if measured.examples[row].side != "rejected"
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
            {name: _selected(column, kept) for name, column in columns.items()},
            rejects,
            measured.end,
        ),
        None if measured.embedding is None else measured.embedding[kept],
    )


def part(column: Column, begin: int, end: int) -> Column:
    """Return the part of a column of the whole run from row ``begin`` up to ``end``."""
    return _selected(column, np.arange(begin, end))


def predict(window: ScoredWindow, rule: Rule) -> None:
    """Add the rule's prediction as a column; undefined where one of its terms is."""
    values = {column: _term(window, column) for column in rule.terms}
    predicted = rule.predict(values)
    window.columns[PREDICTION] = Column(predicted, rule.reasons(values, predicted))


def rows_of(window: ScoredWindow, names: Sequence[str]) -> Iterator[ScoredRow]:
    """Yield the rows with these columns and their earlier ones, in the order of all columns."""
    notes: dict[int, dict[str, str]] = {}
    by_name = [_values(window.columns[name], name, notes) for name in names]
    by_row = zip(*by_name, strict=True) if by_name else (() for _ in window.examples)
    chosen: ScoredRow | None = None
    for row, (example, truncated, values) in enumerate(zip(window.examples, window.truncated, by_row, strict=True)):
        scored = ScoredRow(example, dict(zip(names, values, strict=True)), truncated, notes.get(row, {}))
        if example.side == "chosen":
            chosen = scored
            continue
        if chosen is not None:
            scored, chosen = _pair(chosen, scored), None
        yield scored if example.scores is None else _with_earlier(scored, example.scores)


def _pair(chosen: ScoredRow, rejected: ScoredRow) -> ScoredRow:
    """Build the row of a preference pair: each column of both sides, and their difference."""
    columns: dict[str, ColumnValue] = {}
    notes: dict[str, str] = {}
    for name in chosen.columns:
        values, reasons = pair_columns(name, chosen.columns[name], rejected.columns[name])
        columns |= values
        for column, side in zip(values, (chosen, rejected), strict=False):
            if name in side.notes:
                notes[column] = side.notes[name]
        notes |= reasons
    truncated = tuple(dict.fromkeys((*chosen.truncated, *rejected.truncated)))
    return ScoredRow(Example.of_sides(chosen.example, rejected.example), columns, truncated, notes)


def _with_earlier(scored: ScoredRow, earlier: EarlierScores) -> ScoredRow:
    """Add a row's earlier columns, except those computed now."""
    both = {**earlier.columns, **scored.columns}
    notes = {name: why for name, why in earlier.notes.items() if name not in scored.columns} | scored.notes
    truncated = tuple(dict.fromkeys((*earlier.truncated, *scored.truncated)))
    in_order = {name: both[name] for name in sorted(both, key=_PLACE.__getitem__)}
    return ScoredRow(scored.example, in_order, truncated, dict(sorted(notes.items(), key=_place_of)))


def _place_of(note: tuple[str, str]) -> int:
    return _PLACE.get(note[0], len(_PLACE))


def _term(window: ScoredWindow, column: str) -> NDArray[np.float64]:
    """Return a column's values, float64 (examples,), computed now or earlier; NaN where undefined."""
    if column in window.columns:
        return _or_nan(window.columns[column].values)
    values = []
    for example in window.examples:
        name = f"{example.side}.{column}" if example.side else column
        value = example.scores.columns.get(name) if example.scores is not None else None
        values.append(np.nan if value is None else value)
    return np.array(values, dtype=np.float64)


def _row_at(examples: Sequence[Example], place: int) -> Example:
    """Return the row whose example, or whose chosen side, is at this place."""
    example = examples[place]
    return Example.of_sides(example, examples[place + 1]) if example.side == "chosen" else example


def _values(column: Column, name: str, notes: dict[int, dict[str, str]]) -> list[ColumnValue]:
    """Return the values for rows; adds the reason of each undefined one to its row's notes."""
    finite = np.isfinite(column.values)
    numbers = np.where(finite, column.values, 0)
    values: list[ColumnValue] = (numbers.astype(np.int64) if column.whole else numbers).tolist()
    for row in np.flatnonzero(~finite).tolist():
        values[row] = None
        notes.setdefault(row, {})[name] = column.notes.get(row, "not a finite number")
    return values


def _or_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


def _selected(column: Column, rows: NDArray[np.int64]) -> Column:
    notes = {new: column.notes[old] for new, old in enumerate(rows.tolist()) if old in column.notes}
    return replace(column, values=column.values[rows], notes=notes)


def _finite(measured: Measurements) -> NDArray[np.bool_]:
    """Return which rows have only finite model outputs, (rows,)."""
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
    for row, example in enumerate(measured.examples):
        if example.side == "rejected":
            finite[row - 1 : row + 1] = finite[row - 1 : row + 1].all()
    return finite
