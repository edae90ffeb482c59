"""Trains, evaluates and records one run of an experiment; a run that is recorded is not trained again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import orjson
import torch

from instructmining.bundle import Role
from instructmining.errors import DeviceError, TrainingError
from instructmining.inference.devices import Device, cpu_threads
from instructmining.tokenizing.truncation import Tokens
from instructmining.writing.atomic import write_whole
from instructmining_experiments.state.plan import Plan
from instructmining_experiments.state.pool import Pool
from instructmining_experiments.state.progress import Progress, Report
from instructmining_experiments.state.runs import Result, RunFolder
from instructmining_experiments.state.settings import Settings
from instructmining_experiments.training.evaluation import as_json, from_json, graph_of, losses
from instructmining_experiments.training.loop import Places, Recipe, Trained, fine_tune, lengths
from instructmining_experiments.training.schedule import schedule, steps_per_epoch
from instructmining_experiments.training.texts import tokens_of
from instructmining_export.checkpoints import Checkpoint

BASE = "base.json"


@dataclass(frozen=True, slots=True)
class Work:
    """How the work is done; the results do not depend on it."""

    device: str = "auto"
    keep_models: bool = False
    retry_failed: bool = False
    checkpoint_steps: int = 20
    report: Report = field(default=lambda _: None)


class Subset(Protocol):
    """Rows to train on, under a name."""

    @property
    def name(self) -> str:
        """Name of its folder."""

    @property
    def rows(self) -> Sequence[int]:
        """Numbers of the rows in the pool."""

    @property
    def seed(self) -> int:
        """Decides which rows share a step."""


@dataclass(frozen=True, slots=True)
class Laboratory:
    """What trains and evaluates runs of one experiment: tokens, settings and device."""

    folder: Path  # whose folder ``runs`` has one folder for each run
    role: Role
    settings: Settings
    device: Device
    torch_device: torch.device  # the same
    texts: Mapping[int, Tokens]  # by number of the row in the pool
    sets: Mapping[str, Sequence[Tokens]]  # of evaluation, by name; the first is the one that a rule predicts
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
        if device.kind == "cpu":
            torch.set_num_threads(cpu_threads())
        found = cls(folder, role, settings, device, _torch_device(device), texts, sets, steps=1)
        return found.with_steps_for(plan.runs)

    def with_steps_for(self, subsets: Iterable[Subset]) -> Laboratory:
        """Return the same with the number of steps that suits these subsets, whose rows are tokenized."""
        tokens = [lengths([self.texts[row] for row in subset.rows]) for subset in subsets]
        return replace(self, steps=steps_per_epoch(tokens, step_tokens=self.settings.step_tokens))

    def with_texts(self, folder: Path, pool: Pool, rows: Iterable[int]) -> Laboratory:
        """Return one that trains on rows of another pool and records its runs in another folder.

        Raises:
            InputError: a row has no place in the model's template, or no response token.
        """
        return replace(self, folder=folder, texts=tokens_of(pool.examples, rows, self.role))

    def run(self, base: Checkpoint, subset: Subset, rate: float, *, work: Work, progress: Progress) -> Result | None:
        """Train, evaluate and record a run that is not recorded yet; None where it fails.

        Raises:
            OutputError: the disk refuses a file.
        """
        state = RunFolder.of(self.folder, subset.name)
        if (found := state.result()) is not None:
            state.clear(keep_model=work.keep_models)
            progress.known(found.train_seconds + found.evaluation_seconds)
            return found
        if work.retry_failed:
            state.retry()
        if (reason := state.failure()) is not None:
            progress.failed(subset.name, f"failed before: {reason}")
            return None
        try:
            progress.begun(subset.name, self.steps * self.settings.epochs)
            trained = self._train(state, base, subset, rate, checkpoint_steps=work.checkpoint_steps)
            found = self.evaluate(subset, rate, trained)
        except (TrainingError, DeviceError) as error:
            state.keep_failure(str(error), seed=subset.seed, learning_rate=rate)
            progress.failed(subset.name, f"failed: {error}")
            return None
        state.keep_result(found)
        state.clear(keep_model=work.keep_models)
        progress.finished(found, found.losses[next(iter(self.sets))])
        return found

    def _train(
        self, state: RunFolder, base: Checkpoint, subset: Subset, rate: float, *, checkpoint_steps: int
    ) -> Trained:
        state.path.mkdir(parents=True, exist_ok=True)
        if state.model.exists():
            return Trained.read(state.model)
        texts = [self.texts[row] for row in subset.rows]
        dealt = schedule(lengths(texts), steps=self.steps, epochs=self.settings.epochs, seed=subset.seed)
        recipe = Recipe(rate, self.settings.warmup, self.settings.weight_decay, self.settings.clip, subset.seed)
        places = Places(state.model, state.checkpoint, checkpoint_steps)
        steps = [[texts[row] for row in rows] for rows in dealt]
        return fine_tune(base, steps, recipe, device=self.torch_device, places=places)

    def evaluate(self, subset: Subset, rate: float, trained: Trained) -> Result:
        """Evaluate the model in a run's folder.

        Raises:
            DeviceError: the device fails.
        """
        state = RunFolder.of(self.folder, subset.name)
        begin = time.perf_counter()
        with graph_of(Checkpoint(state.model), self.role, state.path, device=self.device) as graph:
            found = losses(graph, self.role, self.sets, self.device)
        return Result(
            name=subset.name,
            seed=subset.seed,
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

    def base_losses(self, report: Report) -> dict[str, float]:
        """Return the loss of the base model, by evaluation set; computed once, after a word."""
        file = self.folder / BASE
        if not file.exists():
            report("measuring the loss before training")
            found = losses(self.role.graph_on(self.device.kind), self.role, self.sets, self.device)
            write_whole(file, orjson.dumps(as_json(found)))
        return {name: one.loss for name, one in from_json(orjson.loads(file.read_bytes())).items()}


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
