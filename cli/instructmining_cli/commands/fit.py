"""``instructmining fit``: estimates a rule from your own fine-tuning runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from instructmining_cli.options.checks import a_count
from instructmining_cli.options.fitting import Bootstrap, Choose, Terms, names_in
from instructmining_cli.options.output import Json
from instructmining_cli.process.terminal import echo, say, warn
from instructmining_cli.reports.text_out import text_width


def fit(
    runs: Annotated[
        str,
        typer.Argument(
            metavar="RUNS.csv",
            help="One line per fine-tuning run: its loss, and the means of its training set's indicators.",
        ),
    ],
    out: Annotated[str, typer.Option("-o", "--out", help="Rule file to write, for score --rule.")],
    terms: Terms = None,
    choose: Choose = "loo",
    bootstrap: Bootstrap = 2000,
    seed: Annotated[int, typer.Option(min=0, callback=a_count, help="Seed of the resamples.")] = 0,
    id: Annotated[str | None, typer.Option(help="Name of the rule; by default the name of OUT.")] = None,
    reward_model: Annotated[
        str | None, typer.Option(help="Source id of the model that gave the column reward; stored in the rule.")
    ] = None,
    plot: Annotated[str | None, typer.Option(help="Draw the residuals to this .svg file.")] = None,
    figures: Annotated[str | None, typer.Option(metavar="FILE", help="Write all figures to this file as JSON.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT and the files of --plot and --figures.")
    ] = False,
    json: Json = False,
) -> None:
    """Estimate a rule: ordinary least squares of the log evaluation loss on set means, over fine-tuning runs.

    Needs the extra [fit]. The report goes to standard output, warnings go to standard error and into the rule.

    Examples:
        instructmining fit runs.csv -o my-rule.json
        instructmining fit runs.csv -o my-rule.json --plot residuals.svg
    """
    from instructmining.rules.fitting import fit as fit_runs
    from instructmining.writing.atomic import Placement
    from instructmining_cli.reports.fit_report import FitReport
    from instructmining_cli.reports.json_out import as_document, print_document
    from instructmining_cli.reports.residual_plot import drawing

    if plot is not None and not plot.endswith(".svg"):
        raise typer.BadParameter(f"--plot {plot}: wanted a name ending in .svg")
    if "-" in {out, figures}:
        raise typer.BadParameter("the rule and the figures go to files; --json prints the figures on standard output")
    named = [os.path.realpath(file) for file in (plot, figures, out) if file is not None]
    if len(set(named)) < len(named):
        raise typer.BadParameter("OUT, --plot and --figures must be different files")
    with Placement([plot, figures, out], overwrite=overwrite, reads=[runs]) as files:
        found = fit_runs(
            runs,
            terms=names_in(terms),
            choose=choose,
            bootstrap=bootstrap,
            seed=seed,
            rule_id=id or Path(out).stem,
            reward_model=reward_model,
        )
        report = FitReport(found, text_width(None))
        if plot is not None:
            files.write(plot, drawing(found).encode())
        if figures is not None:
            files.write(figures, as_document(report.as_json()))
        files.write(out, found.rule.content())
        files.put()
    if json:
        print_document(report.as_json())
    else:
        echo(report.text())
    for warning in found.warnings:
        warn(f"warning: {warning}")
    say(f"rule {found.rule.id!r}: {out}")
