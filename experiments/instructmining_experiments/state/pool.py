"""The pool of an experiment: its rows with the columns that ``design`` scored, once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle.digests import sha256_of
from instructmining.errors import InputError
from instructmining.reading.examples import read_examples
from instructmining.types import Example
from instructmining_experiments.state.plan import Plan

SCORED = "scored.jsonl"
LENGTHS = ("input_length", "output_length")


@dataclass(frozen=True, slots=True)
class Pool:
    """The scored pool, whose rows are named by their number from 0."""

    examples: Sequence[Example]
    columns: Mapping[str, NDArray[np.float64]]  # (rows,), NaN where a value is null

    @classmethod
    def read(cls, file: Path, columns: Iterable[str]) -> Pool:
        """Read a scored file.

        Args:
            file: that ``score`` wrote.
            columns: to read, besides the lengths.

        Raises:
            InputError: it cannot be read, or lacks a column.
        """
        examples = list(read_examples(file))
        fields = [example.scores.columns if example.scores is not None else {} for example in examples]
        names = list(dict.fromkeys([*LENGTHS, *columns]))
        if missing := [name for name in names if fields and name not in fields[0]]:
            raise InputError(f"{file}: has no column {missing[0]!r}")
        return cls(examples, {name: np.array([_number(row.get(name)) for row in fields]) for name in names})

    @classmethod
    def of_plan(cls, folder: Path, plan: Plan) -> Pool:
        """Read the scored pool of a plan.

        Raises:
            InputError: it is missing or is not the one that the plan was drawn from.
        """
        file = folder / SCORED
        if not file.is_file():
            raise InputError(f"{folder}: has a plan but not its {SCORED}; design it again in another folder")
        if sha256_of(file) != plan.scored_sha256:
            raise InputError(f"{file}: is not the scored pool that the plan was drawn from")
        return cls.read(file, plan.indicators)

    def valued(self) -> NDArray[np.bool_]:
        """Return whether each row has a value in every column, (rows,)."""
        return np.asarray(np.isfinite(np.stack(list(self.columns.values()))).all(axis=0))

    @property
    def tokens(self) -> NDArray[np.float64]:
        """Tokens of prompt and response of each row, (rows,)."""
        return self.columns[LENGTHS[0]] + self.columns[LENGTHS[1]]


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
