"""Options of neighbour distances: which neighbours a row has, and how distances are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Literal, TypeAlias, get_args

from instructmining.errors import RuleError
from instructmining.errors.arguments import check_type
from instructmining.errors.names import no_such
from instructmining.indicators.plan import DocumentText
from instructmining.reading.formats import FieldOptions
from instructmining.reading.options import ReadOptions

Search: TypeAlias = Literal["exact", "approx"]
Metric: TypeAlias = Literal["euclidean", "cosine"]


@dataclass(frozen=True, slots=True)
class KnnOptions:
    """Which neighbours a row has, and how distances are measured."""

    search: Search = "exact"  # "approx": by an index whose recall is measured; differs between runs
    metric: Metric = "euclidean"  # between unit vectors; "cosine": 1 − cosine, half of the squared distance
    text: DocumentText = "document"  # what of each row is embedded: all of it, its "prompt" or its "response"
    pool: str | None = None  # a field; neighbours are the rows with the same value. None: all rows of the run
    against: str | None = None  # a file or folder whose rows are the neighbours, instead of the run's rows
    against_options: ReadOptions | None = None  # how these rows are read
    against_fields: FieldOptions | None = None  # how their fields are read

    def __post_init__(self) -> None:
        """Check that the options are valid together.

        Raises:
            RuleError: a word is not known, or options contradict each other.
        """
        check_type("knn: pool", self.pool, (str, NoneType), wanted="a field's name", error=RuleError)
        check_type("knn: against", self.against, (str, Path, NoneType), wanted="the path of a file", error=RuleError)
        for value, words in ((self.search, Search), (self.metric, Metric), (self.text, DocumentText)):
            if value not in get_args(words):
                raise RuleError(f"knn: {value!r} is not known; wanted {', '.join(get_args(words))}")
        if self.pool is not None and self.against is not None:
            raise RuleError("knn: neighbours come from a pool of the run's rows or from another file; give one of them")
        if self.search == "approx" and (self.pool is not None or self.against is not None):
            raise RuleError("knn: an approximate search covers all rows of the run; search pools and files exactly")

    def check_pool(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Check, before all rows are scored, that rows have the field of the pools.

        Args:
            rows: fields of the first rows of the run; empty for an example that came from no row.

        Raises:
            RuleError: none of them has the field.
        """
        if self.pool is None or not rows or any(self.pool in fields for fields in rows):
            return
        first = f"the first {len(rows)} rows" if len(rows) > 1 else "the first row"
        missing = no_such("field", self.pool, chain.from_iterable(rows))
        raise RuleError(f"pool (--pool), in {first}: {missing}")
