from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import commands_of
from paths import EXAMPLES

from instructmining_cli.machine import diagnosis, throughput

ALPACA = EXAMPLES / "alpaca.json"
COMMANDS = list(commands_of())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_shared_options(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(*command.split(), "--help") == 0
    shown = capsys.readouterr().out
    json = () if command == "serve" else ("--json",)  # a service has no result to print
    assert all(option in shown for option in (*json, "-q, --quiet", "--config FILE", "--print-config"))
    assert "--no-" not in shown.replace("--no-auth", "").replace("--no-examples", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_ends_with_two_examples_of_options_that_exist(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(*command.split(), "--help") == 0
    shown = capsys.readouterr().out
    options, examples = shown.split("\nExamples:\n")
    lines = examples.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"  instructmining {command}")
        assert len(line) <= 80
        assert set(re.findall(r"--[\w-]+", line)) <= set(re.findall(r"--[\w-]+", options))


@pytest.fixture
def scored(run: Callable[..., int], small_bundle: Path, tmp_path: Path) -> Path:
    path = tmp_path / "scored.jsonl"
    assert run("score", ALPACA, "-o", path, "--bundle", small_bundle, "--indicators", "mtld,perplexity") == 0
    return path


IS_CAUTION = re.compile("caution: |warning: |rejected |.*: not read: ")


def document(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0
) -> dict[str, object]:
    """What a command prints on standard output, which is one JSON document, where it is told to be quiet."""
    capsys.readouterr()
    assert run(*arguments, "--json", "--quiet") == code
    shown = capsys.readouterr()
    assert [line for line in shown.err.splitlines() if not IS_CAUTION.match(line)] == []
    found: dict[str, object] = json.loads(shown.out)
    return found


def test_score_select_and_rescore_print_what_they_recorded_and_where_out_is(
    run: Callable[..., int], small_bundle: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule, out = tmp_path / "rule.json", str(tmp_path / "out.jsonl")
    rule.write_text('{"intercept":1,"terms":{"mtld":1}}')
    for command, suffix in (
        (("score", EXAMPLES / "bad_rows.jsonl", "--bundle", small_bundle, "--indicators", "mtld"), ".run.json"),
        (("select", scored, "--by", "mtld", "--top", "2"), ".selection.json"),
        (("rescore", scored, "--rule", rule), ".run.json"),
    ):
        found = document(run, capsys, *command, "-o", out, "--overwrite", code=3 if command[0] == "score" else 0)
        assert found == {"out": out, **json.loads(Path(f"{out}{suffix}").read_bytes())}
        assert run(*command, "-o", "-", "--json") == 2
        assert "--json: -o - writes the rows to standard output" in capsys.readouterr().err


def test_a_run_that_was_finished_before_prints_its_run_file_too(
    run: Callable[..., int], small_bundle: Path, scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("score", ALPACA, "-o", scored, "--bundle", small_bundle, "--indicators", "mtld,perplexity", "--resume")
    assert document(run, capsys, *command)["out"] == str(scored)


def test_inspect_and_a_dry_run_print_the_same(
    run: Callable[..., int], small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (ALPACA, "--bundle", small_bundle, "--indicators", "mtld")
    found = document(run, capsys, "inspect", *options)
    assert found["rows"] == 8
    assert document(run, capsys, "score", *options, "--dry-run") == found


def test_describe_and_compare_print_json_beside_the_file_they_write(
    run: Callable[..., int], scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    found = document(run, capsys, "describe", scored, "--format", "csv", "-o", table)
    assert found["sets"][0]["rows"] == 8  # type: ignore[index]
    assert table.read_text().startswith("name,")
    assert run("describe", scored, "--format", "csv", "--json") == 2
    assert document(run, capsys, "compare", scored, scored)["common"] == 8


def test_doctor_prints_the_machine_and_the_checks_of_a_bundle(
    run: Callable[..., int], small_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "onnxruntime" in document(run, capsys, "doctor")["machine"]  # type: ignore[operator]
    monkeypatch.setattr(diagnosis, "check_bundle", lambda *_: [diagnosis.RoleCheck("reward", "fp32", None)])
    found = document(run, capsys, "doctor", "--bundle", small_bundle, "--device", "cpu", code=1)
    (check,) = found["bundle"]["checks"]  # type: ignore[index]
    assert (check["role"], check["passed"], check["figures"]) == ("reward", False, None)


def test_bench_prints_its_figures_and_writes_them_to_out(
    run: Callable[..., int],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(throughput, "_LATENCY_S", 0.0)
    file = tmp_path / "figures.json"
    options = ("--bundle", small_bundle, "--indicators", "mtld", "--rounds", "1", "--limit", "2")
    found = document(run, capsys, "bench", ALPACA, *options, "-o", file)
    assert found == json.loads(file.read_bytes())
    assert run("bench", ALPACA, *options, "-o", "-") == 2


def test_without_quiet_the_words_are_there_and_standard_output_is_still_one_document(
    run: Callable[..., int], scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("select", scored, "-o", tmp_path / "best.jsonl", "--by", "mtld", "--top", "2", "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["out"] == str(tmp_path / "best.jsonl")
    assert shown.err.startswith("kept 2 of 8 rows")


def test_quiet_holds_back_progress_and_closing_words_but_no_error(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    command = ("score", ALPACA, "-o", out, "--bundle", small_bundle, "--indicators", "mtld", "-q")
    assert run(*command) == 0
    assert capsys.readouterr() == ("", "")
    assert run(*command) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert run(*command[:-1], "--overwrite") == 0
    assert "scored 8 rows in " in capsys.readouterr().err
