from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from altered_bundle import copy, edit
from cut_runs import CUT, Command

from instructmining.errors import InputError, OutputError
from instructmining_experiments.designing.design import Design, DesignOptions, design
from instructmining_experiments.state.plan import PLAN, Plan
from instructmining_experiments.state.pool import SCORED, Pool

WORDS = ["the", "of", "to", "is", "you", "that", "was", "with", "green", "blue", "train", "noon", "ferry", "bread"]
SMALL = DesignOptions("perplexity,mtld", runs=6, replicates=2, subset_tokens=700, evaluation_rows=8, near=0.001)


def rows_of(seed: int, rows: int) -> list[dict[str, object]]:
    rng = random.Random(seed)
    texts = [[" ".join(rng.choices(WORDS, k=rng.randint(3, most))) for most in (9, 25)] for _ in range(rows)]
    return [{"instruction": prompt, "output": answer} for prompt, answer in texts]


@pytest.fixture
def pool(write_rows: Callable[..., Path]) -> tuple[str, str]:
    return (
        str(write_rows(*rows_of(1, 120), name="a.jsonl")),
        str(write_rows(*rows_of(2, 60), name="b.jsonl")),
    )


def seen(plan: Plan) -> set[int]:
    return {row for run in plan.runs for row in run.rows}


def test_no_run_sees_a_row_that_is_held_out(pool: tuple[str, str], small_bundle: Path, tmp_path: Path) -> None:
    options = replace(SMALL, near=0.075)  # some of the nearest rows
    plan = design(pool, tmp_path / "e", options, bundle=small_bundle, device="cpu").plan
    held_out = {row for one in plan.evaluation for row in one.rows}
    assert len(held_out) == 16
    assert len(plan.reserved) == round(0.2 * (180 - 16 - len(plan.left_out)))
    assert plan.left_out
    apart = [held_out, set(plan.reserved), {one.row for one in plan.left_out}, seen(plan)]
    assert sum(map(len, apart)) == len(set.union(*apart))


def test_a_plan_names_the_pool_that_it_was_drawn_from(
    pool: tuple[str, str], small_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "e"
    found = design(pool, folder, SMALL, bundle=small_bundle, device="cpu")
    plan = Plan.load(folder)
    assert plan == found.plan
    assert [(file.path, file.rows) for file in plan.files] == [(pool[0], 120), (pool[1], 60)]
    scored = Pool.of_plan(folder, plan)
    assert all(abs(scored.tokens[list(run.rows)].sum() - 700) <= 7 for run in plan.runs)
    assert found.cost.total_tokens == sum(run.tokens for run in plan.runs)
    assert found.detectable.runs == 6
    assert set(found.spread) == {"perplexity", "mtld"}
    (folder / SCORED).write_bytes((folder / SCORED).read_bytes() + b"\n")
    with pytest.raises(InputError, match="is not the scored pool that the plan was drawn from"):
        Pool.of_plan(folder, plan)


def test_evaluation_files_are_held_out_with_the_rows_that_are_like_theirs(
    pool: tuple[str, str], write_rows: Callable[..., Path], small_bundle: Path, tmp_path: Path
) -> None:
    own = rows_of(3, 5)
    first = write_rows(*own, *rows_of(1, 120)[:3], name="dev.jsonl")
    second = write_rows(*rows_of(4, 4), name="other.jsonl")
    options = replace(SMALL, evaluation=(str(first), str(second)))
    found = design(pool, tmp_path / "e", options, bundle=small_bundle, device="cpu")
    plan = found.plan
    assert [(one.name, one.rows) for one in plan.evaluation] == [
        ("dev", tuple(range(180, 188))),
        ("other", tuple(range(188, 192))),
    ]
    same = {one.row: one.near for one in plan.left_out if one.distance == 0}
    assert same == {0: 185, 1: 186, 2: 187}
    assert not seen(plan) & {0, 1, 2, *range(180, 192)}
    assert found.left["near an evaluation row"] == len(plan.left_out)


def test_rows_without_a_value_and_repeated_rows_are_not_drawn_and_counted(
    pool: tuple[str, str], write_rows: Callable[..., Path], small_bundle: Path, tmp_path: Path
) -> None:
    more = write_rows(*rows_of(1, 2), {"instruction": "Add.", "output": "???"}, *rows_of(5, 40), name="more.jsonl")
    found = design([*pool, str(more)], tmp_path / "e", SMALL, bundle=small_bundle, device="cpu")
    assert found.null == {"mtld": 1}
    assert found.left["without a value of an indicator"] == 1
    assert found.left["that repeat an earlier row"] == 2
    held_out = {row for one in found.plan.evaluation for row in one.rows}
    assert not (seen(found.plan) | set(found.plan.reserved) | held_out) & {180, 181, 182}


def test_the_same_design_is_left_as_it_is_and_the_same_seed_gives_it_again(
    pool: tuple[str, str], small_bundle: Path, tmp_path: Path
) -> None:
    first = design(pool, tmp_path / "e", SMALL, bundle=small_bundle, device="cpu")
    written = (tmp_path / "e" / PLAN).read_bytes()
    again = design(pool, tmp_path / "e", SMALL, bundle=small_bundle, device="cpu")
    assert (first.new, again.new) == (True, False)
    assert replace(again, new=True) == first
    elsewhere = design(pool, tmp_path / "other", SMALL, bundle=small_bundle, device="cpu")
    assert (tmp_path / "other" / PLAN).read_bytes() == written
    assert elsewhere == first


def test_another_design_is_refused_unless_told_and_never_replaces_trained_runs(
    pool: tuple[str, str], small_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "e"
    design(pool, folder, SMALL, bundle=small_bundle, device="cpu")
    scored, other = (folder / SCORED).stat().st_ino, replace(SMALL, seed=1)

    def again(*, overwrite: bool) -> Design:
        return design(pool, folder, other, bundle=small_bundle, device="cpu", overwrite=overwrite)

    with pytest.raises(OutputError, match="holds another design: seed was 0, is now 1; name another folder, or give"):
        again(overwrite=False)
    assert again(overwrite=True).plan.seed == 1
    assert (folder / SCORED).stat().st_ino == scored
    (folder / "runs" / "r001").mkdir(parents=True)
    with pytest.raises(OutputError, match="holds runs that were trained by another design: seed was 1, is now 0"):
        design(pool, folder, SMALL, bundle=small_bundle, device="cpu", overwrite=True)


def test_a_folder_with_somebody_elses_file_of_the_same_name_is_refused(
    pool: tuple[str, str], small_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "e").mkdir()
    for content in ("[]", "{", "{}"):
        (tmp_path / "e" / "design.json").write_text(content)
        with pytest.raises(InputError, match="is not the record of a design"):
            design(pool, tmp_path / "e", SMALL, bundle=small_bundle, device="cpu")


def test_without_an_embedding_role_only_rows_of_the_same_text_leave(
    pool: tuple[str, str], small_bundle: Path, tmp_path: Path
) -> None:
    bundle = edit(copy(small_bundle, tmp_path), lambda manifest: manifest["roles"].pop("embedding"))
    found = design(pool, tmp_path / "e", replace(SMALL, near=2.0), bundle=bundle, device="cpu")
    assert not found.embedded
    assert found.plan.left_out == ()


@pytest.mark.parametrize("indicators", ["perplexity,mtld", "mtld,knn_6"])
def test_a_design_killed_while_it_scores_continues_to_the_same_plan(
    pool: tuple[str, str], small_bundle: Path, tmp_path: Path, indicators: str
) -> None:
    command = ("experiment", "design", *pool, "--bundle", str(small_bundle), "--device", "cpu", "--near", "0.001")
    command = (*command, "--runs", "4", "--subset-tokens", "700", "--evaluation-rows", "8")
    command = (*command, "--indicators", indicators, "-o")
    assert Command((*command, str(tmp_path / "whole"))).run() == 0
    cut = str(tmp_path / "cut")
    assert Command((*command, cut), pause_after=3).run(120) == CUT
    assert (tmp_path / "cut" / f"{SCORED}.partial" / "state.json").exists()
    assert not (tmp_path / "cut" / PLAN).exists()
    assert Command((*command, cut)).run() == 0
    names = ("design.json", PLAN, SCORED)
    assert [(tmp_path / "cut" / name).read_bytes() for name in names] == [
        (tmp_path / "whole" / name).read_bytes() for name in names
    ]


def test_bad_input_is_one_clear_error(pool: tuple[str, str], small_bundle: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    cases = (
        (replace(SMALL, evaluation=(str(empty),)), r"empty.jsonl.*"),
        (replace(SMALL, evaluation=("not-there.jsonl",)), "not-there.jsonl: No such file"),
        (replace(SMALL, evaluation=(pool[0],)), "is a file of the pool and an evaluation file; name it once"),
        (replace(SMALL, near=2.0), "rows are nearer than 2.0 to an evaluation row.*; give a smaller --near"),
        (replace(SMALL, evaluation_rows=50), "too few for --evaluation-rows 50; give 30 or less"),
        (replace(SMALL, subset_tokens=12_000), "give --subset-tokens [0-9]+ or less, or a larger pool"),
    )
    for number, (options, message) in enumerate(cases):
        folder = tmp_path / str(number)
        with pytest.raises(InputError, match=message):
            design(pool, folder, options, bundle=small_bundle, device="cpu")
        assert not (folder / PLAN).exists()


def test_rows_longer_than_training_takes_are_not_used(
    pool: tuple[str, str], small_bundle: Path, tmp_path: Path
) -> None:
    found = design(pool, tmp_path / "e", replace(SMALL, max_row_tokens=45), bundle=small_bundle, device="cpu")
    scored = Pool.of_plan(tmp_path / "e", found.plan)
    used = {*seen(found.plan), *found.plan.reserved, *(row for one in found.plan.evaluation for row in one.rows)}
    assert max(scored.tokens[list(used)]) <= 45
    assert found.left["that are longer than a row may be"] == (scored.tokens > 45).sum() > 0
