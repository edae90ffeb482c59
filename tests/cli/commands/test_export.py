"""The model repository of Triton; bundles are in tests/whole/test_export.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pretended_triton import PretendedTriton


def test_a_bundle_that_exists_becomes_a_model_repository(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], small_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "models"
    rule = tmp_path / "rule.json"
    rule.write_text('{"id": "mine", "intercept": 1.0, "terms": {"reward": -0.5}}')
    assert run("export", "--triton", out, "--bundle", small_bundle, "--rule", rule, "--json") == 0
    captured = capsys.readouterr()
    columns = ["reward", "predicted_log_loss"]
    said = {"out": str(out), "models": ["instructmining_reward"], "columns": columns}
    assert json.loads(captured.out) == {"triton": said}
    assert captured.err.splitlines()[-1] == f"wrote {out}"
    server = PretendedTriton(out)
    row = json.dumps({"instruction": "Name a colour.", "output": "Green."}).encode()
    (response,) = server.model.execute([server.request([row], *columns)])
    reward, loss = (tensor.as_numpy()[0, 0] for tensor in response.output_tensors())
    assert loss == pytest.approx(1 - 0.5 * reward)
    assert run("export", "--triton", out, "--bundle", small_bundle, "--indicators", "mtld") == 1
    assert "give --overwrite" in capsys.readouterr().err
    assert run("export", "--triton", out, "--bundle", small_bundle, "--indicators", "mtld", "--overwrite") == 0
    assert {entry.name for entry in out.iterdir()} == {"instructmining"}


def test_an_export_becomes_a_model_repository_too(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    small_bundle: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("instructmining_cli.run.demo_bundle.demo_bundle", lambda _: small_bundle)
    bundle, out = tmp_path / "bundle", tmp_path / "models"
    assert run("export", "--preset", "demo", "-o", bundle, "--triton", out, "--indicators", "reward", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["out"] == str(bundle)
    assert said["triton"]["models"] == ["instructmining_reward"]
    assert (out / "instructmining_reward" / "config.pbtxt").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--out is missing"),
        (["--reward", "model"], "--out is missing: the folder of the bundle"),
        (["--triton", "models"], "--triton: give --bundle, or models and -o"),
        (["-o", "out", "--preset", "demo", "--rule", "paper-v3"], "--rule is for a model repository"),
        (["--bundle", "bundle"], "--bundle is for a model repository"),
        (["--triton", "models", "--bundle", "bundle", "--preset", "demo"], "--bundle is a bundle that exists"),
        (["--triton", "models", "--bundle", "bundle", "-o", "out"], "--bundle is a bundle that exists"),
    ],
)
def test_options_of_a_repository_that_do_not_go_together_are_wrong_usage(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("export", *arguments) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_columns_that_need_neighbours_are_no_part_of_a_repository(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], small_bundle: Path, tmp_path: Path
) -> None:
    assert run("export", "--triton", tmp_path / "models", "--bundle", small_bundle, "--rule", "paper-v1") == 1
    assert "knn_6 needs the neighbours of each row" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_all_columns_of_a_model_repository_are_those_without_neighbours(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models"
    assert run("export", "--triton", out, "--bundle", small_bundle, "--indicators", "all") == 0
    said = capsys.readouterr().err
    assert "left out: knn_6, which needs the neighbours of each row" in said
    assert "columns: input_length, output_length, reward, perplexity, mtld, ifd\n" in said
