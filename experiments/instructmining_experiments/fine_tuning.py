"""Trains, evaluates and records every run of a plan; what is done already is not done again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import torch

from instructmining.bundle import Role
from instructmining.errors import DeviceError, InputError, TrainingError
from instructmining.inference.devices import Device, choose_devices, cpu_threads
from instructmining.tokenizing.truncation import Tokens
from instructmining.writing.atomic import claimed, write_whole
from instructmining_experiments.evaluation import as_json, base_role, export_base, from_json, graph_of, losses
from instructmining_experiments.plan import Plan, Run
from instructmining_experiments.pool import Pool
from instructmining_experiments.progress import Progress, Report
from instructmining_experiments.runs import Result, RunFolder
from instructmining_experiments.schedule import schedule, steps_per_epoch
from instructmining_experiments.settings import Begun, Settings, plan_digest
from instructmining_experiments.sweep import chosen_rate, swept_run
from instructmining_experiments.tables import write_tables
from instructmining_experiments.texts import tokens_of
from instructmining_experiments.training import Places, Recipe, Trained, fine_tune, lengths
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.hub import resolve

BASE = "base.json"


@dataclass(frozen=True, slots=True)
class Work:
    """How the work is done; the results do not depend on it."""

    device: str = "auto"
    keep_models: bool = False
    retry_failed: bool = False
    checkpoint_steps: int = 20
    report: Report = field(default=lambda _: None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What lies in the experiment's folder at the end."""

    finished: int
    failed: Mapping[str, str]  # run → reason
    to_come: int
    learning_rate: float | None  # of the finished runs
    base: Mapping[str, float]  # loss before training, by evaluation set


def train(folder: Path, model: str, *, settings: Settings, work: Work) -> Outcome:
    """Train, evaluate and record every run that is not recorded yet.

    Args:
        folder: of the experiment, with its plan.
        model: an id on the hub, or a folder in its layout.
        settings: the same with every call for one experiment.
        work: how.

    Raises:
        InputError: there is no plan, it was edited, the settings differ from an earlier call's, or a row has no place
            in the model's template.
        ExportError: the model cannot be found, loaded or exported.
        DeviceError: the device does not work here.
        TrainingError: every rate of the sweep fails.
        OutputError: the disk refuses a file, or another process works in the folder.
    """
    plan = Plan.load(folder)
    with claimed(folder):
        pool = Pool.of_plan(folder, plan)
        device = choose_devices(work.device, 1)[0]
        checkpoint = resolve(model, report=work.report)
        begun = Begun(checkpoint.source, settings, device.kind, plan_digest(folder))
        if is_first := not begun.is_kept(folder):
            role = export_base(
                folder, checkpoint, template=settings.template, max_length=settings.max_length, report=work.report
            )
        else:
            role = base_role(folder)
        laboratory = Laboratory.of(folder, plan, pool, role, settings, device)
        if is_first:
            begun.keep(folder)
        return _Session(laboratory, plan, pool, work).train(checkpoint)


def evaluate(folder: Path, *, work: Work) -> Outcome:
    """Evaluate every trained model that lies in the folder, and write the tables.

    Raises:
        InputError: nothing was trained yet, or a file is damaged.
        DeviceError: the device does not work here.
        OutputError: the disk refuses a file, or another process works in the folder.
    """
    plan = Plan.load(folder)
    with claimed(folder):
        begun = Begun.load(folder)
        if begun.plan_sha256 != plan_digest(folder):
            raise InputError(f"{folder}: its runs were trained by another plan; design another folder")
        pool = Pool.of_plan(folder, plan)
        role = base_role(folder)
        laboratory = Laboratory.of(folder, plan, pool, role, begun.settings, choose_devices(work.device, 1)[0])
        return _Session(laboratory, plan, pool, work).evaluate()


@dataclass(frozen=True, slots=True)
class Laboratory:
    """What trains and evaluates runs of one experiment: tokens, settings and device."""

    folder: Path
    role: Role
    settings: Settings
    device: Device
    torch_device: torch.device  # the same
    texts: Mapping[int, Tokens]  # by number of the row in the pool
    sets: Mapping[str, Sequence[Tokens]]  # of evaluation, by name
    steps: int  # of an epoch

    @classmethod
    def of(cls, folder: Path, plan: Plan, pool: Pool, role: Role, settings: Settings, device: Device) -> Laboratory:
        """Tokenize the rows of a plan.

        Raises:
            InputError: a row has no place in the model's template, or no response token.
            DeviceError: PyTorch cannot use the device.
        """
        rows = [row for part in [run.rows for run in plan.runs] + [one.rows for one in plan.evaluation] for row in part]
        texts = tokens_of(pool.examples, rows, role)
        sets = {one.name: [texts[row] for row in one.rows] for one in plan.evaluation}
        runs = [lengths([texts[row] for row in run.rows]) for run in plan.runs]
        steps = steps_per_epoch(runs, step_tokens=settings.step_tokens)
        if device.kind == "cpu":
            torch.set_num_threads(cpu_threads())
        return cls(folder, role, settings, device, _torch_device(device), texts, sets, steps)

    def train(self, base: Checkpoint, run: Run, name: str, rate: float, *, checkpoint_steps: int) -> Trained:
        """Train on a run's rows, and leave the model in the run's folder.

        Raises:
            TrainingError: the run fails.
        """
        state = RunFolder.of(self.folder, name)
        state.path.mkdir(parents=True, exist_ok=True)
        if state.model.exists():
            return Trained.read(state.model)
        texts = [self.texts[row] for row in run.rows]
        dealt = schedule(lengths(texts), steps=self.steps, epochs=self.settings.epochs, seed=run.seed)
        recipe = Recipe(rate, self.settings.warmup, self.settings.weight_decay, self.settings.clip, run.seed)
        places = Places(state.model, state.checkpoint, checkpoint_steps)
        steps = [[texts[row] for row in rows] for rows in dealt]
        return fine_tune(base, steps, recipe, device=self.torch_device, places=places)

    def evaluate(self, run: Run, name: str, rate: float, trained: Trained) -> Result:
        """Evaluate the model in a run's folder.

        Raises:
            DeviceError: the device fails.
        """
        state = RunFolder.of(self.folder, name)
        begin = time.perf_counter()
        with graph_of(Checkpoint(state.model), self.role, state.path, device=self.device) as graph:
            found = losses(graph, self.role, self.sets, self.device)
        return Result(
            name=name,
            seed=run.seed,
            learning_rate=rate,
            steps=len(trained.losses),
            tokens=trained.tokens,
            scored=trained.scored,
            train_losses=tuple(trained.losses),
            evaluation=as_json(found),
            device=self.device.kind,
            train_seconds=trained.seconds,
            evaluation_seconds=time.perf_counter() - begin,
        )

    def base_losses(self) -> dict[str, float]:
        """Return the loss of the base model, by evaluation set; computed once."""
        file = self.folder / BASE
        if not file.exists():
            found = losses(self.role.graph_on(self.device.kind), self.role, self.sets, self.device)
            write_whole(file, orjson.dumps(as_json(found)))
        return {name: one.loss for name, one in from_json(orjson.loads(file.read_bytes())).items()}


@dataclass(slots=True)
class _Session:
    """One call of ``train`` or ``evaluate``."""

    laboratory: Laboratory
    plan: Plan
    pool: Pool
    work: Work
    base: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.work.report("measuring the loss before training")
        self.base = self.laboratory.base_losses()

    def train(self, checkpoint: Checkpoint) -> Outcome:
        settings, plan = self.laboratory.settings, self.plan
        swept = 0 if settings.learning_rate is not None else len(settings.rates)
        progress = Progress(len(plan.runs) + swept, self.base[plan.evaluation[0].name], self.work.report)

        def loss_at(run: Run, name: str, rate: float) -> float | None:
            found = self._run(checkpoint, run, name, rate, progress)
            return None if found is None else found.losses[plan.evaluation[0].name]

        rate = settings.learning_rate
        if rate is None:
            rate = chosen_rate(self.laboratory.folder, plan, settings.rates, loss_at)
            self.work.report(f"learning rate {rate:g}: the best of {len(settings.rates)} on {swept_run(plan).name}")
        for run in plan.runs:
            self._run(checkpoint, run, run.name, rate, progress)
            self._write_tables()
        return self._outcome()

    def evaluate(self) -> Outcome:
        for run in self.plan.runs:
            state = RunFolder.of(self.laboratory.folder, run.name)
            if not state.model.exists():
                continue
            trained = Trained.read(state.model)
            result = self.laboratory.evaluate(run, run.name, trained.learning_rate, trained)
            state.keep_result(result)
            self.work.report(f"{run.name}: loss {_both(result)}")
        self._write_tables()
        return self._outcome()

    def _run(self, checkpoint: Checkpoint, run: Run, name: str, rate: float, progress: Progress) -> Result | None:
        """Train, evaluate and record a run that is not recorded yet; None where it fails."""
        state = RunFolder.of(self.laboratory.folder, name)
        if (found := state.result()) is not None:
            state.clear(keep_model=self.work.keep_models)
            progress.known(found.train_seconds + found.evaluation_seconds)
            return found
        if self.work.retry_failed:
            state.retry()
        if (reason := state.failure()) is not None:
            progress.failed(name, f"failed before: {reason}")
            return None
        try:
            trained = self.laboratory.train(checkpoint, run, name, rate, checkpoint_steps=self.work.checkpoint_steps)
            found = self.laboratory.evaluate(run, name, rate, trained)
        except (TrainingError, DeviceError) as error:
            state.keep_failure(str(error), seed=run.seed, learning_rate=rate)
            progress.failed(name, f"failed: {error}")
            return None
        state.keep_result(found)
        state.clear(keep_model=self.work.keep_models)
        progress.finished(found, found.losses[self.plan.evaluation[0].name])
        return found

    def _write_tables(self) -> None:
        write_tables(self.laboratory.folder, self.plan, self.pool, self.base)

    def _outcome(self) -> Outcome:
        finished: list[Result] = []
        failed: dict[str, str] = {}
        for run in self.plan.runs:
            state = RunFolder.of(self.laboratory.folder, run.name)
            if (found := state.result()) is not None:
                finished.append(found)
            elif (reason := state.failure()) is not None:
                failed[run.name] = reason
        to_come = len(self.plan.runs) - len(finished) - len(failed)
        rate = finished[0].learning_rate if finished else None
        return Outcome(len(finished), failed, to_come, rate, self.base)


def _both(result: Result) -> str:
    return ", ".join(f"{loss:.4f} on {name}" for name, loss in result.losses.items())


def _torch_device(device: Device) -> torch.device:
    """Return PyTorch's name of a device.

    Raises:
        DeviceError: PyTorch cannot use it.
    """
    if device.kind != "cuda":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(f"{device}: this PyTorch ({torch.__version__}) does not see it; install one with CUDA")
    return torch.device("cuda", device.index)
