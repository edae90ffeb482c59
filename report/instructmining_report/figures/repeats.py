"""Finds rows that occur several times, and those that lie close to others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.types import KNN_COLUMNS
from instructmining_report.gathering.scored_set import ScoredSet

MOST_CLUSTERS = 5
NEAR = (0.05, 0.1, 0.2, 0.3, 0.5)
_SAME = 1e-3  # distances of equal texts are not quite 0 in float32


@dataclass(frozen=True, slots=True)
class Cluster:
    """Rows that are equal, or whose prompts are."""

    rows: int
    first: int  # number of the first of them
    others: tuple[int, ...]  # numbers of some more


@dataclass(frozen=True, slots=True)
class RepeatCounts:
    """How often something repeats."""

    extra: int  # rows that repeat an earlier one
    clusters: int  # different things that occur more than once
    largest: tuple[Cluster, ...]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """How close rows are to their nearest ones, by the column with the fewest neighbours."""

    column: str
    rows: int  # that have a distance
    same: int  # at a distance of 0, but for rounding
    below: tuple[tuple[float, int], ...]  # distance → rows closer than that


@dataclass(frozen=True, slots=True)
class Repeats:
    """Repeats in a set."""

    whole: RepeatCounts
    prompts: RepeatCounts | None  # None where no row has a prompt
    neighbours: Neighbours | None  # None without a column of distances


def repeats_of(one: ScoredSet) -> Repeats:
    """Return the repeats of a set."""
    has_prompt = one.prompts != 0
    prompts = _counts(one.prompts, np.flatnonzero(has_prompt)) if has_prompt.any() else None
    return Repeats(_counts(one.digests, np.arange(one.rows)), prompts, _neighbours(one))


def _counts(digests: NDArray[np.uint64], rows: NDArray[np.int64]) -> RepeatCounts:
    if not len(rows):
        return RepeatCounts(0, 0, ())
    order = rows[np.argsort(digests[rows], kind="stable")]
    keys = digests[order]
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    sizes = np.diff(begins, append=len(order))
    repeated = np.flatnonzero(sizes > 1)
    largest = sorted(repeated.tolist(), key=lambda at: (-sizes[at], order[begins[at]]))[:MOST_CLUSTERS]
    clusters = [order[begins[at] : begins[at] + sizes[at]].tolist() for at in largest]
    return RepeatCounts(
        extra=int(sizes[repeated].sum() - len(repeated)),
        clusters=len(repeated),
        largest=tuple(Cluster(len(members), members[0], tuple(members[1:8])) for members in clusters),
    )


def _neighbours(one: ScoredSet) -> Neighbours | None:
    places = {name: k for k, name in KNN_COLUMNS.items()}
    there = sorted((name for name in one.columns if name in places), key=places.__getitem__)
    if not there:
        return None
    known = one.store.known(there[0])
    return Neighbours(
        column=there[0],
        rows=len(known),
        same=int((known < _SAME).sum()),
        below=tuple((distance, int((known < distance).sum())) for distance in NEAR),
    )
