"""``instructmining describe``: statistics of scored sets."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from instructmining_cli.options.checks import named_rule
from instructmining_cli.options.output import Json, Out, Overwrite
from instructmining_cli.options.scoring import ScoredPrefix
from instructmining_cli.process.terminal import warn
from instructmining_cli.reports.text_out import text_file


def describe(
    scored: Annotated[list[str], typer.Argument(metavar="SCORED...", help="Files that score wrote.")],
    format: Annotated[
        Literal["text", "json", "csv"],
        typer.Option(
            help="Form of the output. csv: one line per set with the means of its indicators; add a loss for fit."
        ),
    ] = "text",
    out: Out = None,
    prefix: ScoredPrefix = "",
    rule: Annotated[
        str | None,
        typer.Option(
            callback=named_rule,
            help="Predict each set's loss by this rule; by default the mean of the rows' predictions is shown.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Show statistics of scored sets, side by side if there are several.

    Means, medians, quantiles, nulls, truncated rows, correlations and variance inflation of the columns, and the
    predicted loss.

    Examples:
        instructmining describe scored.jsonl
        instructmining describe a-scored.jsonl b-scored.jsonl --format csv -o sets.csv
    """
    from instructmining.scored.describe import describe as describe_set
    from instructmining.scored.render import descriptions_csv, descriptions_json, descriptions_text
    from instructmining_cli.run.demo_bundle import check_terms

    if json and format == "csv" and out in {None, "-"}:
        raise typer.BadParameter("--json and --format csv both go to standard output; give -o FILE for the table")
    if rule is not None:
        for file in scored:
            check_terms(file, rule, prefix=prefix)
    reads = [*scored, *(f"{file}.run.json" for file in scored), rule]
    with text_file(out, overwrite=overwrite, reads=reads, json=json) as text:
        described = [describe_set(one, prefix=prefix, rule=rule) for one in scored]
        text.document = descriptions_json(described)
        match format:
            case "text":
                text.content = descriptions_text(described, width=text.width)
            case "json":
                text.content = text.document
            case "csv":
                text.content = descriptions_csv(described)
    for one in described:
        for term in one.predicted.extrapolated if one.predicted else ():
            warn(f"caution: {one.name}: its mean {term}: the prediction extrapolates")
