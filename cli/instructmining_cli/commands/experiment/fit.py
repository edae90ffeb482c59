"""``instructmining experiment fit``: fits a rule to three quarters of the runs, and tests it on the last."""

from __future__ import annotations

from typing import Annotated

import typer

from instructmining.errors import FittingError
from instructmining_cli.options.fitting import Bootstrap, Choose, Terms, names_in
from instructmining_cli.options.output import Json
from instructmining_cli.process.extras import not_installed
from instructmining_cli.process.terminal import echo, say, warn
from instructmining_cli.reports.text_out import text_width


def fit(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder with the plan.json and runs.csv of the runs.")],
    terms: Terms = None,
    choose: Choose = "loo",
    bootstrap: Bootstrap = 2000,
    id: Annotated[str | None, typer.Option(help="Name of the rule; by default the name of DIR.")] = None,
    licence: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Licence of rows that were trained on, for the rule. Can be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Fit a rule to three quarters of the runs, and test it on the quarter that the plan holds out.

    Reads plan.json and runs.csv, so that published results can be fitted again. Writes DIR/rule.json, the fit to three
    quarters, whether or not it is found to predict the others, and DIR/fit.json with every figure. A repeated call
    writes the same. Needs the extra [fit].

    Examples:
        instructmining experiment fit experiment
        instructmining experiment fit experiment --id mine --licence cc-by-4.0
    """
    try:
        from instructmining_experiments.fitting.rule_fit import FitOptions, fit_rule
    except ModuleNotFoundError as error:
        raise FittingError(not_installed(error, "fit")) from error
    from instructmining_cli.reports.experiment_fit_report import as_text
    from instructmining_cli.reports.json_out import print_document

    options = FitOptions(
        terms=names_in(terms),
        choose=choose,
        bootstrap=bootstrap,
        rule_id=id,
        licences=tuple(licence or ()),
    )
    found = fit_rule(folder, options)
    if json:
        print_document({"out": folder, **found.as_json()})
    else:
        echo(as_text(found, text_width(None)))
    for warning in found.fit.warnings:
        warn(f"warning: {warning}")
    say(f"rule {found.rule.id!r}: {folder}/rule.json; all figures: {folder}/fit.json")
