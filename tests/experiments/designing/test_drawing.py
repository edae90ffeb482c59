from __future__ import annotations

import math

import numpy as np
import pytest

from instructmining.errors import InputError
from instructmining_experiments.designing.cost import spreads
from instructmining_experiments.designing.drawing import (
    TOLERANCE,
    Drawable,
    Draws,
    check_fits,
    draw_runs,
    matched,
    strata_of,
    tilted_weights,
)

WANTED = 2000


def pool_of(rows: int = 800, *, terms: int = 3, first: int = 100) -> Drawable:
    rng = np.random.default_rng(5)
    tokens = np.round(np.exp(rng.normal(3.5, 0.6, size=rows))) + 4
    columns = {f"x{number}": rng.normal(size=rows) for number in range(terms)}
    return Drawable(np.arange(first, first + rows), tokens, columns)


def test_every_subset_holds_the_tokens_wanted_and_no_row_twice() -> None:
    pool = pool_of()
    runs = draw_runs(pool, Draws(12, 4, WANTED, 0))
    tokens = dict(zip(pool.rows.tolist(), pool.tokens.tolist(), strict=True))
    for run in runs:
        assert run.tokens == sum(tokens[row] for row in run.rows)
        assert abs(run.tokens - WANTED) <= TOLERANCE * WANTED
        assert len(set(run.rows)) == len(run.rows)
        assert set(run.rows) <= set(pool.rows.tolist())


def test_half_of_the_runs_are_tilted_and_replicates_have_the_rows_of_runs_of_both_kinds() -> None:
    runs = draw_runs(pool_of(), Draws(11, 4, WANTED, 0))
    kinds = [run.kind for run in runs]
    assert [kinds.count(kind) for kind in ("random", "tilted", "replicate")] == [6, 5, 4]
    by_name = {run.name: run for run in runs}
    assert len(by_name) == len(runs)
    sources = [by_name[run.replicates] for run in runs if run.replicates is not None]
    assert {source.kind for source in sources} == {"random", "tilted"}
    for run in runs[11:]:
        assert run.rows == by_name[str(run.replicates)].rows
    assert len({run.seed for run in runs}) == len(runs)


def test_more_replicates_than_runs_take_turns() -> None:
    runs = draw_runs(pool_of(), Draws(2, 5, WANTED, 0))
    assert [run.name for run in runs[2:]] == ["r001-2", "r002-2", "r001-3", "r002-3", "r001-4"]


def test_tilted_sets_spread_the_means_of_every_indicator_more_than_random_ones() -> None:
    pool = pool_of(2000, terms=5, first=0)
    runs = draw_runs(pool, Draws(40, 0, WANTED, 1))
    for spread in spreads(runs, pool.columns).values():
        assert spread.random is not None
        assert spread.tilted is not None
        assert spread.tilted > 1.5 * spread.random


def test_the_shares_of_a_tilted_run_are_those_of_its_strata() -> None:
    run = draw_runs(pool_of(terms=2), Draws(2, 0, WANTED, 0))[1]
    assert sorted(run.weights) == [f"{name} {number}/5" for name in ("x0", "x1") for number in range(1, 6)]
    for name in ("x0", "x1"):
        assert math.fsum(share for stratum, share in run.weights.items() if stratum.startswith(name)) == pytest.approx(
            1, abs=1e-5
        )


def test_the_same_seed_draws_the_same_and_more_runs_begin_with_the_same_ones() -> None:
    draws = Draws(6, 2, WANTED, 3)
    assert draw_runs(pool_of(), draws) == draw_runs(pool_of(), draws)
    assert draw_runs(pool_of(), Draws(8, 0, WANTED, 3))[:6] == draw_runs(pool_of(), draws)[:6]
    assert draw_runs(pool_of(), Draws(6, 2, WANTED, 4)) != draw_runs(pool_of(), draws)


def test_tilted_weights_leave_enough_rows_that_count() -> None:
    strata = {name: strata_of(values) for name, values in pool_of(500, terms=9).columns.items()}
    for seed in range(5):
        weights = tilted_weights(strata, np.random.default_rng(seed), effective=150)
        assert weights.sum() == pytest.approx(1)
        assert 1 / np.square(weights).sum() >= 149


def test_strata_have_equal_rows_and_equal_values_share_one() -> None:
    assert np.bincount(strata_of(np.arange(100.0))).tolist() == [20] * 5
    assert set(strata_of(np.full(10, 3.0)).tolist()) == {0}
    few = strata_of(np.array([1.0] * 90 + [2.0] * 10))
    assert set(few[:90].tolist()) == {0}


def test_rows_that_would_exceed_the_tokens_are_skipped() -> None:
    assert matched(np.array([60.0, 50.0, 30.0, 10.0, 10.0]), 100).tolist() == [0, 2, 3]
    assert matched(np.array([60.0, 35.0, 65.0, 40.0]), 100).tolist() == [0, 3]
    with pytest.raises(
        InputError, match=r"rows of 30 to 30 tokens do not add up to 100 within 1%; give --subset-tokens 90"
    ):
        matched(np.full(9, 30.0), 100)


@pytest.mark.parametrize(
    ("rows", "wanted", "message"),
    [
        (800, 30_000, r"want 3 times as many, so that they differ; give --subset-tokens \d+ or less, or a larger pool"),
        (800, 100, r"would hold fewer than 8 rows; give --subset-tokens \d+ or more"),
        (12, 300, "has 12 rows to draw from with .* tokens: too few for any design, which wants at least 24 rows"),
        (0, 300, "has 0 rows to draw from"),
    ],
)
def test_a_pool_too_small_says_what_would_fit(rows: int, wanted: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_fits(pool_of(rows), wanted)
