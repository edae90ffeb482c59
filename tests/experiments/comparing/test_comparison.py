from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from small_experiment import SPOILT_FROM, run, write_experiment
from small_models import causal_model

from instructmining.bundle import Bundle
from instructmining.errors import InputError, OutputError, RuleError, TrainingError
from instructmining.rules import Rule
from instructmining_experiments.comparing.comparison import Comparison, compare
from instructmining_experiments.comparing.comparison_plan import CompareOptions, Scoring
from instructmining_experiments.state.plan import Plan
from instructmining_experiments.state.settings import Settings
from instructmining_experiments.training import laboratory
from instructmining_experiments.training.all_runs import train
from instructmining_experiments.training.laboratory import Work

RULE = Rule("unspoilt-first", 0.0, {"perplexity": 0.01})  # spoilt rows have the highest perplexity
OPTIONS = CompareOptions(methods=("highest-ifd", "all"), seeds=2, random=2)
WORK = Work(device="cpu", checkpoint_steps=1)
FILES = ("comparison.csv", "comparison-runs.csv", "comparison.svg", "comparison/selections.json")
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["instructmining_experiments.comparing.comparison"])


def no_bundle() -> Bundle:
    raise AssertionError("no bundle is needed")


def compared(
    folder: Path, options: CompareOptions = OPTIONS, *, rule: Rule = RULE, overwrite: bool = False
) -> Comparison:
    model = str(folder.parent / "llama")
    scoring = Scoring(no_bundle)
    return compare(folder, (), options, rule=rule, scoring=scoring, work=WORK, model=model, overwrite=overwrite)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with one run, and rows 40 to 95 reserved, of which those from 64 are spoilt."""
    small = write_experiment(tmp_path_factory.mktemp("compared") / "experiment")
    plan = replace(small.plan, reserved=tuple(range(40, 96)), runs=(run("r001", range(16, 28), 5),))
    plan.save(small.folder)
    model = causal_model("llama", small.folder.parent / "llama")
    settings = Settings(max_length=128, step_tokens=120, epochs=3, learning_rate=1e-2)
    train(small.folder, str(model), settings=settings, work=WORK)
    return small.folder


@pytest.fixture(scope="module")
def whole(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    folder = shutil.copytree(trained.parent, tmp_path_factory.mktemp("whole") / "both") / "experiment"
    return folder, compared(folder)


@pytest.fixture
def fresh(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained.parent, tmp_path / "both") / "experiment"


def table(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def contents(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {name: (folder / name).read_bytes() for name in FILES if name != "comparison-runs.csv"}
    for line in table(folder / "comparison-runs.csv"):
        found[line["name"]] = {key: cell for key, cell in line.items() if key != "seconds"}
    return found


def test_a_rule_that_avoids_spoilt_rows_trains_a_better_model(whole: tuple[Path, Comparison]) -> None:
    folder, found = whole
    assert "train a better model than random ones" in found.sentence
    assert (found.finished, found.failed) == (5, {})
    assert found.plan.left_out_methods == ("highest-ifd",)  # the pool has no such column
    lines = table(folder / "comparison.csv")
    assert [(line["evaluation_set"], line["method"], line["runs"]) for line in lines] == [
        (name, method, runs)
        for name in ("held_out", "other")
        for method, runs in (("rule", "2"), ("random", "2"), ("all", "1"))
    ]
    assert float(lines[0]["minus_random_high"]) < 0 < float(lines[0]["base_loss"]) - float(lines[0]["loss"])
    assert lines[2]["minus_random"] == lines[2]["minus_rule"] == ""
    assert lines[0]["rows_of_files"].startswith("pool.jsonl ")


def test_selections_are_equal_in_tokens_and_steps_and_no_run_has_seen_their_rows(
    whole: tuple[Path, Comparison],
) -> None:
    folder, found = whole
    plan = Plan.load(folder)
    runs = {line["name"]: line for line in table(folder / "comparison-runs.csv")}
    matched = [line for line in runs.values() if line["method"] != "all"]
    assert all(abs(int(line["tokens"]) - plan.subset_tokens) <= 3 for line in matched)
    assert len({line["steps"] for line in matched}) == 1
    assert int(runs["all-1"]["steps"]) > int(matched[0]["steps"])
    for one in found.plan.selections:
        assert set(one.rows) <= set(plan.reserved)
    assert max(found.plan.selections[0].rows) < SPOILT_FROM


def test_what_is_done_is_not_done_again(whole: tuple[Path, Comparison]) -> None:
    folder, found = whole
    before = {file: file.stat().st_mtime_ns for file in folder.glob("comparison/runs/*/*")}
    assert compared(folder).as_json() == found.as_json()
    assert {file: file.stat().st_mtime_ns for file in folder.glob("comparison/runs/*/*")} == before
    assert not list(folder.glob("comparison/runs/*/model"))


def _compare_in_child(folder: Path) -> None:
    compared(folder)


def test_a_comparison_killed_at_random_ends_with_the_same_files(whole: tuple[Path, Comparison], fresh: Path) -> None:
    rng, kills = random.Random(2), 0
    for _ in range(12):
        child = _FORKING.Process(target=_compare_in_child, args=(fresh,))
        child.start()
        child.join(rng.uniform(0.5, 3) if kills < 2 else 60)
        if not child.is_alive():
            assert child.exitcode == 0
            break
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
    assert kills
    assert contents(fresh) == contents(whole[0])


def test_a_failed_run_is_recorded_and_the_others_are_compared(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = laboratory.fine_tune

    def fails(base, steps, recipe, *, device, places):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        if places.model.parent.name == "random-2":
            raise TrainingError("step 1 of 3: loss nan")
        return real(base, steps, recipe, device=device, places=places)

    monkeypatch.setattr(laboratory, "fine_tune", fails)
    found = compared(fresh, replace(OPTIONS, methods=(), seeds=2, random=3))
    assert (found.finished, found.failed) == (4, {"random-2": "step 1 of 3: loss nan"})
    assert [one.runs for one in found.figures] == [2, 2, 2, 2]
    assert "random-2,random," in (fresh / "comparison-runs.csv").read_text()


def test_another_comparison_in_the_same_folder_is_refused_unless_it_replaces_it(fresh: Path) -> None:
    small = replace(OPTIONS, methods=(), seeds=2, random=2)
    compared(fresh, small)
    other = Rule("spoilt-first", 0.0, {"perplexity": -0.01})
    with pytest.raises(OutputError, match=r"holds another comparison, of another rule; give --overwrite"):
        compared(fresh, small, rule=other)
    found = compared(fresh, small, rule=other, overwrite=True)
    assert min(found.plan.selections[0].rows) >= SPOILT_FROM - 8
    assert "train a worse model" in found.sentence


def test_bad_input_is_one_clear_error(fresh: Path) -> None:
    with pytest.raises(RuleError, match="needs reward"):
        compared(fresh, rule=Rule("other", 0.0, {"reward": 1.0}))
    with pytest.raises(InputError, match="no method 'best'"):
        compared(fresh, replace(OPTIONS, methods=("best",)))
    with pytest.raises(InputError, match="rows to draw from"):
        compared(fresh, replace(OPTIONS, subset_tokens=5000))
    selections = fresh / "comparison/selections.json"
    compared(fresh, replace(OPTIONS, methods=(), seeds=2, random=2))
    content = json.loads(selections.read_bytes())
    content["selections"][0]["rows"].append(16)
    selections.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"selections.json: was edited"):
        compared(fresh)
    shutil.copyfile(fresh / "comparison.svg", selections)
    with pytest.raises(InputError, match=r"selections.json: is not a comparison"):
        compared(fresh)
    with pytest.raises(InputError, match=r"begin at a model in a folder, 'llama'; name it with --model"):
        compare(fresh, (), OPTIONS, rule=RULE, scoring=Scoring(no_bundle), work=WORK, overwrite=True)
    (fresh / "training.json").unlink()
    with pytest.raises(InputError, match="has no trained runs"):
        compared(fresh)
