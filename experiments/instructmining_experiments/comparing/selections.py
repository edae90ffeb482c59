"""Selects rows that no run has seen, by a rule and by what one would do without it; all match in tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import InputError
from instructmining.rules import Rule
from instructmining_experiments.designing.drawing import Drawable, check_fits, matched

RULE, RANDOM, ALL = "rule", "random", "all"
NEAREST = "nearest"
_RANDOM_ROWS, _ORDER = 31, 32  # streams of random numbers, apart from those of a design
Values: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows to train on, with the seed of one run."""

    name: str
    method: str
    rows: tuple[int, ...]  # numbers in the pool that is selected from, ascending
    seed: int  # of the order of its batches
    tokens: int  # of prompts and responses, as the pool's lengths count them


@dataclass(frozen=True, slots=True)
class Repetitions:
    """How often each method is trained."""

    seeds: int  # runs of every method on its rows
    random: int  # draws of random rows, each with one run
    subset_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Method:
    """A way to order rows, the ones to take first."""

    name: str
    what: str
    column: str  # that it needs
    key: Callable[[Values], Values] = np.negative  # of the column; the least comes first


# Li et al. (arXiv 2308.12032) leave out rows with an ifd of 1 or more: their instruction does not help.
METHODS = (
    Method("longest", "the longest responses", "output_length"),
    Method("lowest-perplexity", "the lowest perplexity", "perplexity", np.positive),
    Method("highest-ifd", "the highest ifd below 1", "ifd", lambda ifd: np.where(ifd < 1, -ifd, np.inf)),
)
NAMES = (*(method.name for method in METHODS), NEAREST, ALL)


def selections(
    pool: Drawable,
    methods: Sequence[str],
    repetitions: Repetitions,
    *,
    rule: Rule,
    distances: Values | None,
) -> tuple[Selection, ...]:
    """Select rows by each method, as many tokens as a subset has.

    Args:
        pool: rows to select from, with the rule's columns.
        methods: of :data:`NAMES`, besides the rule and random rows; one whose column is missing is left out.
        repetitions: how often.
        rule: rows with the lowest prediction come first.
        distances: of each row to the nearest row of the first evaluation set, (rows,); None where not known.

    Returns:
        The runs: the rule, random rows, then the methods in their order; all rows at once come last.

    Raises:
        InputError: the pool is too small, or its rows do not add up to the tokens wanted.
        RuleError: the pool lacks a column of the rule.
    """
    check_fits(pool, repetitions.subset_tokens)
    orders = dict(_orders(pool, methods, rule, distances))
    found = [
        _selection(pool, matched(pool.tokens[order], repetitions.subset_tokens), order, method, number, repetitions)
        for method, order in orders.items()
        for number in range(repetitions.seeds)
    ]
    draws = []
    for number in range(repetitions.random):
        order = np.random.default_rng([repetitions.seed, _RANDOM_ROWS, number]).permutation(len(pool.rows))
        taken = matched(pool.tokens[order], repetitions.subset_tokens)
        draws.append(_selection(pool, taken, order, RANDOM, number, repetitions))
    found[repetitions.seeds : repetitions.seeds] = draws
    if ALL in methods:
        every = np.arange(len(pool.rows))
        found.append(_selection(pool, every, every, ALL, 0, repetitions))
    return tuple(found)


def _orders(
    pool: Drawable, methods: Sequence[str], rule: Rule, distances: Values | None
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each method with the places of the rows, the ones to take first; of equal ones the earlier row."""
    yield RULE, np.argsort(rule.predict(pool.columns), kind="stable")
    for method in METHODS:
        if method.name in methods and method.column in pool.columns:
            yield method.name, np.argsort(method.key(pool.columns[method.column]), kind="stable")
    if NEAREST in methods and distances is not None:
        yield NEAREST, np.argsort(distances, kind="stable")


def _selection(
    pool: Drawable,
    taken: NDArray[np.int64],
    order: NDArray[np.int64],
    method: str,
    number: int,
    repetitions: Repetitions,
) -> Selection:
    places = np.sort(order[taken])
    seed = int(np.random.default_rng([repetitions.seed, _ORDER, number]).integers(2**31))
    rows = tuple(int(row) for row in pool.rows[places])
    return Selection(f"{method}-{number + 1}", method, rows, seed, int(pool.tokens[places].sum()))


def checked_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of methods.

    Raises:
        InputError: one is not known.
    """
    for name in names:
        if name not in NAMES:
            raise InputError(f"no method {name!r}; wanted some of {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in names)


def per_file(rows: Sequence[int], files: Mapping[str, range]) -> dict[str, int]:
    """Return how many of the rows each file has; files without one are left out."""
    counts = {name: sum(row in part for row in rows) for name, part in files.items()}
    return {name: count for name, count in counts.items() if count}
