from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import altered_bundle
import pytest
from paths import EXAMPLES

from instructmining import Bundle, __version__
from instructmining_cli.machine import throughput

ROWS = EXAMPLES / "alpaca.json"
OPTIONS = ("--indicators", "perplexity,reward,mtld", "--device", "cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few calls; the peak is measured as it is."""
    monkeypatch.setattr(throughput, "_LATENCY_S", 0.0)
    monkeypatch.setattr("instructmining_cli.machine.peaks.SHAPES", {"cpu": ((128, 256),)})
    monkeypatch.setattr("instructmining_cli.machine.peaks._SHAPE_S", 0.01)


@pytest.fixture
def counted(small_bundle: Path, tmp_path: Path) -> Path:
    """The small bundle with its products counted, as an export writes it."""
    path = altered_bundle.copy(small_bundle, tmp_path)
    layer = 32 * (32 + 16 + 16) + 32 * 32 + 3 * 32 * 48
    counts = {"token": 2 * layer, "scored": 32 * 400, "row": 32}
    return altered_bundle.edit(
        path, lambda manifest: [role.update(multiply_adds=counts) for role in manifest["roles"].values()]
    )


def test_the_table_tells_speed_stages_peak_memory_and_latency(
    run: Callable[..., int], counted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", ROWS, "--bundle", counted, *OPTIONS, "--rounds", "2") == 0
    shown = capsys.readouterr()
    names = [line.partition("  ")[0] for line in shown.out.splitlines() if not line.startswith(" ")]
    assert names == [
        *("device", "bundle", "columns", "rows", "rows/s", "tokens/s", "padding", "device busy", "share of peak"),
        *("peak, fp32", "reward+perplexity", "peak memory", "latency of 1 row", "latency of 8 rows"),
    ]
    stages = {line.split()[0] for line in shown.out.splitlines() if line.startswith(" ")}
    assert {"read", "tokenize", "indicators", "model:reward+perplexity:conversation"} <= stages
    assert "not known" not in shown.out
    assert "in 2 rounds" in shown.out
    assert "round 2 of 2" in shown.err
    assert "left out" not in shown.err


def test_the_figures_are_written_as_json(run: Callable[..., int], counted: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text("of the last time")
    arguments = ("bench", ROWS, "--bundle", counted, *OPTIONS, "--rounds", "1", "-o", file)
    assert run(*arguments) == 1
    assert file.read_text() == "of the last time"
    assert run(*arguments, "--overwrite") == 0
    figures = json.loads(file.read_bytes())
    assert figures["versions"]["instructmining"] == __version__
    assert figures["bundle"]["digest"] == Bundle.open(counted).digest
    assert figures["rows"] == {"read": 8, "scored": 8, "rejected": 0}
    assert figures["rows_per_s"] == pytest.approx(8 / figures["rounds"][0]["seconds"], rel=1e-3)
    assert 0 < figures["share_of_peak"] < 1.5
    assert 0 < figures["busy_share"] <= 1
    assert 0 <= figures["padding_share"] < 1
    assert figures["peak_gflop_per_s"]["fp32"] > 0.1
    role = figures["roles"]["reward+perplexity"]
    assert (role["precision"], role["texts"]) == ("fp32", 8)
    assert role["tokens_per_s"] == pytest.approx(role["tokens"] / role["seconds"], rel=1e-3)
    assert figures["tokens_per_s"] == pytest.approx(role["tokens"] / figures["rounds"][0]["seconds"], rel=1e-3)
    assert figures["memory_bytes"]["process_peak"] > 1e7
    assert set(figures["latency_ms"]) == {"1", "8"}
    assert all(0 < calls["p50"] <= calls["p95"] and calls["calls"] == 3 for calls in figures["latency_ms"].values())
    (device,) = figures["devices"]
    assert device.startswith("cpu (")
    assert figures["settings"]["columns"] == ["reward", "perplexity", "mtld"]
    assert not list(tmp_path.glob("*.partial"))


def test_json_on_standard_output_stands_there_alone(
    run: Callable[..., int], small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", ROWS, "--bundle", small_bundle, *OPTIONS, "--rounds", "1", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["share_of_peak"] is None  # of a bundle whose products nobody counted
    assert figures["roles"]["reward+perplexity"]["share_of_peak"] is None


def test_a_share_that_is_not_known_is_said(
    run: Callable[..., int], small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", ROWS, "--bundle", small_bundle, *OPTIONS, "--rounds", "1") == 0
    assert "not known: the bundle was written before products were counted" in capsys.readouterr().out


def test_rows_beyond_the_limit_and_the_missing_spread_are_said(
    run: Callable[..., int], counted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", ROWS, "--bundle", counted, *OPTIONS, "--rounds", "1", "--limit", "3") == 0
    shown = capsys.readouterr()
    assert "left out: rows beyond the first 3 (--limit); a second round" in shown.err
    assert "3 in " in shown.out


def test_without_models_there_is_no_peak_to_share(
    run: Callable[..., int], small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", ROWS, "--bundle", small_bundle, "--indicators", "mtld", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert "none: no model ran" in shown
    assert "GFLOP/s" not in shown


def test_bad_rows_are_counted_said_and_end_with_code_3(
    run: Callable[..., int], counted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", EXAMPLES / "bad_rows.jsonl", "--bundle", counted, *OPTIONS, "--rounds", "1") == 3
    shown = capsys.readouterr()
    assert "6 of 11 rejected" in shown.out
    assert "rejected 6 of 11 rows; score names them" in shown.err


def test_an_input_without_rows_is_an_error_in_one_line(
    run: Callable[..., int], counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    assert run("bench", tmp_path / "empty.jsonl", "--bundle", counted, *OPTIONS) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the input holds no row that can be scored")


def test_wrong_usage_ends_with_code_2_before_anything_runs(run: Callable[..., int]) -> None:
    assert run("bench") == 2
    assert run("bench", "-") == 2


def test_a_place_that_cannot_be_written_is_said_before_anything_runs(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", ROWS, "-o", tmp_path) == 1
    assert "is a folder; name a file" in capsys.readouterr().err
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    assert run("bench", rows, "-o", rows, "--overwrite") == 1
    assert "which this command reads; name another output" in capsys.readouterr().err
    assert rows.read_text() == "{}\n"


def test_the_table_fits_the_terminal(
    run: Callable[..., int], counted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("bench", ROWS, "--bundle", counted, *OPTIONS, "--rounds", "1") == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
