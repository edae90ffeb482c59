"""Options of a selection: which rows to keep, and which further files to write."""

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
_MOST_CONDITIONS = 10_000  # each has two verdicts, which are numbers of 16 bits
_LARGEST = 2**63 - 1  # largest integer of the selection file


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """Which rows to keep; needs at least one field other than ``group_by``. All limits hold together.

    ``where`` and ``quotas`` restrict the candidates; rows without a value to order by are never candidates. ``top``,
    ``fraction``, ``max_loss`` and ``tokens`` each keep the first candidates in order. With ``distinct``, near
    duplicates of a kept row are skipped, and the next rows take their places.
    """

    top: int | None = None  # rows; with groups, in each group
    fraction: float | None = None  # of the candidates, with groups in each group; 0..1, rounded to the nearest row
    max_loss: float | None = None  # largest value to keep
    # Most tokens of all prompts and responses (``input_length`` + ``output_length``): rows are kept in order up to the
    # first that would exceed it. Later rows are not tried: that would fill the rest with short rows of a low rank. So a
    # smaller budget always keeps a part of what a larger one does.
    tokens: int | None = None
    where: Sequence[str] = ()  # conditions such as "perplexity<=30"; null passes none
    group_by: str | None = None  # column whose values name the groups: text, numbers as in JSON, or "null"
    # Group → rows, instead of top and fraction, which hold for groups without a quota; without them these keep none.
    quotas: Mapping[str, int] = field(default_factory=dict)
    distinct: Distinct | None = None  # leave out rows too close to a better one that is kept
    conditions: tuple[Condition, ...] = field(init=False, repr=False, compare=False)  # ``where``, parsed

    def __post_init__(self) -> None:
        """Check the options, and parse the conditions.

        Raises:
            SelectionError: nothing limits the selection, an option has the wrong type or is out of range, or a
                condition cannot be parsed.
        """
        self._check_types()
        ways = (self.top, self.fraction, self.max_loss, self.tokens, self.distinct)
        if not any(way is not None for way in ways) and not self.where and not self.quotas:
            raise SelectionError("give at least one of top, fraction, max_loss, tokens, where, quotas and distinct")
        for name, count in (("top", self.top), ("tokens", self.tokens)):
            if count is not None:
                _check_range(name, count, least=1)
        if self.max_loss is not None and math.isnan(self.max_loss):
            raise SelectionError("max_loss is nan, wanted a number")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise SelectionError(f"fraction is {self.fraction}, wanted more than 0 and at most 1")
        if self.quotas and self.group_by is None:
            raise SelectionError("quotas need groups: give group_by (--group-by), the column whose values they name")
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
        """Return whether a group has a quota, or needs none."""
        return not self.quotas or group in self.quotas or self.top is not None or self.fraction is not None

    def room(self, group: str, candidates: int) -> int:
        """Return the most rows to keep of a group with so many candidates."""
        if group in self.quotas:
            return min(self.quotas[group], candidates)
        if not self.has_room(group):
            return 0
        fraction_rows = candidates if self.fraction is None else math.floor(self.fraction * candidates + 0.5)
        return min(candidates if self.top is None else self.top, fraction_rows, candidates)

    def as_json(self) -> dict[str, object]:
        """Return the options as the selection file has them."""
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
    """Further files to write with OUT."""

    explain: str | Path | None = None  # a file with a JSON line for each row of the scored file, in order
    rule: str | Path | Rule | None = None  # rule to explain; by default the one in the scored file's run file
    random_baseline: str | Path | None = None  # a file with as many rows as are kept, at random from all with a value
    seed: int = 0  # seed of the baseline

    def __post_init__(self) -> None:
        """Check the types and the seed.

        Raises:
            SelectionError: a type is wrong, or the seed is out of range.
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
