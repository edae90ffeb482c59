"""Trains, evaluates and records every run of a plan; what is done already is not done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from instructmining.errors import InputError
from instructmining.inference.devices import choose_devices
from instructmining.writing.atomic import claimed
from instructmining_experiments.state.plan import Plan, Run
from instructmining_experiments.state.pool import Pool
from instructmining_experiments.state.progress import Progress
from instructmining_experiments.state.runs import Result, RunFolder
from instructmining_experiments.state.settings import Begun, Settings, plan_digest
from instructmining_experiments.state.tables import write_tables
from instructmining_experiments.training.evaluation import base_role, export_base
from instructmining_experiments.training.laboratory import Laboratory, Work
from instructmining_experiments.training.loop import Trained
from instructmining_experiments.training.sweep import chosen_rate, swept_run
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.hub import resolve

_LEAST_STEPS = 2


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
        _check_steps(laboratory)
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


@dataclass(slots=True)
class _Session:
    """One call of ``train`` or ``evaluate``."""

    laboratory: Laboratory
    plan: Plan
    pool: Pool
    work: Work
    base: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.base = self.laboratory.base_losses(self.work.report)

    def train(self, checkpoint: Checkpoint) -> Outcome:
        settings, plan = self.laboratory.settings, self.plan
        swept = 0 if settings.learning_rate is not None else len(settings.rates)
        progress = Progress(len(plan.runs) + swept, self.base[plan.evaluation[0].name], self.work.report)

        def loss_at(run: Run, rate: float) -> float | None:
            found = self.laboratory.run(checkpoint, run, rate, work=self.work, progress=progress)
            return None if found is None else found.losses[plan.evaluation[0].name]

        rate = settings.learning_rate
        if rate is None:
            rate = chosen_rate(self.laboratory.folder, plan, settings.rates, loss_at)
            self.work.report(
                f"learning rate {rate:g}: the best of {len(settings.rates)} on {swept_run(plan).name}"
                + _edge(rate, settings.rates)
            )
        for run in plan.in_turn():
            self.laboratory.run(checkpoint, run, rate, work=self.work, progress=progress)
            self._write_tables()
        return self._outcome()

    def evaluate(self) -> Outcome:
        kept = [run for run in self.plan.runs if RunFolder.of(self.laboratory.folder, run.name).model.exists()]
        if not kept:
            self.work.report("no model was kept (train --keep-models); the tables are written from what train measured")
        for run in kept:
            state = RunFolder.of(self.laboratory.folder, run.name)
            trained = Trained.read(state.model)
            result = self.laboratory.evaluate(run, trained.learning_rate, trained)
            state.keep_result(result)
            self.work.report(f"{run.name}: loss {_both(result)}")
        self._write_tables()
        return self._outcome()

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


def _check_steps(laboratory: Laboratory) -> None:
    """Check that a run's seed, which decides which rows share a step, changes something.

    Raises:
        InputError: all rows of a run share its only step.
    """
    settings = laboratory.settings
    if laboratory.steps * settings.epochs < _LEAST_STEPS:
        raise InputError(
            f"each run would have a single step, with --step-tokens {settings.step_tokens}, and its seed would change "
            "nothing; give fewer --step-tokens, or larger subsets to design"
        )


def _edge(rate: float, rates: Sequence[float]) -> str:
    """Return a caution where the best rate may lie outside of those tried."""
    if len(rates) == 1 or min(rates) < rate < max(rates):
        return ""
    which, other = ("largest", "larger") if rate == max(rates) else ("smallest", "smaller")
    return f"; it is the {which} of them: a {other} one may be better, with other --rates in another folder"


def _both(result: Result) -> str:
    return ", ".join(f"{loss:.4f} on {name}" for name, loss in result.losses.items())
