"""Chooses the learning rate: the replicates' rows, trained at a few rates, compared by evaluation loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from instructmining.errors import InputError, TrainingError
from instructmining.writing.atomic import write_whole
from instructmining_experiments.state.plan import Plan, Run

SWEEP = "sweep.json"


def swept_run(plan: Plan) -> Run:
    """Return the run whose rows are trained at each rate: the one that most replicates repeat, or the first."""
    repeated = [run.replicates for run in plan.runs if run.replicates is not None]
    return plan.run(max(repeated, key=repeated.count)) if repeated else plan.runs[0]


def name_of(rate: float) -> str:
    """Return the name of a run of the sweep."""
    return f"sweep-{rate:g}"


def chosen_rate(
    folder: Path, plan: Plan, rates: Sequence[float], loss_at: Callable[[Run, float], float | None]
) -> float:
    """Return the rate with the least loss on the first evaluation set, and record the sweep.

    Args:
        folder: of the experiment.
        plan: of the experiment.
        rates: to compare.
        loss_at: trains a run at a rate and returns its loss; None where it fails.

    Raises:
        TrainingError: every rate fails.
    """
    run = swept_run(plan)
    found = {rate: loss_at(replace(run, name=name_of(rate)), rate) for rate in rates}
    finished = {rate: loss for rate, loss in found.items() if loss is not None}
    if not finished:
        raise TrainingError(
            f"{folder}: the run failed at every rate of {', '.join(f'{rate:g}' for rate in rates)}; "
            f"see {folder / 'runs' / name_of(rates[0])}; give other --rates with another folder, or --retry-failed"
        )
    chosen = min(finished, key=lambda rate: (finished[rate], rate))
    _record(folder, plan, run, found, chosen)
    return chosen


def recorded_rate(folder: Path) -> float:
    """Return the rate that was chosen for the runs of an experiment.

    Raises:
        InputError: none was chosen yet, or the file is damaged.
    """
    file = folder / SWEEP
    try:
        return float(orjson.loads(file.read_bytes())["chosen"])
    except FileNotFoundError as error:
        raise InputError(f"{folder}: has no {SWEEP}; 'instructmining experiment train' chooses the rate") from error
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: is not what train wrote: {error}") from error


def _record(folder: Path, plan: Plan, run: Run, found: Mapping[float, float | None], chosen: float) -> None:
    content = {
        "rows_of": run.name,
        "evaluation_set": plan.evaluation[0].name,
        "losses": [{"rate": rate, "loss": loss} for rate, loss in found.items()],
        "chosen": chosen,
        "at_the_edge": len(found) > 1 and chosen in {min(found), max(found)},
    }
    write_whole(folder / SWEEP, orjson.dumps(content, option=orjson.OPT_INDENT_2))
