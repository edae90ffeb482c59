"""Which rows of a scored file are wanted, and what is written beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from types import NoneType

from instructmining.errors import SelectionError
from instructmining.errors.arguments import check_type, shown
from instructmining.rules import Rule
from instructmining.scored.selection.conditions import Condition
from instructmining.scored.selection.near_duplicates import Distinct

check = partial(check_type, error=SelectionError)
_MOST_CONDITIONS = 10_000  # each has two verdicts, and these are numbered in 16 bits
_LARGEST = 2**63 - 1  # whole number that the selection file holds


@dataclass(frozen=True, slots=True)
class SelectionOptions:
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
    conditions: tuple[Condition, ...] = field(init=False, repr=False, compare=False)  # ``where``, read

    def __post_init__(self) -> None:
        """Check that there is a choice, and each part of it.

        Raises:
            SelectionError: nothing is chosen by, a part is of another type or out of range, or a condition cannot be
                read.
        """
        self._check_types()
        ways = (self.top, self.fraction, self.max_loss, self.tokens, self.distinct)
        if not any(way is not None for way in ways) and not self.where and not self.quotas:
            raise SelectionError(
                "give at least one of top, fraction, max_loss, tokens, where, quotas (--quota) and distinct"
            )
        for name, count in (("top", self.top), ("tokens", self.tokens)):
            if count is not None:
                _check_range(name, count, least=1)
        if self.max_loss is not None and math.isnan(self.max_loss):
            raise SelectionError("max_loss is nan, wanted a number")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise SelectionError(f"fraction is {self.fraction}, wanted more than 0 and at most 1")
        if self.quotas and self.group_by is None:
            raise SelectionError("quotas are of groups: give group_by (--group-by), the column whose values they name")
        for name, count in self.quotas.items():
            _check_range(f"quota of {name!r}", count, least=0)
        object.__setattr__(self, "conditions", tuple(map(Condition.parse, self.where)))

    def _check_types(self) -> None:
        check("top", self.top, (Integral, NoneType), wanted="a whole number of rows")
        check("fraction", self.fraction, (Real, NoneType), wanted="a share, 0..1")
        check("max_loss", self.max_loss, (Real, NoneType), wanted="a number")
        check("tokens", self.tokens, (Integral, NoneType), wanted="a whole number of tokens")
        check("group_by", self.group_by, (str, NoneType), wanted="the name of a column")
        check("distinct", self.distinct, (Distinct, NoneType), wanted="a Distinct, as Distinct(0.3, scorer)")
        check("where", self.where, (list, tuple), wanted="a list of conditions, as ['perplexity<=30']")
        if len(self.where) > _MOST_CONDITIONS:
            raise SelectionError(f"where has {len(self.where):,} conditions, wanted at most {_MOST_CONDITIONS:,}")
        for condition in self.where:
            check("where", condition, str, wanted="conditions as text, as 'perplexity<=30'")
        check("quotas", self.quotas, Mapping, wanted="a mapping of groups to rows, as {'science': 100}")
        for group, rows in self.quotas.items():
            check("quotas", group, str, wanted="groups as text")
            check(f"quota of {group!r}", rows, Integral, wanted="a whole number of rows")

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
        """Check the types, and the seed.

        Raises:
            SelectionError: one is of another type, or the seed is negative.
        """
        check("explain", self.explain, (str, Path, NoneType), wanted="a path")
        check("random_baseline", self.random_baseline, (str, Path, NoneType), wanted="a path")
        check("rule", self.rule, (str, Path, Rule, NoneType), wanted="the name of a rule, a path or a Rule")
        check("seed", self.seed, Integral, wanted="a whole number")
        _check_range("seed", self.seed, least=0)


def _check_range(name: str, count: int, *, least: int) -> None:
    if count < least:
        raise SelectionError(f"{name} is {count}, wanted at least {least}")
    if count > _LARGEST:
        raise SelectionError(f"{name} is {shown(count)}, wanted at most {_LARGEST}")
