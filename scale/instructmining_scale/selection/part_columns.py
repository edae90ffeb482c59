"""The candidates of one part, as a few numbers each, and what all parts must know of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import SelectionError
from instructmining.scored.scored_file import LENGTHS, ScoredRows
from instructmining.scored.selection.options import SelectionOptions
from instructmining.scored.selection.qualifying import Columns, Contents, Verdict
from instructmining_scale.selection.borders import Borders, Counts, Keys, Round, order_keys


@dataclass(frozen=True, slots=True)
class Question:
    """A selection, as all parts are asked it."""

    choice: SelectionOptions
    by: str
    prefix: str
    descending: bool
    keep_scores: bool
    scratch: Path  # a folder that all nodes see
    sample_bytes: int  # of kept rows, for one place of the sample that tells where to cut them into files


@dataclass(frozen=True, slots=True)
class Look:
    """A part to look at."""

    question: Question
    number: int  # of the part, from 0
    path: Path


@dataclass(frozen=True, slots=True)
class Seen:
    """What a part has."""

    contents: Contents
    field: str  # that the rows are ordered by
    verdicts: dict[int, int]  # verdict on rows that are no candidates → rows
    groups: Sequence[str]
    candidates: Sequence[int]  # of each group; of all rows where there are no groups


def look(wanted: Look) -> Seen:
    """Read a part, and keep the numbers of its candidates in the scratch folder.

    Raises:
        InputError: the part cannot be read.
        SelectionError: a row lacks a number, or has lengths that are no numbers of tokens.
    """
    question = wanted.question
    source = ScoredRows(wanted.path, prefix=question.prefix)
    columns = Columns(source, question.choice, question.by)
    rows = np.flatnonzero(columns.verdicts == Verdict.UNDECIDED)
    groups = np.zeros(len(rows), np.int32) if columns.groups is None else columns.groups.of_row[rows]
    lengths = np.zeros(0, np.int64) if columns.lengths is None else _tokens(columns.lengths[rows], source.name)
    np.savez(
        _file(question.scratch, wanted.number), values=columns.values[rows], rows=rows, groups=groups, tokens=lengths
    )
    names = [""] if columns.groups is None else list(columns.groups.names)
    found, counts = np.unique(columns.verdicts[columns.verdicts != Verdict.UNDECIDED], return_counts=True)
    return Seen(
        columns.contents,
        source.field(question.by),
        dict(zip(found.tolist(), counts.tolist(), strict=True)),
        names,
        np.bincount(groups, minlength=len(names)).tolist(),
    )


def _tokens(lengths: NDArray[np.float64], name: str) -> Counts:
    if not ((lengths >= 0) & (lengths < 2**53) & (lengths == np.floor(lengths))).all():
        raise SelectionError(f"{name}: {' + '.join(LENGTHS)} of a row is no whole number of tokens")
    return lengths.astype(np.int64)


def keep_groups(scratch: Path, number: int, numbers: Sequence[int]) -> None:
    """Write which numbers the groups of a part have among all groups."""
    np.save(scratch / f"groups-{number:06}.npy", np.array(numbers, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates of a part whose values are small enough, in the order of its rows."""

    values: NDArray[np.float64]  # (rows,)
    keys: Keys  # (rows,) in the order of the values
    rows: Counts  # (rows,) numbers among the rows of all parts
    groups: Counts  # (rows,) numbers among all groups
    tokens: Counts  # (rows,), or empty without a budget
    above: int  # candidates with larger values

    @classmethod
    def load(cls, question: Question, number: int, rows_before: int) -> Candidates:
        """Read the candidates of a part.

        Args:
            question: the selection.
            number: of the part.
            rows_before: rows of the parts before it.
        """
        with np.load(_file(question.scratch, number)) as file:
            values, rows, groups, tokens = (file[name] for name in ("values", "rows", "groups", "tokens"))
        largest = question.choice.max_loss
        within = np.ones(len(values), dtype=np.bool_) if largest is None else values <= np.float64(largest)
        if question.choice.group_by is not None:
            groups = np.load(question.scratch / f"groups-{number:06}.npy")[groups]
        values = values[within]
        return cls(
            values,
            order_keys(values, descending=question.descending),
            rows[within].astype(np.int64) + rows_before,
            groups[within].astype(np.int64),
            tokens[within] if len(tokens) else tokens,
            int(len(within) - within.sum()),
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """Where each group ends, and where the budget does; as far as it is known."""

    room: Borders | None = None  # by group
    room_rows: Borders | None = None  # by group, among the rows with the key of ``room``
    budget: Borders | None = None  # of all rows
    budget_rows: Borders | None = None

    def in_room(self, of: Candidates) -> NDArray[np.bool_]:
        """Return the rows before the ends of their groups."""
        return _before(of, self.room, self.room_rows, of.groups)

    def in_budget(self, of: Candidates) -> NDArray[np.bool_]:
        """Return the rows before the end of the budget, also those that their groups have no room for."""
        return _before(of, self.budget, self.budget_rows, np.zeros(len(of.keys), np.int64))


def _before(of: Candidates, ends: Borders | None, ends_rows: Borders | None, groups: Counts) -> NDArray[np.bool_]:
    if ends is None or ends_rows is None:
        return np.ones(len(of.keys), dtype=np.bool_)
    keys, last = ends.keys[groups], ends_rows.keys[groups].astype(np.int64)
    found: NDArray[np.bool_] = ~ends.exists[groups] | (of.keys < keys) | ((of.keys == keys) & (of.rows < last))
    return found


@dataclass(frozen=True, slots=True)
class Ask:
    """A round over some parts that follow each other."""

    question: Question
    parts: Sequence[tuple[int, int]]  # number of each, and the rows of all parts before it
    limits: Limits
    is_budget: bool  # tokens of all rows that have room are summed; else rows by group
    round: Round


def ask(wanted: Ask) -> Counts:
    """Return the sums of a round over the parts."""
    limits = wanted.limits
    total = np.zeros((len(wanted.round.groups), 1 << wanted.round.bits), dtype=np.int64)
    for number, rows_before in wanted.parts:
        of = Candidates.load(wanted.question, number, rows_before)
        rows = limits.in_room(of) if wanted.is_budget else np.ones(len(of.keys), dtype=np.bool_)
        groups = np.zeros(len(of.keys), np.int64) if wanted.is_budget else of.groups
        ends = limits.budget if wanted.is_budget else limits.room
        keys = of.keys
        if ends is not None:  # among the rows with the key of the border, which is found by the rows' numbers
            rows &= ends.exists[groups] & (of.keys == ends.keys[groups])
            keys = of.rows.astype(np.uint64)
        weights = of.tokens if wanted.is_budget else np.ones(len(keys), np.int64)
        total += wanted.round.sums(keys[rows], groups[rows], weights[rows])
    return total


def _file(scratch: Path, number: int) -> Path:
    return scratch / f"columns-{number:06}.npz"
