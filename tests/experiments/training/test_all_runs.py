from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from small_experiment import SPOILT_FROM, Small, run, write_experiment
from small_models import causal_model

from instructmining.errors import ExportError, InputError, OutputError, TrainingError
from instructmining.rules.fitting.training_runs import read_runs
from instructmining.writing.atomic import claimed
from instructmining_experiments.state.plan import PLAN
from instructmining_experiments.state.runs import RunFolder
from instructmining_experiments.state.settings import Settings
from instructmining_experiments.training import laboratory
from instructmining_experiments.training.all_runs import evaluate, train
from instructmining_experiments.training.laboratory import Work

SETTINGS = Settings(max_length=128, step_tokens=120, learning_rate=1e-3)
SWEEP = Settings(max_length=128, step_tokens=120, rates=(1e-5, 3e-3))
WORK = Work(device="cpu", checkpoint_steps=1)
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["instructmining_experiments.training.all_runs"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(causal_model("llama", tmp_path_factory.mktemp("model") / "llama"))


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return write_experiment(tmp_path / "experiment")


@pytest.fixture(scope="module")
def swept(model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """An experiment whose rate was chosen, and what was said."""
    small, said = write_experiment(tmp_path_factory.mktemp("swept") / "experiment"), []
    train(small.folder, model, settings=SWEEP, work=Work(device="cpu", report=said.append))
    return small.folder, said


def files_of(folder: Path) -> dict[str, object]:
    """Every file that results are read from, without the seconds."""
    found: dict[str, object] = {"runs.csv": (folder / "runs.csv").read_text()}
    for file in sorted(folder.glob("runs/*/*.json")):
        content = json.loads(file.read_bytes())
        found[str(file.relative_to(folder))] = {key: one for key, one in content.items() if "seconds" not in key}
    lines = (folder / "results.csv").read_text().splitlines()
    found["results.csv"] = [[cell for at, cell in enumerate(line.split(",")) if at not in {11, 12}] for line in lines]
    return found


def test_every_run_is_trained_evaluated_recorded_and_its_weights_are_deleted(swept: tuple[Path, list[str]]) -> None:
    folder, said = swept
    runs = read_runs(folder / "runs.csv")
    assert runs.labels == ("r001", "r002", "r003")
    assert runs.means["perplexity"].tolist() == [22.5, 34.5, 22.5]
    assert len(set(runs.losses.tolist())) == 3
    header, *lines = [line.split(",") for line in (folder / "results.csv").read_text().splitlines()]
    first = dict(zip(header, lines[0], strict=True))
    assert (first["state"], first["seed"], first["replicates"], first["learning_rate"]) == (
        "finished",
        "5",
        "",
        "0.003",
    )
    assert len({(line[6], line[13]) for line in lines}) == 1  # equal steps, one device
    assert float(first["loss.held_out"]) == runs.losses[0] < float(first["base_loss.held_out"])
    assert float(first["loss.other"]) != float(first["loss.held_out"])
    assert sorted(path.name for path in (folder / "runs").iterdir()) == [
        "r001", "r002", "r003", "sweep-0.003", "sweep-1e-05",
    ]  # fmt: skip
    assert {file.name for file in (folder / "runs").glob("*/*")} == {"result.json"}
    assert any(line.startswith("r002 (4 of 5): loss ") and line.endswith(" left") for line in said)
    assert said[-1].endswith("no run is left")


def test_the_rate_with_the_least_loss_on_the_first_set_is_chosen_and_recorded(swept: tuple[Path, list[str]]) -> None:
    folder, said = swept
    sweep = json.loads((folder / "sweep.json").read_bytes())
    assert (sweep["rows_of"], sweep["evaluation_set"], sweep["chosen"]) == ("r001", "held_out", 0.003)
    assert sweep["losses"][1]["loss"] < sweep["losses"][0]["loss"]
    assert sweep["at_the_edge"] is True
    assert (
        "learning rate 0.003: the best of 2 on r001; it is the largest of them: a larger one may be better, with other "
        "--rates in another folder" in said
    )


def test_what_is_done_is_not_done_again(swept: tuple[Path, list[str]], model: str) -> None:
    folder, _ = swept
    before = {file: file.stat().st_mtime_ns for file in folder.glob("runs/*/*")}
    outcome = train(folder, model, settings=SWEEP, work=WORK)
    assert (outcome.finished, outcome.failed, outcome.to_come, outcome.learning_rate) == (3, {}, 0, 0.003)
    assert {file: file.stat().st_mtime_ns for file in folder.glob("runs/*/*")} == before


@pytest.fixture
def without(swept: tuple[Path, list[str]], tmp_path: Path) -> Callable[..., Path]:
    """Copies the experiment without some of its runs."""

    def copy(*names: str) -> Path:
        copied = Path(shutil.copytree(swept[0], tmp_path / "experiment"))
        for name in names:
            shutil.rmtree(copied / "runs" / name)
        return copied

    return copy


def _train_in_child(folder: Path, model: str) -> None:
    train(folder, model, settings=SWEEP, work=WORK)


def test_runs_killed_at_random_end_with_the_same_files(
    swept: tuple[Path, list[str]], without: Callable[..., Path], model: str
) -> None:
    whole, cut = swept[0], without("r001", "r002", "r003", "sweep-0.003")
    for name in ("base.json", "sweep.json", "runs.csv", "results.csv"):
        (cut / name).unlink()
    rng, kills = random.Random(1), 0
    for _ in range(12):
        child = _FORKING.Process(target=_train_in_child, args=(cut, model))
        child.start()
        child.join(rng.uniform(0.3, 2.5) if kills < 2 else 60)
        if not child.is_alive():
            assert child.exitcode == 0
            break
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
    assert kills
    assert files_of(cut) == files_of(whole)
    left = [file for file in cut.rglob("*") if not (whole / file.relative_to(cut)).exists()]
    assert all(file.name.endswith(".instructmining") and file.stat().st_size < 10_000 for file in left), left
    assert not any(file.is_dir() for file in left), left


def test_a_failed_run_is_recorded_and_trained_again_only_if_asked(
    without: Callable[..., Path], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = without("r002")

    def fails(*_: object, **__: object) -> object:
        raise TrainingError("step 1 of 3: loss nan")

    with monkeypatch.context() as patched:
        patched.setattr(laboratory, "fine_tune", fails)
        outcome = train(folder, model, settings=SWEEP, work=WORK)
    assert (outcome.finished, outcome.failed) == (2, {"r002": "step 1 of 3: loss nan"})
    assert [line[:5] for line in (folder / "runs.csv").read_text().splitlines()] == ["name,", "r001,", "r003,"]
    assert "\nr002,random,,6,failed," in (folder / "results.csv").read_text()
    assert json.loads((folder / "runs/r002/failure.json").read_bytes())["learning_rate"] == 3e-3
    assert train(folder, model, settings=SWEEP, work=WORK).failed == outcome.failed
    again = train(folder, model, settings=SWEEP, work=replace(WORK, retry_failed=True))
    assert (again.finished, again.failed) == (3, {})
    assert not (folder / "runs/r002/failure.json").exists()


def test_models_that_were_kept_are_evaluated_again_with_the_same_losses(
    without: Callable[..., Path], model: str
) -> None:
    folder = without("r001")
    train(folder, model, settings=SWEEP, work=replace(WORK, keep_models=True))
    state = RunFolder.of(folder, "r001")
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {file.name for file in state.model.iterdir()}
    before = state.result()
    table = (folder / "runs.csv").read_bytes()
    (folder / "runs.csv").unlink()
    (state.path / "result.json").unlink()
    outcome = evaluate(folder, work=WORK)
    after = state.result()
    assert before is not None
    assert after is not None
    assert (outcome.finished, outcome.learning_rate, after.losses) == (3, 3e-3, before.losses)
    assert after.train_losses == before.train_losses
    assert (folder / "runs.csv").read_bytes() == table


def test_more_spoilt_rows_end_in_a_higher_loss(small: Small, model: str) -> None:
    def rows(spoilt: int) -> Sequence[int]:
        return [*range(16, 40 - spoilt), *range(SPOILT_FROM, SPOILT_FROM + spoilt)]

    made = small.with_runs(*(run(f"r{spoilt:03d}", rows(spoilt), 5) for spoilt in (0, 12, 24)))
    settings = Settings(max_length=128, step_tokens=120, epochs=3, learning_rate=1e-2)
    train(made.folder, model, settings=settings, work=Work(device="cpu"))
    losses = read_runs(made.folder / "runs.csv", ["perplexity"]).losses
    assert losses[0] < losses[1] < losses[2]


def _edited(folder: Path) -> None:
    content = orjson.loads((folder / PLAN).read_bytes())
    content["runs"][0]["rows"].append(0)
    (folder / PLAN).write_bytes(orjson.dumps(content))


def _other_pool(folder: Path) -> None:
    with (folder / "scored.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / PLAN).unlink(), "has no plan.json"),
        (_edited, "plan.json: was edited after it was written"),
        (_other_pool, "scored.jsonl: is not the scored pool that the plan was drawn from"),
    ],
)
def test_a_folder_that_was_changed_is_one_clear_error(
    small: Small, model: str, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(small.folder)
    with pytest.raises(InputError, match=message):
        train(small.folder, model, settings=SETTINGS, work=WORK)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 2}, r"training.json: earlier runs of this experiment have settings epochs 1, this one 2; give the"),
        ({"learning_rate": 0.5}, r"earlier runs of this experiment have settings learning_rate unset, this one 0.5"),
    ],
)
def test_runs_of_one_experiment_have_the_same_settings(
    swept: tuple[Path, list[str]], model: str, changes: Mapping[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(swept[0], model, settings=replace(SWEEP, **changes), work=WORK)  # type: ignore[arg-type]


def test_runs_of_a_single_step_whose_seed_changes_nothing_are_refused(small: Small, model: str) -> None:
    with pytest.raises(InputError, match=r"each run would have a single step, with --step-tokens 5000, and its seed"):
        train(small.folder, model, settings=replace(SETTINGS, step_tokens=5000), work=WORK)


def test_two_processes_do_not_work_in_one_folder(small: Small, model: str) -> None:
    with claimed(small.folder), pytest.raises(OutputError, match="another run writes there"):
        train(small.folder, model, settings=SETTINGS, work=WORK)


def test_a_call_that_ends_before_its_first_run_settles_nothing(small: Small, model: str, tmp_path: Path) -> None:
    other = causal_model("llama", tmp_path / "other", hidden_size=48)
    for file in other.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ExportError, match="has no tokenizer"):
        train(small.folder, str(other), settings=replace(SETTINGS, epochs=2), work=WORK)
    one = small.with_runs(run("r001", range(16, 28), 5))
    assert train(one.folder, model, settings=SETTINGS, work=WORK).finished == 1


def test_evaluating_before_training_is_one_clear_error(small: Small) -> None:
    with pytest.raises(InputError, match="has no trained runs; 'instructmining experiment train' trains them"):
        evaluate(small.folder, work=WORK)
