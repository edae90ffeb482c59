"""``instructmining experiment compare``: tests the selection of a rule."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from instructmining.errors import InputError, TrainingError
from instructmining_cli.commands.experiment.design import ScoringProgress
from instructmining_cli.commands.experiment.train import (
    CheckpointSteps,
    KeepModels,
    RetryFailed,
    check_plan,
    report_failed,
)
from instructmining_cli.options.checks import a_count, a_distance, named_rule, some_methods
from instructmining_cli.options.devices import DeviceName
from instructmining_cli.options.output import Json
from instructmining_cli.options.reading import expanded
from instructmining_cli.options.scoring import BundleFolder
from instructmining_cli.process.extras import not_installed
from instructmining_cli.process.stopping import stopping
from instructmining_cli.process.terminal import echo, say, warn
from instructmining_cli.reports.text_out import text_width

RULE = "rule.json"  # that fit writes


def compare(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of the experiment, with trained runs.")],
    newpool: Annotated[
        list[str] | None,
        typer.Argument(metavar="NEWPOOL...", help="Files of new rows; without them, the rows that design reserved."),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(callback=named_rule, help="Rule to test: a preset or a file; by default DIR/rule.json."),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            metavar="M,M,...",
            callback=some_methods,
            help="What the rule is compared with, besides random rows; comma-separated, or 'all'.",
        ),
    ] = "all",
    seeds: Annotated[int, typer.Option(min=2, callback=a_count, help="Runs of each selection.")] = 3,
    random: Annotated[
        int, typer.Option("--random", min=2, callback=a_count, help="Draws of random rows, a run each.")
    ] = 5,
    subset_tokens: Annotated[
        int | None,
        typer.Option(min=1, callback=a_count, help="Tokens of a selection; by default those of the plan's subsets."),
    ] = None,
    near: Annotated[
        float,
        typer.Option(
            metavar="DISTANCE",
            callback=a_distance,
            help="Leave out new rows whose embedding is closer than this to one of an evaluation row.",
        ),
    ] = 0.2,
    bundle: BundleFolder = None,
    model: Annotated[str | None, typer.Option(help="The model that train was given, if it is a folder.")] = None,
    checkpoint_steps: CheckpointSteps = 20,
    keep_models: KeepModels = False,
    retry_failed: RetryFailed = False,
    device: DeviceName = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another comparison.")] = False,
    json: Json = False,
) -> None:
    """Test a rule: fine-tune on the rows that it selects and on others, equal in tokens and steps.

    Others are random rows, the longest responses, the lowest perplexity, the highest ifd, and the rows nearest to the
    first evaluation set; no run has seen any of them. All rows at once are reported apart. Writes DIR/comparison.csv,
    DIR/comparison-runs.csv and DIR/comparison.svg. An interrupted call continues when it is repeated.

    Examples:
        instructmining experiment compare experiment --model model
        instructmining experiment compare experiment new.jsonl --model model
    """
    kept, runs = f"the same command continues; what was done is kept in {folder}", Path(folder, "comparison")
    with stopping().noting(lambda: kept if runs.is_dir() else None, say=warn):
        os.environ.setdefault("TQDM_DISABLE", "1")  # hides transformers' progress bars
        check_plan(folder)
        if rule is None and not Path(folder, RULE).exists():
            raise InputError(f"{folder}: has no {RULE}; 'instructmining experiment fit' writes it, or name a --rule")
        files = list(expanded(newpool, say=warn).paths) if newpool else []
        try:
            say("loading PyTorch and transformers")
            from instructmining_experiments.comparing.comparison import compare as compare_selections
            from instructmining_experiments.training.laboratory import Work
        except ModuleNotFoundError as error:
            raise TrainingError(not_installed(error, "experiment")) from error
        from instructmining.bundle import Bundle
        from instructmining.rules import Rule
        from instructmining_cli.reports.comparison_report import as_text
        from instructmining_cli.reports.json_out import print_document
        from instructmining_cli.run.demo_bundle import demo_bundle
        from instructmining_experiments.comparing.comparison_plan import CompareOptions, Scoring
        from instructmining_experiments.comparing.selections import NAMES

        named = NAMES if methods == "all" else tuple(name.strip() for name in methods.split(","))
        found = compare_selections(
            Path(folder),
            files,
            CompareOptions(named, seeds, random, subset_tokens, near),
            rule=Rule.load(rule or Path(folder, RULE)),
            scoring=Scoring(lambda: Bundle.open(bundle or demo_bundle(say)), device, ScoringProgress().report),
            work=Work(device, keep_models, retry_failed, checkpoint_steps, say),
            model=model,
            overwrite=overwrite,
        )
    if json:
        print_document({"out": folder, **found.as_json()})
    else:
        echo(as_text(found, text_width(None)))
    say(f"{found.finished} runs finished, {len(found.failed)} failed: {folder}/comparison.csv")
    report_failed(found.failed)
