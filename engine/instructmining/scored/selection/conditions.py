"""Conditions on a column, such as ``perplexity<=30`` or ``category==science``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import SelectionError
from instructmining.errors.arguments import check_type
from instructmining.types import SourceRow

_Compare: TypeAlias = Callable[[Any, Any], Any]  # of two numbers, two texts, or an array and a number

_COMPARISONS: Mapping[str, _Compare] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_OF_TEXT = frozenset({"==", "!="})
_FORM = re.compile(r"([^<>=!]+)(<=|>=|==|!=|<|>)(.+)", re.DOTALL)
_WHOLE = re.compile(r"[+-]?[0-9]+")
_QUOTED = re.compile(r"([\"'])(.*)\1", re.DOTALL)
_NUMBERS = frozenset({int, float, type(None)})
_SHOWN = 200  # characters of a condition in a message
_EXACT = 2**53  # all integers up to it are exact as floats


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a row's value in a column.

    Numbers are compared with ``number``; text, true and false with ``text``. Values of different types are not equal,
    and null never passes.
    """

    column: str  # without prefix for a column of ``score``
    comparison: str
    text: str  # the value as written, without quotes
    number: int | float | None  # the value, if it is a finite number without quotes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse NAME OP VALUE, with OP one of <, <=, >, >=, == and !=; text allows only == and !=.

        Raises:
            SelectionError: the text has another form.
        """
        check_type("condition", text, str, wanted="text: NAME OP NUMBER", error=SelectionError)
        form = _FORM.fullmatch(text)
        column, comparison, value = (part.strip() for part in form.groups()) if form is not None else ("", "", "")
        if not column or not value or value[0] in "<>=!":
            raise SelectionError(
                f"condition {_short(text)!r}: wanted NAME OP VALUE with OP one of <, <=, >, >=, ==, != and VALUE a "
                "number or, for == and !=, text"
            )
        quoted = _QUOTED.fullmatch(value)
        number = None if quoted else _finite(value)
        if comparison in _OF_TEXT:
            return cls(column, comparison, quoted[2] if quoted else value, number)
        if number is None:
            raise SelectionError(
                f"condition {_short(text)!r}: {comparison} compares numbers, and {_short(value)!r} is none; text is "
                "compared only with == and !="
            )
        return cls(column, comparison, _written(number), number)

    def __str__(self) -> str:
        """Return a text that :meth:`parse` reads, without spaces around the comparison."""
        text = self.text
        if self.number is None and (_finite(text) is not None or text != text.strip() or text[:1] in {*"<>=!\"'", ""}):
            text = f'"{text}"'
        return f"{self.column}{self.comparison}{text}"

    def passes(self, rows: Sequence[SourceRow], field: str) -> NDArray[np.bool_]:
        """Return which rows fulfil the condition, (rows,).

        Args:
            rows: rows of a scored file.
            field: field that holds the column.

        Raises:
            SelectionError: a row has text where numbers are ordered, or a list or an object.
        """
        values = [row.fields.get(field) for row in rows]
        if self.number is not None and abs(self.number) <= _EXACT and _are_floats(values):
            numbers = np.array(values, dtype=np.float64)  # None becomes NaN
            passed: NDArray[np.bool_] = _COMPARISONS[self.comparison](numbers, self.number) & ~np.isnan(numbers)
            return passed
        return np.array([self._holds(*pair, field) for pair in zip(values, rows, strict=True)], dtype=np.bool_)

    def _holds(self, value: object, row: SourceRow, field: str) -> bool:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return False
        compare = _COMPARISONS[self.comparison]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self.comparison == "!=" if self.number is None else bool(compare(value, self.number))
        if isinstance(value, str | bool) and self.comparison in _OF_TEXT:
            return bool(compare(value if isinstance(value, str) else str(value).lower(), self.text))
        wanted = "a number or text" if self.comparison in _OF_TEXT else "a number: text is compared only with == and !="
        raise SelectionError(
            f"{row.source}, line {row.line}: column {field!r} is {str(value)[:60]!r}, wanted {wanted} "
            f"(condition {str(self)!r})"
        )


def _are_floats(values: Sequence[object]) -> bool:
    """Return whether all are None or numbers that a float holds exactly."""
    kinds = set(map(type, values))
    if not kinds <= _NUMBERS:
        return False
    return int not in kinds or all(-_EXACT <= value <= _EXACT for value in values if type(value) is int)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _finite(text: str) -> int | float | None:
    """Parse a number, integers of any size exactly; None where the text is no finite number."""
    try:
        number = int(text) if _WHOLE.fullmatch(text) else float(text)
    except ValueError:
        return None
    return number if (isinstance(number, int) or math.isfinite(number)) and "_" not in text else None


def _written(number: float) -> str:
    return str(int(number) if isinstance(number, float) and number.is_integer() and abs(number) < _EXACT else number)
