from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from instructmining.bundle import Bundle
from instructmining.errors import InputError
from instructmining.rules import Rule
from instructmining_experiments.comparing.comparison_plan import CompareOptions, Known, Scoring, select
from instructmining_experiments.designing.design import DesignOptions, design
from instructmining_experiments.state.plan import Plan
from instructmining_experiments.state.pool import Pool
from instructmining_experiments.state.settings import plan_digest

WORDS = ["the", "of", "to", "is", "you", "that", "was", "with", "green", "blue", "train", "noon", "ferry", "bread"]
RULE = Rule("short-first", 0.0, {"output_length": 0.01})
OPTIONS = CompareOptions(seeds=1, random=2, near=0.001)


def rows_of(seed: int, rows: int) -> list[dict[str, object]]:
    rng = random.Random(seed)
    texts = [[" ".join(rng.choices(WORDS, k=rng.randint(3, most))) for most in (9, 25)] for _ in range(rows)]
    return [{"instruction": prompt, "output": answer} for prompt, answer in texts]


@pytest.fixture
def planned(small_bundle: Path, tmp_path: Path, write_rows: Callable[..., Path]) -> Known:
    folder = tmp_path / "e"
    pool = str(write_rows(*rows_of(1, 150), name="pool.jsonl"))
    options = DesignOptions(
        "perplexity,mtld", runs=4, replicates=0, subset_tokens=500, evaluation_rows=8, reserve=0.5, near=0.001
    )
    design([pool], folder, options, bundle=small_bundle, device="cpu")
    plan = Plan.load(folder)
    return Known(folder, plan, Pool.of_plan(folder, plan), plan_digest(folder))


def test_rows_come_from_those_that_the_plan_reserved(planned: Known, small_bundle: Path) -> None:
    scoring = Scoring(lambda: Bundle.open(small_bundle), "cpu")
    found, pool = select(planned, (), OPTIONS, RULE, scoring, overwrite=False)
    assert pool is planned.pool
    assert all(set(one.rows) <= set(planned.plan.reserved) for one in found.selections)
    assert found.candidates == len(planned.plan.reserved)
    assert found.left_out_methods == ("highest-ifd",)
    assert {one.method for one in found.selections} >= {"rule", "random", "longest", "lowest-perplexity", "nearest"}
    again, _ = select(planned, (), OPTIONS, RULE, Scoring(_no_bundle), overwrite=False)
    assert again == found


def _no_bundle() -> Bundle:
    raise AssertionError("no bundle is needed")


def test_new_rows_are_scored_and_those_seen_before_are_left_out(
    planned: Known, small_bundle: Path, write_rows: Callable[..., Path]
) -> None:
    old, new = rows_of(1, 150), rows_of(9, 120)
    file = str(write_rows(*new, *old, new[0], name="new.jsonl"))
    scoring = Scoring(lambda: Bundle.open(small_bundle), "cpu")
    found, pool = select(planned, [file], OPTIONS, RULE, scoring, overwrite=True)
    plan = planned.plan
    seen = {planned.pool.examples[row].turns for run in plan.runs for row in run.rows}
    held_out = {planned.pool.examples[row].turns for one in plan.evaluation for row in one.rows}
    chosen = {pool.examples[row].turns for one in found.selections for row in one.rows}
    assert not chosen & (seen | held_out)
    assert chosen & {planned.pool.examples[row].turns for row in plan.reserved}  # no run has seen these
    assert found.left["that a run has seen"] == len(seen)
    assert found.left["that repeat an earlier row"] == 1
    assert found.left["near an evaluation row"] >= len(held_out)
    assert found.from_files("rule") == {file: sum(len(one.rows) for one in found.selections if one.method == "rule")}


def test_another_bundle_than_the_plans_is_one_clear_error(planned: Known, small_bundle: Path) -> None:
    other = replace(planned, plan=replace(planned.plan, bundle="b" * 64))
    scoring = Scoring(lambda: Bundle.open(small_bundle), "cpu")
    with pytest.raises(InputError, match=r"is not the bundle that scored the pool of the plan \(digest bbbbbbbbbbbb"):
        select(other, (), OPTIONS, RULE, scoring, overwrite=True)
