from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from paths import EXAMPLES

from instructmining.writing.statistics import Statistics
from instructmining_cli.process.terminal import voice
from instructmining_cli.run import display as displays
from instructmining_cli.run.display import Display
from instructmining_scale.runs.scoring_run import FromBefore, Run


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain line each time that there is progress."""
    monkeypatch.setattr(displays, "_PLAIN_EVERY_S", 0.0)


def begun(statistics: Statistics, **values: object) -> Run:
    """A run that began ten seconds ago."""
    reader = SimpleNamespace(rows_expected=1000.0, rejected=0, unread={})
    named: dict[str, Any] = {"reader": reader, "settings": {}, "statistics": statistics, **values}
    named["began"] = time.perf_counter() - 10
    return Run(SimpleNamespace(), ["rows.jsonl"], "out.jsonl", **named)  # type: ignore[arg-type]


def shown(capsys: pytest.CaptureFixture[str], statistics: Statistics, **values: object) -> str:
    """The progress line of a run that began ten seconds ago."""
    Display(begun(statistics, **values)).progress(statistics)
    return capsys.readouterr().err


def test_progress_is_not_said_where_it_is_to_be_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice(), "quiet", True)
    assert shown(capsys, Statistics(rows_computed=250.0)) == ""


def test_speed_and_time_left_are_of_the_rows_computed(capsys: pytest.CaptureFixture[str]) -> None:
    counts = Statistics(rows_computed=250.0)
    counts.tokens["perplexity"] = 5000
    said = shown(capsys, counts)
    assert said.startswith("scoring: 25%  250 rows, 25.0 rows/s, 500 tokens/s, 30")
    assert re.search(r", (30\.0|29\.9|30\.1) s left", said)


def test_what_another_run_did_is_not_this_runs_speed(capsys: pytest.CaptureFixture[str]) -> None:
    earlier = Statistics(rows_computed=700.0, batches=70)
    earlier.tokens["perplexity"] = 70_000
    counts = Statistics()
    counts.restore(earlier.as_json())
    assert "70%  700 rows, 0.0 rows/s, 0 tokens/s, ? left" in shown(capsys, counts)
    counts.rows_computed += 100.0
    counts.tokens["perplexity"] += 10_000
    said = shown(capsys, counts, from_before=FromBefore(rows=700, batches=70))
    assert "80%  800 rows, 10.0 rows/s, 1,000 tokens/s, 20" in said


def test_the_limit_is_the_most_that_there_is_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, Statistics(rows_computed=100.0), settings={"limit": 200}).startswith("scoring: 50%")


def test_before_anything_is_known_no_time_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    reader = SimpleNamespace(rows_expected=None, rejected=0, unread={})
    assert shown(capsys, Statistics(rows_computed=5.0), reader=reader).rstrip().endswith("? left")


@pytest.mark.parametrize(
    ("left", "needed", "said"),
    [
        (500, 2000, "about 2 KiB next to out.jsonl; 500 bytes are free"),
        (100 << 10, 200 << 10, "about 200 KiB next to out.jsonl; 100 KiB are free"),
        (1 << 20, 5 << 30, "about 5.0 GiB next to out.jsonl; 1 MiB are free"),
        (20 << 30, 5 << 30, "the run needs about 5.0 GiB next to out.jsonl; 20.0 GiB are free"),
        (2000 << 30, 5 << 30, ""),
        (1 << 20, 2000, ""),
        (0, 0, ""),
    ],
)
def test_the_room_is_said_where_it_matters_in_a_unit_that_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], left: int, needed: int, said: str
) -> None:
    monkeypatch.setattr(displays, "room_left", lambda _: left)
    monkeypatch.setattr(displays, "room_needed", lambda *_, **__: needed)
    run = Run(SimpleNamespace(embedding_size=None), [str(Path("rows.jsonl"))], "out.jsonl", {})  # type: ignore[arg-type]
    Display(run).say_room()
    found = capsys.readouterr().err
    assert said in found
    assert bool(said) == bool(found)


def on_a_terminal(arguments: list[str], folder: Path, columns: int = 80, **environment: str) -> tuple[int, str]:
    """The exit code of a command whose standard error is a terminal, and what it shows there."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [sys.executable, "-m", "instructmining", *arguments]
    variables = {"TERM": "xterm-256color", **environment}
    inherited = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR", "TERM"}}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=its, env=inherited | variables, cwd=folder
    ) as process:
        os.close(its)
        shown = b""
        with suppress(OSError):  # the end of a terminal
            while part := os.read(ours, 1 << 16):
                shown += part
    os.close(ours)
    return process.returncode, shown.decode().replace("\r\n", "\n")


@pytest.mark.skipif(os.name != "posix", reason="terminals")
@pytest.mark.parametrize(
    ("environment", "is_live", "is_coloured"),
    [({}, True, True), ({"NO_COLOR": "1"}, True, False), ({"TERM": "dumb"}, False, False)],
)
def test_a_terminal_has_a_live_view_and_a_closing_table_that_fits(
    small_bundle: Path, tmp_path: Path, environment: dict[str, str], is_live: bool, is_coloured: bool
) -> None:
    shutil.copy(EXAMPLES / "bad_rows.jsonl", tmp_path)
    arguments = ["score", "bad_rows.jsonl", "-o", "out.jsonl", "--bundle", str(small_bundle)]
    code, shown = on_a_terminal([*arguments, "--indicators", "perplexity"], tmp_path, **environment)
    assert code == 3
    assert ("\x1b[?25l" in shown) == is_live
    assert ("\x1b[38;5;" in shown) == is_coloured
    *_, closing = shown.rpartition("\x1b[2K")
    if not is_live:
        assert re.search(r"^scored 5 rows in [\d.]+ s ", closing, re.MULTILINE)
        assert "\x1b" not in shown
        return
    lines = closing.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    names = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert names[:7] == ["scored", "rejected", "truncated", "null", "tokens/s", "busy", "time"]


@pytest.mark.skipif(os.name != "posix", reason="terminals")
def test_a_terminal_shows_nothing_of_a_quiet_run(small_bundle: Path, tmp_path: Path) -> None:
    arguments = ["score", str(EXAMPLES / "alpaca.json"), "-o", "out.jsonl", "--bundle", str(small_bundle), "-q"]
    assert on_a_terminal([*arguments, "--indicators", "mtld"], tmp_path) == (0, "")


def test_a_pipe_has_plain_lines_where_colour_is_forced(
    run: Callable[..., int],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    arguments = ("-o", tmp_path / "out.jsonl", "--bundle", small_bundle, "--indicators", "mtld")
    assert run("score", EXAMPLES / "messages.jsonl", *arguments) == 0
    assert "\x1b" not in capsys.readouterr().err
