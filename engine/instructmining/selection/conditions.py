"""Conditions on a column, as ``perplexity<=30``: a name, a comparison and a number."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.arguments import check_type
from instructmining.errors import SelectionError

_Compare: TypeAlias = Callable[[NDArray[np.float64], float], NDArray[np.bool_]]

_COMPARISONS: Mapping[str, _Compare] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_FORM = re.compile(r"\s*([^<>=!]+?)\s*(<=|>=|==|!=|<|>)\s*([^<>=!\s]+)\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """What a row's number in a column must be."""

    column: str  # without prefix where it is one of ours
    comparison: str
    number: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read NAME OP NUMBER, OP one of <, <=, >, >=, == and !=.

        Raises:
            SelectionError: it is not of that form.
        """
        check_type("condition", text, str, wanted="text: NAME OP NUMBER", error=SelectionError)
        form = _FORM.fullmatch(text)
        try:
            number = float(form[3]) if form else math.nan
        except ValueError:
            number = math.nan
        if form is None or not math.isfinite(number):
            raise SelectionError(f"condition {text!r}: wanted NAME OP NUMBER with OP one of <, <=, >, >=, ==, !=")
        return cls(form[1], form[2], number)

    def __str__(self) -> str:
        """As it is written, without spaces."""
        number = int(self.number) if self.number.is_integer() and abs(self.number) < 2**53 else self.number
        return f"{self.column}{self.comparison}{number}"

    def passes(self, numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the numbers, float64 (rows,), it holds for; never for NaN, which stands for null."""
        return _COMPARISONS[self.comparison](numbers, self.number) & ~np.isnan(numbers)
