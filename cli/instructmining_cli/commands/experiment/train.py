"""``instructmining experiment train``: fine-tunes on every subset of a plan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from instructmining.errors import TrainingError
from instructmining_cli.options.checks import a_count, a_rate, some_rates
from instructmining_cli.options.devices import DeviceName
from instructmining_cli.options.output import Json
from instructmining_cli.process.extras import not_installed
from instructmining_cli.process.stopping import stopping
from instructmining_cli.process.terminal import say, warn

if TYPE_CHECKING:
    from instructmining_experiments.training.all_runs import Outcome

CheckpointSteps: TypeAlias = Annotated[
    int, typer.Option(min=1, callback=a_count, help="Steps between two checkpoints, at which a killed run resumes.")
]
KeepModels: TypeAlias = Annotated[
    bool, typer.Option("--keep-models", help="Keep each trained model; by default only its losses are kept.")
]
RetryFailed: TypeAlias = Annotated[
    bool, typer.Option("--retry-failed", help="Train the runs again that failed in earlier calls.")
]


def train(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of the experiment, with its plan.")],
    model: Annotated[
        str, typer.Option(help="Causal language model: an id on the Hugging Face hub, or a folder with the same files.")
    ],
    template: Annotated[
        Literal["auto", "chatml", "plain"],
        typer.Option(help="How rows become text; auto is the model's chat template, or plain where it has none."),
    ] = "auto",
    max_length: Annotated[
        int | None,
        typer.Option(
            min=16, callback=a_count, help="Most tokens of a row; by default the model's own limit, at most 2048."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, callback=a_count, help="How often a run sees each of its rows.")] = 1,
    step_tokens: Annotated[
        int, typer.Option(min=1, callback=a_count, help="Tokens of a step, about; every run has as many steps.")
    ] = 512,
    learning_rate: Annotated[
        float | None, typer.Option(callback=a_rate, help="Highest learning rate; without it the best of --rates.")
    ] = None,
    rates: Annotated[
        str,
        typer.Option(
            metavar="R,R,...",
            callback=some_rates,
            help="Learning rates to try first, on the rows of the replicates; the one with the least loss on the first "
            "evaluation set is used.",
        ),
    ] = "1e-5,3e-5,1e-4,3e-4",
    checkpoint_steps: CheckpointSteps = 20,
    keep_models: KeepModels = False,
    retry_failed: RetryFailed = False,
    device: DeviceName = "auto",
    json: Json = False,
) -> None:
    """Fine-tune the model on each subset, and measure each result on the evaluation sets.

    All weights, AdamW, loss on responses only; equal steps for all runs. Writes DIR/runs.csv for fit and
    DIR/results.csv with everything else. An interrupted call continues when it is repeated. Exits with 3 where a run
    failed; the others are there. Needs the extra [experiment].

    Examples:
        instructmining experiment train experiment --model model
        instructmining experiment train experiment --model model --rates 1e-5,1e-4
    """
    kept, runs = f"the same command continues; what was done is kept in {folder}", Path(folder, "runs")
    with stopping().noting(lambda: kept if runs.is_dir() else None, say=warn):
        os.environ.setdefault("TQDM_DISABLE", "1")  # hides transformers' progress bars
        try:
            say("loading PyTorch and transformers")
            from instructmining_experiments.state.settings import Settings
            from instructmining_experiments.training.all_runs import train as train_runs
            from instructmining_experiments.training.laboratory import Work
        except ModuleNotFoundError as error:
            raise TrainingError(not_installed(error, "experiment")) from error
        settings = Settings(
            template=template,
            max_length=max_length,
            epochs=epochs,
            step_tokens=step_tokens,
            learning_rate=learning_rate,
            rates=() if learning_rate is not None else tuple(float(rate) for rate in rates.split(",")),
        )
        work = Work(device, keep_models, retry_failed, checkpoint_steps, say)
        outcome = train_runs(Path(folder), model, settings=settings, work=work)
    report_outcome(folder, outcome, json=json)


def check_plan(folder: str) -> None:
    """Check that a folder has a plan, before libraries are loaded that take long.

    Raises:
        InputError: there is none, or it was edited.
    """
    from instructmining_experiments.state.plan import Plan

    Plan.load(Path(folder))


def report_outcome(folder: str, outcome: Outcome, *, json: bool) -> None:
    """Say what came of the runs.

    Raises:
        Exit: a run failed.
    """
    from instructmining_cli.reports.json_out import print_document

    if json:
        print_document(
            {
                "out": folder,
                "finished": outcome.finished,
                "failed": dict(outcome.failed),
                "to_come": outcome.to_come,
                "learning_rate": outcome.learning_rate,
                "base_losses": dict(outcome.base),
            }
        )
    to_come = f", {outcome.to_come} to come" if outcome.to_come else ""
    say(f"{outcome.finished} runs finished, {len(outcome.failed)} failed{to_come}: {folder}/runs.csv")
    report_failed(outcome.failed)


def report_failed(failed: Mapping[str, str]) -> None:
    """Say which run failed, if one did.

    Raises:
        Exit: a run failed.
    """
    if failed:
        name, reason = next(iter(failed.items()))
        warn(f"{name} failed: {reason}; --retry-failed trains it again")
        raise typer.Exit(3)
