"""Writes what came of the runs: ``runs.csv`` for ``fit``, and ``results.csv`` with everything else."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from instructmining.rules.fitting.training_runs import LOSS
from instructmining.writing.atomic import write_whole
from instructmining_experiments.state.plan import Plan, Run
from instructmining_experiments.state.pool import Pool
from instructmining_experiments.state.runs import RunFolder

RUNS_CSV = "runs.csv"
RESULTS_CSV = "results.csv"
NAME = "name"  # column of the runs' names


def write_tables(folder: Path, plan: Plan, pool: Pool, base: Mapping[str, float]) -> None:
    """Write both tables from what lies in the runs' folders.

    Args:
        folder: of the experiment.
        plan: of the experiment.
        pool: whose columns ``runs.csv`` has the means of.
        base: loss of the model before training, by evaluation set.
    """
    first = plan.evaluation[0].name
    finished = [(run, found) for run in plan.runs if (found := RunFolder.of(folder, run.name).result()) is not None]
    means = [[run.name, found.losses[first], *_means(plan, pool, run)] for run, found in finished]
    write_whole(folder / RUNS_CSV, as_csv([NAME, LOSS, *plan.indicators], means))
    lines = [_line(folder, plan, run, base) for run in plan.runs]
    write_whole(folder / RESULTS_CSV, as_csv(_HEADER + _set_columns(plan), lines))


_HEADER = [
    NAME, "kind", "replicates", "seed", "state", "learning_rate", "steps", "tokens", "response_tokens",
    "first_train_loss", "last_train_loss", "train_seconds", "evaluation_seconds", "device", "failure",
]  # fmt: skip


def _set_columns(plan: Plan) -> list[str]:
    return [name for one in plan.evaluation for name in (f"loss.{one.name}", f"base_loss.{one.name}")]


def _line(folder: Path, plan: Plan, run: Run, base: Mapping[str, float]) -> list[object]:
    state = RunFolder.of(folder, run.name)
    found, failure = state.result(), state.failure()
    stated = "finished" if found is not None else "failed" if failure is not None else "to come"
    line: list[object] = [run.name, run.kind, run.replicates, run.seed, stated]
    if found is not None:
        line += [found.learning_rate, found.steps, found.tokens, found.scored]
        line += [found.train_losses[0], found.train_losses[-1], found.train_seconds, found.evaluation_seconds]
        line += [found.device, None]
    else:
        line += [None] * 9 + [failure]
    for one in plan.evaluation:
        line += [None if found is None else found.losses[one.name], base[one.name]]
    return line


def _means(plan: Plan, pool: Pool, run: Run) -> list[float | None]:
    """Return the mean of each indicator over the rows of a run where it is defined; None where it nowhere is."""
    columns = [pool.columns[name][list(run.rows)] for name in plan.indicators]
    return [float(np.nanmean(values)) if np.isfinite(values).any() else None for values in columns]


def as_csv(header: Sequence[str], lines: Sequence[Sequence[object]]) -> bytes:
    """Return a table whose numbers read back as the same ones; None is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[repr(cell) if isinstance(cell, float) else cell for cell in line] for line in lines])
    return text.getvalue().encode()
