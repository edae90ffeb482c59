"""Reads rows in memory: dicts as in a JSON file, each converted to the bytes of one object.

Values that JSON lacks are converted as in :mod:`~instructmining.reading.arrow_values`; numpy arrays and scalars become
the values that they hold, missing values of pandas become null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeAlias, TypeGuard

import numpy as np
import orjson

from instructmining.errors import InputError
from instructmining.errors.arguments import shown
from instructmining.reading.arrow_values import first_line, written
from instructmining.reading.values import dumps, loads
from instructmining.types import Reject, RowOrReject, SourceRow

OBJECTS = "rows"  # the name of rows in memory in messages
_KEPT = 1000  # bytes kept of a row that is too long
_MISSING = ("NAType", "NaTType")  # type names of pandas, so that it need not be imported
# Units of numpy that are finer than Python's times.
_FINE_UNITS = frozenset(f"{kind}8[{unit}]" for kind in "mM" for unit in ("ns", "ps", "fs", "as"))

Object: TypeAlias = Mapping[str, object]


def is_objects(source: object) -> TypeGuard[Sequence[Object]]:
    """Return whether an object is a list of rows, by its first item."""
    return isinstance(source, Sequence) and len(source) > 0 and isinstance(source[0], Mapping)


class ObjectRows:
    """Rows of a list of dicts in order; rows that JSON cannot hold are rejects.

    Attributes:
        path: "rows".
        blank: 0.
        bytes_total: None.
        bytes_read: 0.
    """

    def __init__(self, objects: Iterable[Object], *, max_row_bytes: int) -> None:
        """Create a reader; the items of a list are checked at once.

        Args:
            objects: the rows as dicts; an iterator is read once.
            max_row_bytes: a row longer than this as JSON is a reject.

        Raises:
            InputError: an item of the list is no dict.
        """
        self.path = OBJECTS
        self.blank = 0
        self.bytes_total: int | None = None
        self.bytes_read = 0
        self._objects = objects
        self._max_row_bytes = max_row_bytes
        self._begin = 0
        if isinstance(objects, Sequence):
            for number, item in enumerate(objects):
                _check(number, item)

    left_out: Sequence[str] = ()
    of_rows = True
    lines: int | None = None

    @property
    def once(self) -> bool:
        """Whether the rows come from an iterator, which can be read only once."""
        return not isinstance(self._objects, Sequence)

    @property
    def rows_total(self) -> int | None:
        """Number of rows; None for an iterator."""
        return len(self._objects) if isinstance(self._objects, Sequence) else None

    def units_total(self, *, scan: bool) -> int | None:  # noqa: ARG002 - a list knows it, an iterator cannot be read twice
        """Return the number of rows."""
        return self.rows_total

    def begin_at(self, line: int, offset: int) -> None:  # noqa: ARG002 - it is always offset + 1
        """Start at a row met before, with ``offset`` rows before it."""
        self._begin = offset

    def cut(self, begin: int, end: int | None) -> None:  # noqa: ARG002 - whoever reads the rows stops there
        """Leave out the rows before one."""
        self._begin = begin

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or a reject in its place.

        Raises:
            InputError: an item is no dict.
        """
        for number, item in islice(enumerate(self._objects), self._begin, None):
            _check(number, item)
            yield self._made(number, item)

    def _made(self, number: int, item: Object) -> RowOrReject:
        try:
            raw = dumps(dict(item), default=_other)
            if len(raw) <= self._max_row_bytes:
                return SourceRow(self.path, number + 1, number, raw, loads(raw))
            reason = f"row is longer than {self._max_row_bytes} bytes"
        except (TypeError, orjson.JSONDecodeError):
            raw, reason = _by_field(item)
        return Reject(self.path, number + 1, number, reason, raw[:_KEPT])


def _check(number: int, item: object) -> None:
    if not isinstance(item, Mapping):
        raise InputError(f"{OBJECTS}: item {number + 1} is {shown(item)}, wanted a dict, a row as in a JSON file")


def _by_field(item: Object) -> tuple[bytes, str]:
    """Return the bytes of the fields that JSON can hold, and why it cannot hold the others."""
    held: dict[str, object] = {}
    reasons = []
    for name, value in item.items():
        try:
            held |= loads(dumps({name: value}, default=_other))
        except (TypeError, orjson.JSONDecodeError) as error:  # orjson's own error, whose cause is the value's error
            reasons.append(f"field {name!r}: {first_line(error.__cause__ or error)}")
    return dumps(held), "; ".join(reasons)


def _other(value: object) -> object:
    """Convert a value that JSON lacks; orjson calls it for each.

    Raises:
        TypeError: the type has no JSON form.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (np.ndarray, np.generic)):
        fine = value.dtype.str[1:] in _FINE_UNITS
        return (value.astype(f"{value.dtype.kind}8[us]") if fine else value).tolist()
    if type(value).__name__ in _MISSING:
        return None
    return written(value)
