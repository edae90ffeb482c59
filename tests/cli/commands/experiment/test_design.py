from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

WORDS = ["the", "of", "to", "is", "you", "that", "was", "with", "green", "blue", "train", "noon", "ferry", "bread"]


@pytest.fixture
def command(write_rows: Callable[..., Path], small_bundle: Path, tmp_path: Path) -> tuple[str, ...]:
    rng = random.Random(0)
    rows = [{"instruction": " ".join(rng.choices(WORDS, k=5)), "output": " ".join(rng.choices(WORDS, k=9))}]
    rows += [
        {"instruction": f"{number} is", "output": " ".join(rng.choices(WORDS, k=number))} for number in range(5, 90)
    ]
    options = ("--bundle", small_bundle, "--indicators", "perplexity,mtld", "--runs", "6", "--subset-tokens", "900")
    given = (
        "experiment",
        "design",
        write_rows(*rows),
        "-o",
        tmp_path / "e",
        *options,
        "--evaluation-rows",
        "6",
        "--near",
        "0.001",
    )
    return tuple(map(str, given))


def test_a_design_says_what_it_costs_and_what_it_can_find(
    run: Callable[..., int], command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command) == 0
    shown = capsys.readouterr()
    assert "runs: 3 random, 3 tilted, 8 replicates; 900 tokens each within 1%" in shown.out
    assert "the time is not measured on this device yet" in shown.out
    assert "detects, in 80% of experiments at the 5% level: a correlation of 0.92; a partial R² of " in shown.out
    assert "spread of set means  " in shown.out
    assert shown.err.endswith(f"planned: {command[4]}\n")
    assert run(*command, "--tokens-per-second", "60") == 0
    shown = capsys.readouterr()
    assert " of training at 60 tokens/s" in shown.out
    assert shown.err == f"already planned so: {command[4]}\n"


def test_json_holds_the_same_figures(
    run: Callable[..., int], command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, "--json", "--quiet", "--tokens-per-second", "50") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    found = json.loads(shown.out)
    assert (found["out"], found["new"]) == (command[4], True)
    assert found["runs"] == {"random": 3, "tilted": 3, "replicate": 8}
    assert found["hours"] == pytest.approx(found["cost"]["total_tokens"] / 50 / 3600)
    assert found["detectable"]["terms"] == 2


def test_a_bundle_without_a_role_is_one_line(
    run: Callable[..., int], command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, "--indicators", "naturalness") == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    assert "naturalness" in said
