"""Draws subsets that match in tokens: random ones, and tilted ones whose indicator means spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import InputError
from instructmining_experiments.state.plan import Run, RunKind

TOLERANCE = 0.01  # of the tokens of a subset
STRATA = 5  # of each indicator, with equal rows
MIN_ROWS = 8  # of a subset: the last row can then bring its tokens within the tolerance
POOL_PER_SUBSET = 3  # least tokens to draw from, in subsets
_EFFECTIVE = 3  # least effective number of rows that tilted weights leave, in subsets
_HALVINGS = 40
_GIVEN_UP = 5  # most rows that are exchanged for others, so that the tokens add up
_LEAST = 1e-9  # share of a stratum
_DRAW, _ORDER = 11, 12  # streams of random numbers, apart from those of what is held out


@dataclass(frozen=True, slots=True)
class Drawable:
    """Rows that a subset may hold."""

    rows: NDArray[np.int64]  # (rows,) numbers in the pool
    tokens: NDArray[np.float64]  # (rows,) of prompt and response
    columns: Mapping[str, NDArray[np.float64]]  # (rows,) finite


@dataclass(frozen=True, slots=True)
class Draws:
    """How many subsets to draw, and how large."""

    runs: int
    replicates: int  # the same rows as a run of the others, with another seed
    subset_tokens: int
    seed: int


def check_fits(pool: Drawable, subset_tokens: int) -> None:
    """Check that a pool holds enough for subsets of so many tokens.

    Raises:
        InputError: it does not; the message says what would fit.
    """
    rows, tokens = len(pool.rows), int(pool.tokens.sum())
    most = tokens // POOL_PER_SUBSET
    least = int(np.ceil(MIN_ROWS * tokens / rows)) if rows else 0
    has = f"the pool has {rows:,} rows to draw from with {tokens:,} tokens"
    if rows == 0 or least > most:
        raise InputError(
            f"{has}: too few for any design, which wants at least {MIN_ROWS * POOL_PER_SUBSET} rows; give a larger "
            "pool, or hold out fewer rows"
        )
    if subset_tokens > most:
        raise InputError(
            f"{has}; subsets of {subset_tokens:,} tokens want {POOL_PER_SUBSET} times as many, so that they differ; "
            f"give --subset-tokens {most} or less, or a larger pool"
        )
    if subset_tokens < least:
        raise InputError(
            f"{has}; a subset of {subset_tokens:,} tokens would hold fewer than {MIN_ROWS} rows; "
            f"give --subset-tokens {least} or more"
        )


def draw_runs(pool: Drawable, draws: Draws) -> tuple[Run, ...]:
    """Draw the subsets, random and tilted ones in turn, then the replicates.

    A subset holds a row once; two subsets may share rows. Each subset has random numbers of its own, so that a design
    with more runs begins with the same ones.

    Raises:
        InputError: the pool holds too little, or its rows do not add up to the tokens wanted.
    """
    check_fits(pool, draws.subset_tokens)
    strata = {name: strata_of(values) for name, values in pool.columns.items()}
    runs = [_run(pool, strata, number, draws) for number in range(draws.runs)]
    replicates: list[Run] = []
    for number in range(draws.replicates):
        spaced = number * draws.runs // draws.replicates if draws.replicates <= draws.runs else number % draws.runs
        source = runs[spaced]
        earlier = sum(run.replicates == source.name for run in replicates)
        name = f"{source.name}-{earlier + 2}"
        seed = _seed(draws.seed, draws.runs + number)
        replicates.append(Run(name, "replicate", source.rows, seed, source.tokens, source.name))
    return (*runs, *replicates)


def _run(pool: Drawable, strata: Mapping[str, NDArray[np.int64]], number: int, draws: Draws) -> Run:
    rng = np.random.default_rng([draws.seed, _DRAW, number])
    kind: RunKind = "tilted" if number % 2 else "random"
    shares: dict[str, float] = {}
    weights = np.full(len(pool.rows), 1 / len(pool.rows))
    if kind == "tilted":
        weights = tilted_weights(strata, rng, effective=_EFFECTIVE * draws.subset_tokens / float(pool.tokens.mean()))
        shares = _shares(strata, weights)
    # The order of draws without replacement by weights: Efraimidis and Spirakis 2006, doi 10.1016/j.ipl.2005.11.003.
    order = np.argsort(rng.exponential(size=len(weights)) / weights, kind="stable")
    taken = matched(pool.tokens[order], draws.subset_tokens)
    places = np.sort(order[taken])
    rows = tuple(int(row) for row in np.sort(pool.rows[places]))
    tokens = int(pool.tokens[places].sum())
    return Run(f"r{number + 1:03d}", kind, rows, _seed(draws.seed, number), tokens, weights=shares)


def _seed(seed: int, number: int) -> int:
    return int(np.random.default_rng([seed, _ORDER, number]).integers(2**31))


def matched(tokens: NDArray[np.float64], wanted: int) -> NDArray[np.int64]:
    """Return places of the first rows, in order, that add up to the tokens wanted; skips rows that would exceed them.

    Where no further row fits, a few of those taken last are exchanged for rows that do, the first ones if possible.

    Args:
        tokens: (rows,) of rows in the order of their draw.
        wanted: tokens; the sum is within :data:`TOLERANCE` of them.

    Raises:
        InputError: no rows add up to that.
    """
    least, most = wanted * (1 - TOLERANCE), wanted * (1 + TOLERANCE)
    taken: list[int] = []
    held = 0.0
    for place, more in enumerate(tokens.tolist()):
        if held + more > most:
            continue
        taken.append(place)
        held += more
        if held >= least:
            return np.array(taken, dtype=np.int64)
    for kept in range(len(taken) - 1, max(len(taken) - 1 - _GIVEN_UP, -1), -1):
        stay = taken[:kept]
        own = float(tokens[stay].sum())
        free = np.setdiff1d(np.arange(len(tokens)), stay).tolist()
        if (more := _adding_up(tokens, free, least - own, most - own)) is not None:
            return np.array([*stay, *more], dtype=np.int64)
    raise InputError(
        f"rows of {tokens.min():,.0f} to {tokens.max():,.0f} tokens do not add up to {wanted:,} within "
        f"{TOLERANCE:.0%}; give --subset-tokens {int(held)}, or another pool"
    )


def _adding_up(tokens: NDArray[np.float64], places: Sequence[int], least: float, most: float) -> Sequence[int] | None:
    """Return the first places found whose tokens add up to a number in a range; None where none do."""
    reached: dict[float, tuple[int, ...]] = {0.0: ()}
    for place in places:
        for held, earlier in list(reached.items()):
            total = held + float(tokens[place])
            if total <= most and total not in reached:
                reached[total] = (*earlier, place)
                if total >= least:
                    return reached[total]
    return None


def strata_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the stratum of each value, int64 (rows,), from 0: between quantiles; equal values share one."""
    edges = np.unique(np.quantile(values, np.arange(1, STRATA) / STRATA))
    return np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)[1].astype(np.int64)


def tilted_weights(
    strata: Mapping[str, NDArray[np.int64]], rng: np.random.Generator, *, effective: float
) -> NDArray[np.float64]:
    """Draw weights of rows: each indicator's strata get shares from a uniform Dirichlet distribution.

    A row's weight is the product over all indicators, flattened by a power until enough rows count.

    Args:
        strata: (rows,) for each indicator.
        rng: source of the shares.
        effective: least effective number of rows, 1 / Σ weight² (Kish).

    Returns:
        (rows,) weights that add up to 1.
    """
    logs = np.zeros(len(next(iter(strata.values()))))
    for of_rows in strata.values():
        sizes = np.bincount(of_rows)
        shares = np.maximum(rng.dirichlet(np.ones(len(sizes))), _LEAST)
        logs += np.log(shares / sizes)[of_rows]
    low, high = 0.0, 1.0
    weights = _weights(logs, high)
    if 1 / np.square(weights).sum() >= effective:
        return weights
    for _ in range(_HALVINGS):
        power = (low + high) / 2
        enough = 1 / np.square(_weights(logs, power)).sum() >= effective
        low, high = (power, high) if enough else (low, power)
    return _weights(logs, low)


def _weights(logs: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(power * (logs - logs.max()))
    return np.asarray(np.maximum(weights / weights.sum(), np.finfo(np.float64).tiny))


def _shares(strata: Mapping[str, NDArray[np.int64]], weights: NDArray[np.float64]) -> dict[str, float]:
    """Return the share of the draws that each stratum gets, by names such as ``mtld 1/5``."""
    shares: dict[str, float] = {}
    for name, of_rows in strata.items():
        found = np.bincount(of_rows, weights=weights)
        shares |= {f"{name} {number + 1}/{len(found)}": round(float(one), 6) for number, one in enumerate(found)}
    return shares
