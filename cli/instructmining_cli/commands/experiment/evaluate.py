"""``instructmining experiment evaluate``: measures trained models, and writes the tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from instructmining.errors import TrainingError
from instructmining_cli.commands.experiment.train import check_plan, report_outcome
from instructmining_cli.options.devices import DeviceName
from instructmining_cli.options.output import Json
from instructmining_cli.process.extras import not_installed
from instructmining_cli.process.terminal import say


def evaluate(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of the experiment, with trained runs.")],
    device: DeviceName = "auto",
    json: Json = False,
) -> None:
    """Measure the trained models that were kept again, and write the tables from all that is recorded.

    train does this after each run. The loss is the mean over all response tokens of a set, computed by the engine with
    the model's weights in the graph that was checked against the base model. Needs the extra [experiment].

    Examples:
        instructmining experiment evaluate experiment
        instructmining experiment evaluate experiment --device cpu
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # hides transformers' progress bars
    check_plan(folder)
    try:
        from instructmining_experiments.training.all_runs import evaluate as evaluate_runs
        from instructmining_experiments.training.laboratory import Work
    except ModuleNotFoundError as error:
        raise TrainingError(not_installed(error, "experiment")) from error
    outcome = evaluate_runs(Path(folder), work=Work(device, report=say))
    report_outcome(folder, outcome, json=json)
