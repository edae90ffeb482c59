"""Rows in memory to rows: dicts as a JSON file has them, each as the bytes of one object.

Values that JSON has not are written as :mod:`~instructmining.reading.arrow_values` writes them; arrays and scalars of
numpy as the values that they hold, what pandas calls missing as null.
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

OBJECTS = "rows"  # how messages call rows in memory
_KEPT = 1000  # bytes kept of a row that is too long
_MISSING = ("NAType", "NaTType")  # of pandas, which is not imported for it
# Of numpy, which Python's times do not hold.
_FINE_UNITS = frozenset(f"{kind}8[{unit}]" for kind in "mM" for unit in ("ns", "ps", "fs", "as"))

Object: TypeAlias = Mapping[str, object]


def is_objects(source: object) -> TypeGuard[Sequence[Object]]:
    """Whether it is a list of rows, by its first item."""
    return isinstance(source, Sequence) and len(source) > 0 and isinstance(source[0], Mapping)


class ObjectRows:
    """Rows of a list of dicts in order, those that JSON cannot hold as rejects.

    Attributes:
        path: "rows".
        blank: 0.
        bytes_total: None.
        bytes_read: 0.
    """

    def __init__(self, objects: Iterable[Object], *, max_row_bytes: int) -> None:
        """Take rows; of a list each item is looked at now.

        Args:
            objects: dicts; an iterator is read once.
            max_row_bytes: a row that is longer as JSON is a reject.

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

    @property
    def once(self) -> bool:
        """Whether it is an iterator, which is gone when it was read."""
        return not isinstance(self._objects, Sequence)

    @property
    def rows_total(self) -> int | None:
        """Rows; None of an iterator."""
        return len(self._objects) if isinstance(self._objects, Sequence) else None

    def begin_at(self, line: int, offset: int) -> None:  # noqa: ARG002 - the row's number, which is one more
        """Begin with a row that was met before, so many rows behind the first."""
        self._begin = offset

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or the reject that stands for it.

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
    """The bytes of the fields that JSON holds, and why it does not hold the others."""
    held: dict[str, object] = {}
    reasons = []
    for name, value in item.items():
        try:
            held |= loads(dumps({name: value}, default=_other))
        except (TypeError, orjson.JSONDecodeError) as error:  # orjson's error, its cause that of the value
            reasons.append(f"field {name!r}: {first_line(error.__cause__ or error)}")
    return dumps(held), "; ".join(reasons)


def _other(value: object) -> object:
    """A value that JSON has not, as it is written; for orjson, which asks for each.

    Raises:
        TypeError: it is of a kind that is not written.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (np.ndarray, np.generic)):
        fine = value.dtype.str[1:] in _FINE_UNITS
        return (value.astype(f"{value.dtype.kind}8[us]") if fine else value).tolist()
    if type(value).__name__ in _MISSING:
        return None
    return written(value)
