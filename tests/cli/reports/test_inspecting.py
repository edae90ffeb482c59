"""What an input holds, and what the models would see of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from paths import EXAMPLES

from instructmining import Bundle, FieldOptions, ReadOptions
from instructmining_cli.reports.inspecting import Asked, inspect_inputs
from instructmining_scale.runs import speeds

Run = Callable[..., int]


def asked(bundle: Path | None, **named: str) -> Asked:
    return Asked(None if bundle is None else Bundle.open(bundle), **named)


def rows(path: Path, *fields: object) -> str:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in fields))
    return str(path)


def test_a_file_is_described_by_its_first_rows(small_bundle: Path, tmp_path: Path) -> None:
    row = {"question": "a", "context": "b", "answer": "c", "topic": "d"}
    path = rows(tmp_path / "rows.jsonl", row, {**row, "context": None, "topic": ""}, {"question": "a"})
    found = inspect_inputs([path], FieldOptions(), ReadOptions(), asked(small_bundle), sample=100, shown=1)
    (file,) = found.files
    assert (file.format, file.rows, file.looked_at, file.rejected) == ("prompt_response", 3, 3, 1)
    assert file.roles == {"prompt": {"question": 2}, "context": {"context": 2}, "response": {"answer": 2}}
    assert file.unread == {"topic": 1}
    assert [reject.reason for reject in file.rejects] == ["no field for a response (format prompt_response)"]
    assert file.is_whole


def test_the_rows_of_a_long_file_are_estimated(small_bundle: Path, tmp_path: Path) -> None:
    path = rows(tmp_path / "rows.jsonl", *[{"prompt": f"{n:05}", "response": "b"} for n in range(5000)])
    found = inspect_inputs([path], FieldOptions(), ReadOptions(), asked(small_bundle), sample=500, shown=0)
    (file,) = found.files
    assert file.looked_at == 500
    assert not file.is_whole
    assert file.rows == pytest.approx(5000, rel=0.02)


def test_each_model_is_shown_its_text_with_what_is_scored_and_cut(small_bundle: Path, tmp_path: Path) -> None:
    path = rows(tmp_path / "rows.jsonl", {"prompt": "Name a colour.", "response": "Green. " * 100})
    bundle = Bundle.open(small_bundle).limited(64)
    found = inspect_inputs(
        [path], FieldOptions(), ReadOptions(), Asked(bundle, indicators="perplexity,knn_6,ifd"), sample=9, shown=9
    )
    (row,) = found.first
    by_label = {text.label: text for text in row.texts}
    assert set(by_label) == {"perplexity:conversation", "embedding:document", "perplexity:responses"}
    text = by_label["perplexity:conversation"]
    assert text.tokens == 64
    assert text.cut > 0
    unscored, scored, closing = text.segments
    assert unscored == ("<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\n", False)
    assert scored[1] is True
    assert set(scored[0].split()) <= {"Green.", "Green", "Gree", "Gre", "Gr", "G"}
    assert closing == ("<|im_end|>", False)
    assert found.lengths["perplexity:conversation"].cut == 1
    assert found.lengths["perplexity:conversation"].limit == 64
    assert found.lengths["input_length"].limit is None


def test_rows_that_a_template_cannot_hold_are_said(small_bundle: Path, tmp_path: Path) -> None:
    turns = [{"role": "tool", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = rows(tmp_path / "rows.jsonl", {"messages": turns})
    bundle = Bundle.open(small_bundle)
    role = bundle.roles["perplexity"]
    gaps = {name: pieces for name, pieces in role.template.gaps.items() if name != "start>tool"}
    strict = replace(role, template=replace(role.template, gaps=gaps))
    wanted = Asked(replace(bundle, roles={**bundle.roles, "perplexity": strict}), indicators="perplexity")
    found = inspect_inputs([path], FieldOptions(), ReadOptions(), wanted, sample=9, shown=9)
    assert [reject.line for reject in found.refused] == [1]
    assert found.first == []


def test_without_a_bundle_the_fields_are_still_said(tmp_path: Path) -> None:
    path = rows(tmp_path / "rows.jsonl", {"prompt": "a", "response": "b"})
    found = inspect_inputs([path], FieldOptions(), ReadOptions(), asked(None), sample=9, shown=9)
    assert found.files[0].format == "prompt_response"
    assert not found.lengths


# The command


def test_the_report_fits_the_terminal_and_names_everything(
    run: Run,
    small_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "cache"))  # where no run has left its speed
    monkeypatch.chdir(tmp_path)
    rows(Path("rows.jsonl"), {"prompt": "a " * 90, "response": "b " * 90, "topic": "c"}, {"prompt": "a"})
    assert run("inspect", "rows.jsonl", "--bundle", small_bundle, "--indicators", "perplexity,knn_6") == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for part in (
        "rows.jsonl: 2 rows",
        "format prompt_response",
        "read: prompt: prompt (1); response: response (1)",
        "not read: topic (1)",
        "rejected: 1 row of 2",
        "line 2: no field for a response",
        "tokens of",
        "⟦b b b",
        "how long scoring takes is not known",
    ):
        assert part in " ".join(shown.split()), part


def test_a_dry_run_of_score_shows_the_same_and_writes_nothing(
    run: Run, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--bundle", str(small_bundle), "--indicators", "perplexity"]
    assert run("inspect", EXAMPLES / "alpaca.json", *options) == 0
    shown = capsys.readouterr().out
    out = tmp_path / "out.jsonl"
    assert run("score", EXAMPLES / "alpaca.json", "-o", out, "--dry-run", *options) == 0
    assert capsys.readouterr().out == shown
    assert run("score", EXAMPLES / "alpaca.json", "--dry-run", *options) == 0
    assert list(tmp_path.iterdir()) == []


def test_json_has_all_of_it(run: Run, small_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / "formats" / "preference.jsonl"
    assert run("inspect", path, "--bundle", small_bundle, "--indicators", "reward", "--json") == 0
    found = orjson.loads(capsys.readouterr().out)
    assert found["rows"] == 1
    assert found["files"][0]["format"] == "preference"
    assert [row["side"] for row in found["first_rows"]] == ["chosen", "rejected"]
    assert found["lengths"]["reward:conversation"]["texts"] == 2


def test_a_scored_file_says_which_columns_are_kept(
    run: Run, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scored.jsonl"
    assert run("score", EXAMPLES / "alpaca.json", "-o", out, "--bundle", small_bundle, "--indicators", "reward") == 0
    capsys.readouterr()
    assert run("inspect", out, "--bundle", small_bundle, "--indicators", "reward,mtld") == 0
    shown = capsys.readouterr().out
    assert "scored before with: reward; these are kept" in shown
    assert "reward:conversation" not in shown  # no model is run


def test_standard_input_and_pipes_are_looked_at(small_bundle: Path) -> None:
    code = "from instructmining_cli.main import main; main()"
    command = [sys.executable, "-c", code, "inspect", "-", "--bundle", str(small_bundle), "--indicators", "mtld"]
    row = orjson.dumps({"prompt": "a", "response": "b"})
    done = subprocess.run(command, input=row, capture_output=True, check=True)
    assert b"-: 1 row\n" in done.stdout


def test_no_graph_is_loaded(run: Run, small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from instructmining.inference import sessions  # noqa: PLC0415 - patched here alone

    monkeypatch.setattr(sessions, "GraphSession", None)
    assert run("inspect", EXAMPLES / "alpaca.json", "--bundle", small_bundle, "--indicators", "all") == 0


# How long it takes


def test_the_time_is_that_of_the_last_run_by_tokens(
    run: Run,
    small_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(speeds, "LEAST_S", 0.0)
    options = ["--bundle", str(small_bundle), "--device", "cpu", "--indicators", "perplexity,mtld"]
    assert run("score", EXAMPLES / "alpaca.json", "-o", tmp_path / "out.jsonl", *options) == 0
    elapsed = orjson.loads((tmp_path / "out.jsonl.run.json").read_bytes())["seconds"]["total"]
    capsys.readouterr()
    assert run("inspect", EXAMPLES / "alpaca.json", *options, "--json") == 0
    assert elapsed <= orjson.loads(capsys.readouterr().out)["expected_s"] <= elapsed + 1  # with the files put in place
    assert run("inspect", EXAMPLES / "alpaca.json", *options) == 0
    assert "8 rows: scoring should take" in capsys.readouterr().out
    assert run("inspect", EXAMPLES / "alpaca.json", *options[:-1], "reward", "--json") == 0
    assert orjson.loads(capsys.readouterr().out)["expected_s"] is None  # that model was not timed
