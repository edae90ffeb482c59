from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from paths import EXAMPLES

from instructmining_cli.options.renamed import RENAMED, by_new_names


def test_an_option_by_its_former_name_is_the_new_one_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert by_new_names(["score", "--max-tokens", "64", "--budget-tokens=5"]) == [
        "score",
        "--max-length",
        "64",
        "--max-batch-tokens=5",
    ]
    assert capsys.readouterr().err.splitlines() == [
        "--max-tokens is called --max-length now; the old name goes with the next release",
        "--budget-tokens is called --max-batch-tokens now; the old name goes with the next release",
    ]


def test_what_is_no_option_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["score", "a=b", "--max-length", "7", "--", "--max-tokens"]
    assert by_new_names(arguments) == arguments
    assert not capsys.readouterr().err


def test_a_run_takes_the_former_names(run: Callable[..., int], small_bundle: Path, tmp_path: Path) -> None:
    former = [part for name in RENAMED for part in (name, "512")]
    arguments = ("score", EXAMPLES / "alpaca.json", "-o", tmp_path / "out.jsonl", "--bundle", small_bundle)
    assert run(*arguments, "--indicators", "perplexity", *former) == 0
