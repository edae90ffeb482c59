"""Which rows of a scored file are wanted, and what is written beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from types import NoneType

from instructmining.arguments import check_type
from instructmining.errors import SelectionError
from instructmining.rules import Rule
from instructmining.selection.conditions import Condition
from instructmining.selection.near_duplicates import Distinct


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows to keep: at least one of the fields but ``group_by``; a row is kept that is within all of them.

    ``where`` and ``quotas`` say which rows are candidates; rows without a value to order by are none. ``top``,
    ``fraction``, ``max_loss`` and ``tokens`` each keep the first of the candidates in their order. With ``distinct`` a
    near duplicate of a row that was kept does not count, and the next one takes its place.
    """

    top: int | None = None  # rows, in each group where there are groups
    fraction: float | None = None  # of the candidates (in each group), 0..1, rounded to the nearest row
    max_loss: float | None = None  # keep rows whose value is at most this
    # Most tokens of prompts and responses together (``input_length`` + ``output_length``): rows are taken in order up
    # to the first that would exceed it, also over all groups. Nothing behind that is tried, which would fill the rest
    # with short rows from far down; so a smaller budget always keeps a part of what a larger one does.
    tokens: int | None = None
    where: Sequence[str] = ()  # conditions, as "perplexity<=30"; null passes none
    group_by: str | None = None  # a column whose values are the groups: text, numbers as JSON writes them, or "null"
    # Group → rows, in place of top and fraction; a group without one keeps what these say, and nothing without them.
    quotas: Mapping[str, int] = field(default_factory=dict)
    distinct: Distinct | None = None  # leave out rows too close to one that is better and kept

    def __post_init__(self) -> None:
        """Check that there is a choice, and each part of it.

        Raises:
            SelectionError: nothing is chosen by, a part is out of range, or a condition cannot be read.
        """
        for name, value, kind in (
            ("top", self.top, int),
            ("tokens", self.tokens, int),
            ("fraction", self.fraction, Real),
            ("max_loss", self.max_loss, Real),
        ):
            check_type(name, value, (kind, NoneType), wanted="a number or None", error=SelectionError)
        check_type("where", self.where, (list, tuple), wanted="a list: ['mtld>=5']", error=SelectionError)
        check_type("group_by", self.group_by, (str, NoneType), wanted="a column's name", error=SelectionError)
        check_type("quotas", self.quotas, Mapping, wanted="a dict of group: rows", error=SelectionError)
        check_type("distinct", self.distinct, (Distinct, NoneType), wanted="a Distinct", error=SelectionError)
        ways = (self.top, self.fraction, self.max_loss, self.tokens, self.distinct)
        if not any(way is not None for way in ways) and not self.where and not self.quotas:
            raise SelectionError(
                "give at least one of top, fraction, max_loss, tokens, where, quotas (--quota) and distinct"
            )
        for name, count in (("top", self.top), ("tokens", self.tokens)):
            if count is not None and count < 1:
                raise SelectionError(f"{name} is {count}, wanted at least 1")
        if self.max_loss is not None and math.isnan(self.max_loss):
            raise SelectionError("max_loss is nan, wanted a number")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise SelectionError(f"fraction is {self.fraction}, wanted more than 0 and at most 1")
        if self.quotas and self.group_by is None:
            raise SelectionError("quotas are of groups: give group_by (--group-by), the column whose values they name")
        for name, count in self.quotas.items():
            check_type(f"quota of {name!r}", count, int, wanted="a number of rows", error=SelectionError)
            if count < 0:
                raise SelectionError(f"quota of {name!r} is {count}, wanted at least 0")
        _ = self.conditions

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """``where``, read."""
        return tuple(map(Condition.parse, self.where))

    def has_room(self, group: str) -> bool:
        """Whether anything says how many rows of a group are kept, or nothing limits groups."""
        return not self.quotas or group in self.quotas or self.top is not None or self.fraction is not None

    def room(self, group: str, candidates: int) -> int:
        """How many rows of a group of so many candidates are kept at most."""
        if group in self.quotas:
            return min(self.quotas[group], candidates)
        if not self.has_room(group):
            return 0
        of_fraction = candidates if self.fraction is None else math.floor(self.fraction * candidates + 0.5)
        return min(candidates if self.top is None else self.top, of_fraction, candidates)

    def as_json(self) -> dict[str, object]:
        """For the selection file."""
        return {
            "top": self.top,
            "fraction": self.fraction,
            "max_loss": self.max_loss,
            "tokens": self.tokens,
            "where": [str(condition) for condition in self.conditions],
            "group_by": self.group_by,
            "quotas": dict(self.quotas),
            "distinct": None
            if self.distinct is None
            else {
                "distance": self.distinct.distance,
                "metric": "euclidean between unit vectors",
                "format": self.distinct.format,
                "encoder": dict(self.distinct.encoder),
            },
        }


@dataclass(frozen=True, slots=True)
class Extras:
    """Files that are written beside OUT."""

    explain: str | Path | None = None  # a JSON line for each row of the scored file, in its order
    rule: str | Path | Rule | None = None  # whose terms are explained; by default the run file of the scored file's
    random_baseline: str | Path | None = None  # as many rows as are kept, at random from all that have a value
    seed: int = 0  # of the baseline

    def __post_init__(self) -> None:
        """Check the seed.

        Raises:
            SelectionError: it is negative, or no number.
        """
        check_type("seed", self.seed, int, wanted="a whole number", error=SelectionError)
        if self.seed < 0:
            raise SelectionError(f"seed is {self.seed}, wanted at least 0")
