"""Options of a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from types import NoneType

from instructmining.errors import SelectionError
from instructmining.errors.arguments import check_type
from instructmining.reading.formats import FieldOptions
from instructmining.rules import Rule

MOST_EXAMPLES = 50  # of each kind: the page stays readable, and under its size


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What a report shows."""

    prefix: str = ""  # of the columns of ``score``
    rule: str | Path | Rule | None = None  # whose terms are shown; by default the one that the run file names
    by: str | None = None  # column that orders the rows; by default the prediction, or the first indicator there is
    descending: bool = False  # largest values first; only with ``by``
    group_by: str | None = None  # field whose values are the groups; by default one such as source or category
    examples: int = 5  # rows shown of each kind: best, median and worst
    texts: bool = True  # whether rows are quoted at all
    fields: FieldOptions = field(default_factory=FieldOptions)  # how rows become conversations

    def __post_init__(self) -> None:
        """Check the types.

        Raises:
            SelectionError: an option has the wrong type or is out of range.
        """
        text = (str, NoneType)
        check_type("prefix", self.prefix, str, wanted="text", error=SelectionError)
        check_type("by", self.by, text, wanted="the name of a column", error=SelectionError)
        check_type("group_by", self.group_by, text, wanted="the name of a field", error=SelectionError)
        check_type("examples", self.examples, Integral, wanted="a number of rows", error=SelectionError)
        check_type("fields", self.fields, FieldOptions, wanted="FieldOptions", error=SelectionError)
        if not 1 <= self.examples <= MOST_EXAMPLES:
            raise SelectionError(f"examples is {self.examples}, wanted 1 to {MOST_EXAMPLES}; texts=False shows none")
        if self.descending and self.by is None:
            raise SelectionError("descending needs by, the column to sort by")
