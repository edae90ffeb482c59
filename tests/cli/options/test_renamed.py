from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import EXAMPLES

from instructmining_cli.options.renamed import RENAMED, by_new_names, json_file_by_new_name


def test_an_option_by_its_former_name_is_the_new_one_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--max-tokens", "64", "--budget-tokens=5"]
    assert by_new_names("score", given) == ["--max-length", "64", "--max-batch-tokens=5"]
    assert capsys.readouterr().err.splitlines() == [
        "--max-tokens is now --max-length; the next release removes the old name",
        "--budget-tokens is now --max-batch-tokens; the next release removes the old name",
    ]


def test_what_is_no_option_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["a=b", "--max-length", "7", "--", "--max-tokens"]
    assert by_new_names("score", arguments) == arguments
    assert not capsys.readouterr().err


def test_a_command_that_never_had_the_former_name_has_its_own_option(
    run: Callable[..., int], small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("serve", "train"):
        assert by_new_names(command, ["--max-tokens", "64"]) == ["--max-tokens", "64"]
    assert run("serve", "--bundle", small_bundle, "--max-tokens", 1000, "--print-config") == 0
    said = capsys.readouterr()
    assert "max-tokens = 1000" in said.out
    assert not said.err


def test_a_run_takes_the_former_names(run: Callable[..., int], small_bundle: Path, tmp_path: Path) -> None:
    former = [part for name in RENAMED["score"] for part in (name, "512")]
    arguments = ("score", EXAMPLES / "alpaca.json", "-o", tmp_path / "out.jsonl", "--bundle", small_bundle)
    assert run(*arguments, "--indicators", "perplexity", *former) == 0


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["rows.jsonl", "--json", "figures.json"], ["--out", "figures.json", "rows.jsonl"]),
        (["--json", "figures", "rows.jsonl"], ["--out", "figures", "rows.jsonl"]),
        (["--json=figures", "rows.jsonl"], ["--out", "figures", "rows.jsonl"]),
        (["rows.jsonl", "--json", "-"], ["--json", "rows.jsonl"]),
    ],
)
def test_json_with_a_file_is_the_option_for_that_file_and_said(
    capsys: pytest.CaptureFixture[str], given: list[str], meant: list[str]
) -> None:
    assert json_file_by_new_name(given, positional, "--out") == meant
    assert "the next release removes the old form" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        ["rows.jsonl", "--json"],
        ["--json", "rows.json"],
        ["rows.jsonl", "--json", "--rounds"],
        ["--json", str(EXAMPLES / "messages.jsonl"), "rows.jsonl"],
        ["rows.jsonl", "--", "--json", "a.json"],
    ],
)
def test_json_without_a_file_is_left_as_it_is(capsys: pytest.CaptureFixture[str], given: list[str]) -> None:
    assert json_file_by_new_name(given, positional, "--out") == given
    assert not capsys.readouterr().err


def test_fit_and_bench_take_the_former_form(run: Callable[..., int], small_bundle: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = ("fit", EXAMPLES / "runs.csv", "-o", tmp_path / "rule.json", "--bootstrap", "0", "--choose", "all")
    assert run(*command, "--json", figures) == 0
    assert "subsets" in json.loads(figures.read_bytes())
    command = ("bench", EXAMPLES / "alpaca.json", "--bundle", small_bundle, "--indicators", "mtld", "--rounds", "1")
    assert run(*command, "--json", figures) == 1
    assert run(*command, "--json", figures, "--overwrite") == 0
    assert "latency_ms" in json.loads(figures.read_bytes())


def test_an_input_after_json_is_no_former_form(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("fit", "-o", tmp_path / "rule.json", "--bootstrap", "0", "--choose", "all")
    assert run(*command, "--json", EXAMPLES / "runs.csv") == 0
    assert "subsets" in json.loads(capsys.readouterr().out)


def positional(arguments: list[str]) -> list[str]:
    """What is no option; none of these takes a value."""
    return [argument for argument in arguments if not argument.startswith("-")]
