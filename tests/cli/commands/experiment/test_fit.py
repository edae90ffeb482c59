from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_runs import lines_of, plan_of, write_runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plan = plan_of(40, replicates=8, seed=1)
    return write_runs(tmp_path / "experiment", plan, lines_of(plan, {"perplexity": 0.02}, seed=1)[:-1])


def test_the_report_says_what_was_found(
    run: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("experiment", "fit", folder, "--id", "mine") == 0
    shown = capsys.readouterr()
    assert "\n\nruns        40 subsets: 30 fitted, 10 held out; 7 of 8 replicates have a loss\n" in shown.out
    assert "missing     1 have no loss: r008-2\n" in shown.out
    assert "degrees of freedom): a rule can reach an R2 of 0." in shown.out
    heads = (
        "the rule",
        "output_length alone",
        "perplexity alone",
        "mean of the fitted runs",
        "intercept",
        "perplexity",
    )
    assert [head for head in heads if f"\n{head}  " not in shown.out] == []
    lines = shown.out.splitlines()
    assert lines[0].startswith(
        "found: the rule predicts 10 held-out runs better than the mean of the 30 fitted ones (R2 0."
    )
    assert lines[-1].startswith("worth nothing in this rule, as far as these runs show: ")
    assert "warning: few runs: 30 for 4 terms considered" in shown.err
    assert shown.err.endswith(f"rule 'mine': {folder}/rule.json; all figures: {folder}/fit.json\n")


def test_json_is_the_document_that_is_written(
    run: Callable[..., int], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert run("experiment", "fit", ".", "--json", "--quiet", "--bootstrap", "0", "--licence", "mit") == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("out") == "."
    assert found == json.loads((folder / "fit.json").read_bytes())
    assert (found["found"], found["rule"]["id"]) == (True, "experiment")
    assert found["rule"]["provenance"]["experiment"]["licences"] == ["mit"]


def test_runs_that_show_nothing_are_said_to_and_the_noise_is_not_known(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(40, seed=1)
    write_runs(tmp_path, plan, lines_of(plan, {}, seed=1))
    assert run("experiment", "fit", tmp_path, "--quiet") == 0
    shown = capsys.readouterr().out
    assert "so the largest R2 that a rule can reach is not known" in shown
    assert "\nworth nothing, as far as this rule shows: every indicator, since it was not found\n" in shown
    assert shown.startswith("not found: the rule predicts 10 held-out runs no")
    assert "and 10 held-out runs a rule with an R2 of 0.8" in shown


def test_a_folder_without_a_plan_is_one_line(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("experiment", "fit", tmp_path) == 1
    said = f"error: {tmp_path}: has no plan.json; 'instructmining experiment design' writes one\n"
    assert capsys.readouterr().err == said
