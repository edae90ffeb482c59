from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from instructmining.errors import InputError
from instructmining_experiments.state.plan import PLAN, EvaluationSet, LeftOut, Plan, PoolFile, Run

PLANNED = Plan(
    seed=3,
    bundle="b" * 64,
    scored_sha256="a" * 64,
    files=(PoolFile("pool.jsonl", "c" * 64, 10),),
    subset_tokens=100,
    indicators=("output_length", "perplexity"),
    evaluation=(EvaluationSet("held_out", "pool.jsonl", (0, 1)),),
    reserved=(2,),
    left_out=(LeftOut(3, 0, 0.1),),
    runs=(Run("r001", "random", (4, 5), 7, 98), Run("r002", "replicate", (4, 5), 8, 98, "r001", {})),
    written_with={"instructmining": "0.1.0"},
)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    PLANNED.save(tmp_path)
    found = Plan.load(tmp_path)
    assert found == PLANNED
    assert found.run("r002").replicates == "r001"


def test_a_plan_that_was_edited_is_refused(tmp_path: Path) -> None:
    PLANNED.save(tmp_path)
    content = orjson.loads((tmp_path / PLAN).read_bytes())
    content["runs"][0]["rows"].append(0)
    (tmp_path / PLAN).write_bytes(orjson.dumps(content))
    with pytest.raises(InputError, match=r"plan.json: was edited after it was written; draw a new plan"):
        Plan.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no plan.json; 'instructmining experiment design' writes one"),
        (b"{", "is not a plan"),
        (b"[]", "is not a plan"),
        (b'{"digest": "", "format": 9}', "is a plan of format 9; this version reads 1"),
    ],
)
def test_what_is_no_plan_is_one_clear_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / PLAN).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Plan.load(tmp_path)


def test_replicates_are_trained_among_the_subsets() -> None:
    subsets = [Run(f"r{number:03d}", "tilted" if number % 2 else "random", (4,), 1, 98) for number in range(6)]
    replicates = [Run(f"{source}-2", "replicate", (4,), 2, 98, source) for source in ("r000", "r003")]
    found = [run.name for run in replace(PLANNED, runs=(*subsets, *replicates)).in_turn()]
    assert found == ["r000", "r001", "r002", "r000-2", "r003", "r004", "r005", "r003-2"]
    assert [run.name for run in replace(PLANNED, runs=tuple(subsets)).in_turn()] == [run.name for run in subsets]
