"""The whole loop on a model of two layers: a pool with known bad rows, a rule, and a comparison by it."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_models import causal_model

from instructmining_cli.main import main
from instructmining_experiments.state.plan import Plan

WORDS = ["the", "of", "to", "is", "you", "that", "was", "with", "green", "blue", "train", "noon", "ferry", "bread"]
RESULTS = ("plan.json", "runs.csv", "rule.json", "fit.json", "comparison.csv", "comparison.svg")
SECONDS = {"train_seconds", "evaluation_seconds", "seconds"}
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["instructmining_experiments.comparing.comparison", "instructmining_cli.app"])


def rows_of(seed: int, rows: int) -> list[dict[str, object]]:
    rng = random.Random(seed)
    return [
        {"instruction": f"{number} {' '.join(rng.choices(WORDS, k=4))}", "output": " ".join(rng.choices(WORDS, k=size))}
        for number, size in enumerate(rng.choices(range(5, 20), k=rows))
    ]


@pytest.fixture
def config(
    tmp_path: Path, write_rows: Callable[..., Path], small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Writes the file of an experiment into a folder, by the folder's name."""
    write_rows(*rows_of(1, 260), name="pool.jsonl")
    model = causal_model("llama", tmp_path / "llama")
    monkeypatch.chdir(tmp_path)

    def write(out: str) -> Path:
        text = f"""
            out = "{out}"
            [design]
            pool = ["pool.jsonl"]
            bundle = "{small_bundle}"
            indicators = "mtld,perplexity"
            runs = 8
            replicates = 1
            subset-tokens = 400
            evaluation-rows = 6
            reserve = 0.5
            near = 0.001
            device = "cpu"
            [train]
            model = "{model}"
            rates = "1e-3,1e-2"
            step-tokens = 200
            max-length = 128
            checkpoint-steps = 1
            device = "cpu"
            [fit]
            id = "found"
            bootstrap = 200
            licence = "of the words: none"
            [compare]
            model = "{model}"
            methods = "longest"
            seeds = 2
            random = 2
            checkpoint-steps = 1
            device = "cpu"
        """
        file = tmp_path / f"{out}.toml"
        file.write_text("\n".join(line.strip() for line in text.splitlines()), encoding="utf-8")
        return file

    return write


def contents(folder: Path) -> dict[str, object]:
    """What an experiment found, without the seconds that it took."""
    found: dict[str, object] = {name: (folder / name).read_bytes() for name in RESULTS}
    for name in ("results.csv", "comparison-runs.csv"):
        with (folder / name).open(encoding="utf-8") as opened:
            found[name] = [
                {key: cell for key, cell in row.items() if key not in SECONDS} for row in csv.DictReader(opened)
            ]
    return found


def _run_in_child(file: Path) -> None:
    sys.argv = ["instructmining", "experiment", "run", str(file), "--quiet"]
    main()


def test_the_whole_loop_killed_at_random_ends_with_the_same_files(
    config: Callable[[str], Path], tmp_path: Path
) -> None:
    rng, kills = random.Random(3), 0
    for name in ("whole", "cut"):
        file = config(name)
        while True:
            child = _FORKING.Process(target=_run_in_child, args=(file,))
            child.start()
            child.join(rng.uniform(1, 7) if name == "cut" and kills < 4 else 240)
            if not child.is_alive():
                assert child.exitcode == 0
                break
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += 1
    assert kills
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    _check_what_was_seen(tmp_path / "whole")


def _check_what_was_seen(folder: Path) -> None:
    plan = Plan.load(folder)
    trained = {row for run in plan.runs for row in run.rows}
    held_out = {row for one in plan.evaluation for row in one.rows} | {one.row for one in plan.left_out}
    selections = json.loads((folder / "comparison/selections.json").read_bytes())["selections"]
    compared = {row for one in selections for row in one["rows"]}
    assert trained
    assert compared
    assert not trained & held_out
    assert not compared & (trained | held_out)
    assert compared <= set(plan.reserved)
    rule = json.loads((folder / "rule.json").read_bytes())
    assert rule["provenance"]["experiment"]["licences"] == ["of the words: none"]
