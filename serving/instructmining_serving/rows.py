"""Rows of a request: windows that are scored together, why rows are refused, and results as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeAlias

from instructmining.errors import InputError, InstructMiningError
from instructmining.reading.conversations import kind_of
from instructmining.reading.examples import read_examples
from instructmining.reading.formats import FieldOptions, field_names, lacking_one
from instructmining.types import Example, InputWindow, Reject, ScoredRow

Row: TypeAlias = Mapping[str, object]
_FIELDS = FieldOptions(unread="count")  # each row's result names the text that is not read


class RowsRefusedError(InstructMiningError):
    """Rows of a request cannot be scored."""

    def __init__(self, reasons: Sequence[tuple[int, str]]) -> None:
        """Take the number of each bad row, from 0, and why it is bad."""
        first, why = reasons[0]
        more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        super().__init__(f"row {first}: {why}{more}")
        self.reasons = tuple(reasons)


def window_of(rows: Sequence[Row], fields: FieldOptions) -> InputWindow:
    """Return rows of one format, as of a JSON file, as a window; rows without an example are rejects in it.

    Raises:
        InputError: they are in no known format.
    """
    windows = read_examples(rows, fields=fields).windows(len(rows)) if rows else ()
    return InputWindow([item for window in windows for item in window.items])


def window_of_each(rows: Sequence[object]) -> InputWindow:
    """Return rows as a window, each in a format of its own; what holds no example is a reject in it.

    Args:
        rows: values of JSON; one that is no object is a reject.
    """
    items: list[Example | Reject] = []
    for _, alike in groupby(rows, _signature):
        of_one_kind = list(alike)
        items += [_placed(item, len(items) + place) for place, item in enumerate(_items(of_one_kind))]
    return InputWindow(items)


def _signature(row: object) -> tuple[tuple[str, type, bool], ...] | None:
    """Return what the format of a row is detected by, so that it is detected once for rows that follow each other."""
    if not isinstance(row, Mapping):
        return None
    return tuple((name, type(value), bool(value)) for name, value in row.items())


def _items(rows: Sequence[object]) -> Sequence[Example | Reject]:
    """Return rows with the same signature."""
    objects = [row for row in rows if isinstance(row, Mapping)]
    if not objects:
        return [_reject(f"found {kind_of(row)}, wanted an object") for row in rows]
    try:
        return window_of(objects, _FIELDS).items
    except InputError:
        return [_without_format(row) for row in objects]


def _without_format(row: Row) -> Example | Reject:
    """Return a row in no known format with what it lacks, in a few words."""
    if (nearest := lacking_one(row)) is not None:
        return window_of([row], replace(_FIELDS, format=nearest)).items[0]
    return _reject(
        f"no known format; fields found: {field_names(row)}; wanted for example instruction and output, prompt and "
        "response, or messages"
    )


def _reject(reason: str) -> Reject:
    return Reject("rows", 1, 0, reason, b"")


def _placed(item: Example | Reject, place: int) -> Example | Reject:
    """Return an item that says its place among all rows, from 0."""
    if isinstance(item, Reject):
        return replace(item, line=place + 1)
    return item if item.row is None else replace(item, row=replace(item.row, line=place + 1))


def reason_of(reject: Reject) -> tuple[int, str]:
    """Return the number of a row in its window, from 0, and why it is bad."""
    return reject.line - 1, reject.reason


def result_of(row: ScoredRow) -> dict[str, object]:
    """Return a row's result as JSON."""
    return {
        "columns": row.columns,
        "score_notes": row.notes,
        "truncated": list(row.truncated),
        "unread": list(row.example.unread),
    }
