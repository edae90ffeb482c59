from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from made_up_runs import lines_of, plan_of, write_runs

from instructmining.errors import FittingError, InputError
from instructmining_experiments.fitting.finished import Finished

Change: TypeAlias = Callable[[list[dict[str, Any]]], object]


def test_runs_are_read_in_the_order_of_the_plan_without_those_that_have_no_loss(tmp_path: Path) -> None:
    plan = plan_of(4, replicates=1)
    lines = lines_of(plan, {})
    lines[2]["loss"] = ""
    write_runs(tmp_path, plan, [*reversed(lines[1:])])
    found = Finished.read(tmp_path, plan)
    assert found.names == ("r002", "r004", "r001-2")
    assert found.losses.tolist() == [lines[at]["loss"] for at in (1, 3, 4)]
    assert found.means["ifd"].tolist() == [lines[at]["ifd"] for at in (1, 3, 4)]
    assert found.only(["r001-2", "r003", "r002"]).names == ("r001-2", "r002")


def test_an_indicator_without_a_value_is_not_among_the_means_and_a_gap_is_an_error(tmp_path: Path) -> None:
    plan = plan_of(4)
    lines = [line | {"ifd": "", "reward": 1.5} for line in lines_of(plan, {})]
    write_runs(tmp_path, plan, lines)
    found = Finished.read(tmp_path, plan)
    assert set(found.means) == {"output_length", "perplexity", "reward"}
    assert found.varying == ("output_length", "perplexity")
    lines[1]["reward"] = ""
    write_runs(tmp_path, plan, lines)
    with pytest.raises(FittingError, match=r"runs.csv, line 3, column 'reward': is empty in this run"):
        Finished.read(tmp_path, plan)


def renamed(lines: list[dict[str, Any]]) -> None:
    lines[1]["name"] = "r099"


def repeated(lines: list[dict[str, Any]]) -> None:
    lines[1]["name"] = "r001"


def negative(lines: list[dict[str, Any]]) -> None:
    lines[1]["loss"] = -0.5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (renamed, InputError, r"runs.csv, line 3: run 'r099' is not in plan.json; its runs are r001, r002, r003, r004"),
        (repeated, InputError, r"runs.csv, line 3: run 'r001' has a line already; keep one"),
        (negative, FittingError, r"runs.csv, line 3, column 'loss': -0.5, wanted a raw loss above 0"),
    ],
)
def test_a_wrong_line_is_one_clear_error(tmp_path: Path, change: Change, error: type[Exception], message: str) -> None:
    lines = lines_of(plan_of(4), {})
    change(lines)
    write_runs(tmp_path, plan_of(4), lines)
    with pytest.raises(error, match=message):
        Finished.read(tmp_path, plan_of(4))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("output_length", "perplexity"), r"runs.csv: column 'reward' is none of plan.json's, which wants name, loss"),
        (("output_length", "perplexity", "reward", "ifd", "mtld"), r"runs.csv: no column 'mtld'.*plan.json wants name"),
    ],
)
def test_columns_of_another_plan_are_one_clear_error(tmp_path: Path, columns: tuple[str, ...], message: str) -> None:
    write_runs(tmp_path, plan_of(4), lines_of(plan_of(4), {}))
    with pytest.raises(InputError, match=message):
        Finished.read(tmp_path, plan_of(4, indicators=columns))


def test_a_folder_without_runs_says_what_writes_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no runs.csv; 'instructmining experiment train' writes it"):
        Finished.read(tmp_path, plan_of(4))
