from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_experiment import write_experiment
from small_models import causal_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_model("llama", tmp_path_factory.mktemp("model") / "llama")


def test_the_runs_are_trained_and_counted_and_evaluate_counts_them_too(
    run: Callable[..., int], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_experiment(tmp_path / "experiment").folder
    options = (
        "--model",
        model,
        "--learning-rate",
        "1e-3",
        "--max-length",
        "128",
        "--step-tokens",
        "120",
        "--device",
        "cpu",
    )
    assert run("experiment", "train", folder, *options) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line[:14] for line in lines if line.startswith("r0") and " of " in line] == [
        "r001 (1 of 3):",
        "r002 (2 of 3):",
        "r003 (3 of 3):",
    ]
    assert lines[-1] == f"3 runs finished, 0 failed: {folder}/runs.csv"
    assert run("experiment", "evaluate", folder, "--device", "cpu", "--json", "--quiet") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    found = json.loads(shown.out)
    assert (found["finished"], found["failed"], found["learning_rate"]) == (3, {}, 1e-3)
    assert set(found["base_losses"]) == {"held_out", "other"}


def test_a_run_that_fails_is_said_and_ends_with_3(
    run: Callable[..., int], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = write_experiment(tmp_path / "experiment")
    folder = small.with_runs(small.plan.run("r002")).folder
    (folder / "runs" / "r002").mkdir(parents=True)
    (folder / "runs" / "r002" / "failure.json").write_text('{"reason": "step 2 of 3: loss nan"}')
    options = ("--model", model, "--learning-rate", "1e-3", "--max-length", "128", "--step-tokens", "120", "--quiet")
    assert run("experiment", "train", folder, *options) == 3
    assert capsys.readouterr().err == "r002 failed: step 2 of 3: loss nan; --retry-failed trains it again\n"


def test_a_model_that_is_not_there_is_one_line(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_experiment(tmp_path / "experiment").folder
    assert run("experiment", "train", folder, "--model", tmp_path / "none", "--quiet") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    assert "none" in lines[-1]


@pytest.mark.parametrize("rates", ["1e-5,x", "0", "1e-5,1e-5", "2"])
def test_wrong_rates_are_wrong_usage(
    run: Callable[..., int], rates: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("experiment", "train", tmp_path, "--model", "m", "--rates", rates) == 2
    assert "--rates" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("train", "--model", "m"), ("evaluate",)])
def test_a_folder_without_a_plan_is_one_line(
    run: Callable[..., int], command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("experiment", *command, tmp_path, "--quiet") == 1
    said = f"error: {tmp_path}: has no plan.json; 'instructmining experiment design' writes one\n"
    assert capsys.readouterr().err == said
