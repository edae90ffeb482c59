from __future__ import annotations

import numpy as np
import pytest

from instructmining.errors import InputError, RuleError
from instructmining.rules import Rule
from instructmining_experiments.comparing.selections import (
    NAMES,
    Repetitions,
    Selection,
    checked_methods,
    per_file,
    selections,
)
from instructmining_experiments.designing.drawing import TOLERANCE, Drawable

ROWS = 200
RULE = Rule("by-perplexity", 0.5, {"perplexity": 0.01})
THREE = Repetitions(seeds=3, random=5, subset_tokens=1500, seed=7)


@pytest.fixture
def pool() -> Drawable:
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 30, ROWS).astype(np.float64)
    columns = {"output_length": lengths, "perplexity": rng.uniform(5, 50, ROWS), "ifd": rng.uniform(0.4, 1.3, ROWS)}
    return Drawable(np.arange(1000, 1000 + ROWS), lengths + 10, columns)


def selected(pool: Drawable, *methods: str, repetitions: Repetitions = THREE) -> dict[str, Selection]:
    distances = np.linspace(1, 0, ROWS)
    return {one.name: one for one in selections(pool, methods, repetitions, rule=RULE, distances=distances)}


def values(pool: Drawable, column: str, selection: Selection) -> np.ndarray:
    return pool.columns[column][np.array(selection.rows) - 1000]


def test_every_selection_has_the_same_tokens_and_a_row_once(pool: Drawable) -> None:
    found = selected(pool, *NAMES)
    assert list(found) == [
        "rule-1", "rule-2", "rule-3", "random-1", "random-2", "random-3", "random-4", "random-5",
        "longest-1", "longest-2", "longest-3", "lowest-perplexity-1", "lowest-perplexity-2", "lowest-perplexity-3",
        "highest-ifd-1", "highest-ifd-2", "highest-ifd-3", "nearest-1", "nearest-2", "nearest-3", "all-1",
    ]  # fmt: skip
    for one in found.values():
        assert len(set(one.rows)) == len(one.rows)
        assert one.tokens == pool.tokens[np.array(one.rows) - 1000].sum()
        assert one.method == "all" or abs(one.tokens - 1500) <= 1500 * TOLERANCE
    assert len(found["all-1"].rows) == ROWS


def test_a_method_takes_the_rows_that_it_names(pool: Drawable) -> None:
    found = selected(pool, *NAMES)
    assert found["rule-1"].rows == found["lowest-perplexity-1"].rows  # this rule is the perplexity
    assert values(pool, "perplexity", found["rule-1"]).max() < np.quantile(pool.columns["perplexity"], 0.3)
    assert values(pool, "output_length", found["longest-1"]).min() >= 22
    assert values(pool, "ifd", found["highest-ifd-1"]).min() > 0.75
    assert values(pool, "ifd", found["highest-ifd-1"]).max() < 1
    assert min(found["nearest-1"].rows) > 1000 + 0.7 * ROWS


def test_runs_of_a_method_differ_in_their_seed_and_share_it_with_those_of_others(pool: Drawable) -> None:
    found = selected(pool, "longest")
    assert found["rule-1"].rows == found["rule-2"].rows
    assert len({found[f"rule-{number}"].seed for number in (1, 2, 3)}) == 3
    assert found["rule-2"].seed == found["longest-2"].seed == found["random-2"].seed
    assert len({found[f"random-{number}"].rows for number in (1, 2, 3, 4, 5)}) == 5


def test_more_runs_keep_the_others(pool: Drawable) -> None:
    more = selected(pool, "longest", repetitions=Repetitions(4, 9, 1500, 7))
    assert all(more[name] == one for name, one in selected(pool, "longest").items())


def test_a_method_whose_column_is_missing_is_left_out(pool: Drawable) -> None:
    less = Drawable(pool.rows, pool.tokens, {name: pool.columns[name] for name in ("output_length", "perplexity")})
    found = selections(less, NAMES, THREE, rule=RULE, distances=None)
    assert {one.method for one in found} == {"rule", "random", "longest", "lowest-perplexity", "all"}
    with pytest.raises(RuleError, match="needs ifd"):
        selections(less, (), THREE, rule=Rule("other", 0, {"ifd": 1}), distances=None)


def test_too_few_rows_are_an_error(pool: Drawable) -> None:
    few = Drawable(pool.rows[:40], pool.tokens[:40], {name: values[:40] for name, values in pool.columns.items()})
    with pytest.raises(InputError, match=r"the pool has 40 rows .* give --subset-tokens"):
        selections(few, (), THREE, rule=RULE, distances=None)


def test_an_unknown_method_is_an_error() -> None:
    assert checked_methods(["all", "longest"]) == ("longest", "all")
    with pytest.raises(InputError, match=r"no method 'shortest'; wanted some of longest, lowest-perplexity"):
        checked_methods(["longest", "shortest"])


def test_rows_are_counted_by_file() -> None:
    assert per_file([0, 3, 4, 12], {"a": range(4), "b": range(4, 8), "c": range(8, 20)}) == {"a": 2, "b": 1, "c": 1}
    assert per_file([0], {"a": range(4), "b": range(4, 8)}) == {"a": 1}
