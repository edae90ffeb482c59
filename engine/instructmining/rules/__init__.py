"""Linear rules that predict the log loss of a row; the paper's rules ship as JSON files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from numbers import Real
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.errors import RuleError
from instructmining.errors.arguments import check_type
from instructmining.reading.small_files import read_small
from instructmining.writing.atomic import Placement

PRESETS = ("paper-v1", "paper-v3")
_FIELDS = frozenset({"id", "intercept", "terms", "reward_model", "provenance"})


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """A term whose mean in a set lies outside of the range that the rule was fitted on: the prediction extrapolates."""

    column: str
    mean: float
    least: float  # of the means that the rule was fitted on
    most: float

    def __str__(self) -> str:
        """Return one line for messages."""
        return f"{self.column} is {self.mean:.4g}, the rule's runs had {self.least:.4g} to {self.most:.4g}"


@dataclass(frozen=True, slots=True)
class Rule:
    """An intercept plus a weighted sum of indicators, in raw units."""

    id: str
    intercept: float
    terms: Mapping[str, float]  # column → coefficient
    reward_model: str | None = None  # id of the reward model that the rule was fitted with
    provenance: Mapping[str, object] = field(default_factory=dict)
    digest: str = ""  # SHA-256 of the file that it was read from

    def __post_init__(self) -> None:
        """Check the types.

        Raises:
            RuleError: a type is wrong.
        """
        check_type("rule: id", self.id, str, wanted="a name", error=RuleError)
        check_type("rule: intercept", self.intercept, Real, wanted="a number", error=RuleError)
        wanted = 'an object, as {"source": "…"}'
        check_type("rule: provenance", self.provenance, Mapping, wanted=wanted, error=RuleError)
        check_type("rule: terms", self.terms, Mapping, wanted="a dict of column: coefficient", error=RuleError)
        for column, coefficient in self.terms.items():
            check_type(f"rule: {column!r}", coefficient, Real, wanted="a number", error=RuleError)

    @classmethod
    def load(cls, name: str | Path) -> Rule:
        """Load a preset by name, or a JSON file.

        Raises:
            RuleError: there is no such file, or it holds no rule.
        """
        check_type("rule", name, (str, Path), wanted=f"{', '.join(PRESETS)}, a JSON file or a Rule", error=RuleError)
        try:
            if str(name) in PRESETS:
                content = (resources.files("instructmining.rules") / f"{name}.json").read_bytes()
            else:
                content = read_small(name)
        except OSError as error:
            raise RuleError(
                f"rule {str(name)!r}: no preset ({', '.join(PRESETS)}) and no file: {error.strerror}"
            ) from error
        return cls._parse(content, str(name))

    @classmethod
    def _parse(cls, content: bytes, where: str) -> Rule:
        try:
            value = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise RuleError(f"{where}: invalid JSON: {error}") from error
        if not isinstance(value, dict):
            raise RuleError(f"{where}: wanted an object with 'id', 'intercept' and 'terms'")
        if unknown := sorted(value.keys() - _FIELDS):
            raise RuleError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(sorted(_FIELDS))}")
        terms = value.get("terms")
        if not isinstance(terms, dict) or not terms:
            raise RuleError(f"{where}: 'terms' is {terms!r}, wanted an object of column: coefficient")
        provenance = value.get("provenance") or {}
        if not isinstance(provenance, dict):
            raise RuleError(f'{where}: \'provenance\' is {provenance!r}, wanted an object, as {{"source": "…"}}')
        reward_model = value.get("reward_model")
        return cls(
            id=str(value.get("id") or Path(where).stem),
            intercept=_number(value.get("intercept"), f"{where}: 'intercept'"),
            terms={column: _number(coefficient, f"{where}: '{column}'") for column, coefficient in terms.items()},
            reward_model=str(reward_model) if reward_model else None,
            provenance=provenance,
            digest=hashlib.sha256(content).hexdigest(),
        )

    def predict(self, columns: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Predict the log evaluation loss after fine-tuning on rows like each; lower is better.

        Args:
            columns: one float64 (rows,) array per term, in raw units (lengths in tokens, UniEval in 0..1).

        Returns:
            float64 (rows,), natural logarithm of a loss; NaN where a term is NaN, not finite where one is too large.

        Raises:
            RuleError: a term has no column.

        Source:
            Cao et al., arXiv 2307.06290; the version is in ``provenance``.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return self.intercept + sum(self.contributions(columns).values(), start=np.zeros(()))

    def reasons(self, columns: Mapping[str, NDArray[np.float64]], predicted: NDArray[np.float64]) -> dict[int, str]:
        """Return why rows have no prediction, by row: which terms are undefined.

        Args:
            columns: the columns given to :meth:`predict`.
            predicted: its result, (rows,).
        """
        reasons = {}
        for row in np.flatnonzero(np.isnan(predicted)).tolist():
            undefined = [term for term in self.terms if np.isnan(columns[term][row])]
            reasons[row] = f"undefined: {', '.join(undefined)}" if undefined else "not a finite number"
        return reasons

    def contributions(self, columns: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Return what each term adds to the prediction, float64 (rows,) by column; their sum omits the intercept.

        Raises:
            RuleError: a term has no column.
        """
        missing = [column for column in self.terms if column not in columns]
        if missing:
            raise RuleError(f"rule {self.id!r} needs {', '.join(missing)}; the columns are {', '.join(columns)}")
        with np.errstate(over="ignore", invalid="ignore"):
            return {
                column: coefficient * np.asarray(columns[column], dtype=np.float64)
                for column, coefficient in self.terms.items()
            }

    def outside_range(self, means: Mapping[str, float]) -> tuple[OutOfRange, ...]:
        """Return the terms of a set that lie outside of the range that the rule was fitted on.

        Args:
            means: the set's mean of each indicator; a term that is missing or NaN is skipped.

        Returns:
            The terms outside of ``provenance["ranges"]``; none where the rule has no ranges.

        Raises:
            RuleError: the ranges are not pairs of numbers by column.
        """
        ranges = self.provenance.get("ranges", {})
        if not isinstance(ranges, Mapping):
            raise RuleError(f"rule {self.id!r}: 'ranges' is {ranges!r}, wanted an object of column: [least, greatest]")
        found = []
        for term in self.terms:
            if term not in ranges:
                continue
            match ranges[term]:
                case [int() | float() as least, int() | float() as greatest] if least <= greatest:
                    value = means.get(term, math.nan)
                case other:
                    raise RuleError(f"rule {self.id!r}: the range of {term!r} is {other!r}, wanted [least, greatest]")
            if value < least or value > greatest:
                found.append(OutOfRange(term, value, float(least), float(greatest)))
        return tuple(found)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the rule to a file that :meth:`load` reads.

        Args:
            path: path of the file.
            overwrite: replace an existing file.

        Raises:
            OutputError: the file exists, or cannot be written.
        """
        with Placement([path], overwrite=overwrite) as files:
            files.write(path, self.content())
            files.put()

    def content(self) -> bytes:
        """Return the bytes that :meth:`save` writes."""
        return orjson.dumps(self.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def as_json(self) -> dict[str, object]:
        """Return the rule as JSON."""
        return {
            "id": self.id,
            "intercept": self.intercept,
            "terms": dict(self.terms),
            "reward_model": self.reward_model,
            "provenance": dict(self.provenance),
        }


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RuleError(f"{where} is {value!r}, wanted a finite number")
    return float(value)
