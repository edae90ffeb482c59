from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from instructmining.writing.statistics import Statistics
from instructmining_cli.process.terminal import voice
from instructmining_cli.run import display as displays
from instructmining_cli.run.display import Display
from instructmining_cli.run.run import FromBefore, Run


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
        (500, 2000, "about 2 KiB beside out.jsonl; 500 bytes are free"),
        (100 << 10, 200 << 10, "about 200 KiB beside out.jsonl; 100 KiB are free"),
        (1 << 20, 5 << 30, "about 5.0 GiB beside out.jsonl; 1 MiB are free"),
        (20 << 30, 5 << 30, "the run will need about 5.0 GiB beside out.jsonl; 20.0 GiB are free"),
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
