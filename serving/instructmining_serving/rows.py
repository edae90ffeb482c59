"""Rows of a request as windows that are scored together, and why rows are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeAlias

from instructmining.errors import InputError, InstructMiningError
from instructmining.reading.examples import read_examples
from instructmining.reading.formats import FieldOptions
from instructmining.types import Example, InputWindow, Reject

Row: TypeAlias = Mapping[str, object]
_USUAL = FieldOptions()


class RowsRefusedError(InstructMiningError):
    """Rows of a request cannot be scored."""

    def __init__(self, reasons: Sequence[tuple[int, str]]) -> None:
        """Take the number of each bad row, from 0, and why it is bad."""
        first, why = reasons[0]
        more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        super().__init__(f"row {first}: {why}{more}")
        self.reasons = tuple(reasons)


def window_of(rows: Sequence[Row], fields: FieldOptions = _USUAL) -> InputWindow:
    """Return rows of one format, as of a JSON file, as a window; rows without an example are rejects in it.

    Raises:
        InputError: they are in no known format.
    """
    windows = read_examples(rows, fields=fields).windows(len(rows)) if rows else ()
    return InputWindow([item for window in windows for item in window.items])


def accepted_window(rows: Sequence[Row]) -> InputWindow:
    """Return the same of a request's rows.

    Raises:
        RowsRefusedError: they are in no known format.
    """
    try:
        return window_of(rows)
    except InputError as error:
        raise RowsRefusedError([(0, str(error))]) from error


def window_of_each(rows: Sequence[Row]) -> InputWindow:
    """Return rows as a window, each in a format of its own; rows without an example are rejects in it."""
    items: list[Example | Reject] = []
    for _, alike in groupby(rows, _signature):
        of_one_kind = list(alike)
        items += [_placed(item, len(items) + place) for place, item in enumerate(_items(of_one_kind))]
    return InputWindow(items)


def _signature(row: Row) -> tuple[tuple[str, type], ...]:
    """Return what the format of a row is detected by, so that it is detected once for rows that follow each other."""
    return tuple((name, type(value)) for name, value in row.items())


def _items(rows: Sequence[Row]) -> Sequence[Example | Reject]:
    try:
        return window_of(rows).items
    except InputError as error:
        if len(rows) > 1:
            return [item for row in rows for item in _items([row])]
        return [Reject("rows", 1, 0, str(error), b"")]


def _placed(item: Example | Reject, place: int) -> Example | Reject:
    """Return an item that says its place among all rows, from 0."""
    if isinstance(item, Reject):
        return replace(item, line=place + 1)
    return item if item.row is None else replace(item, row=replace(item.row, line=place + 1))


def reason_of(reject: Reject) -> tuple[int, str]:
    """Return the number of a row in its window, from 0, and why it is bad."""
    return reject.line - 1, reject.reason
