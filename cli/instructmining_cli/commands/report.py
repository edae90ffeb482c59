"""``instructmining report``: one page about scored sets, to look at and to read."""

from __future__ import annotations

from typing import Annotated

import typer

from instructmining.errors import InstructMiningError
from instructmining_cli.options.checks import a_count, named_rule, page_out
from instructmining_cli.options.fields import Format, Map, field_options
from instructmining_cli.options.output import Json, Overwrite, check_json
from instructmining_cli.options.scoring import ScoredPrefix
from instructmining_cli.process.extras import not_installed
from instructmining_cli.process.terminal import say, warn


def report(
    scored: Annotated[
        list[str],
        typer.Argument(
            metavar="SCORED...",
            help="Files that score wrote; the first is the whole set, which the others are compared with. Those may "
            "be selections from it, with or without scores.",
        ),
    ],
    out: Annotated[
        str, typer.Option("-o", "--out", callback=page_out, help="Page to write, .html; - is standard output.")
    ],
    rule: Annotated[
        str | None,
        typer.Option(callback=named_rule, help="Rule whose terms are shown; by default the one in SCORED.run.json."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Column that says which rows are best, ascending; by default the prediction, without one an indicator."
        ),
    ] = None,
    descending: Annotated[bool, typer.Option("--descending", help="The largest values of --by are best.")] = False,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Show groups by this field; by default the first there is of source, dataset, category and the like.",
        ),
    ] = None,
    examples: Annotated[
        int,
        typer.Option(min=1, max=50, callback=a_count, help="Rows shown of each kind: best, median and worst."),
    ] = 5,
    no_examples: Annotated[
        bool, typer.Option("--no-examples", help="Quote no row of the data; names of groups and fields stay.")
    ] = False,
    prefix: ScoredPrefix = "",
    format: Format = None,
    map: Map = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write one page about scored sets: distributions, terms of the rule, groups, repeats, examples, a cut to try.

    The page is one file that opens without a network: no request leaves it. Text of rows is shown as text, whatever it
    holds. The same files and options give the same bytes. Needs the extra [report].

    Examples:
        instructmining report scored.jsonl -o report.html
        instructmining report scored.jsonl best.jsonl -o report.html --by reward
    """
    check_json(json, out)
    if descending and by is None:
        raise typer.BadParameter("--descending needs --by, the column whose largest values are best")
    fields = field_options(format=format, mapping=map)
    try:
        from instructmining_report import ReportOptions
        from instructmining_report import report as make_report
    except ModuleNotFoundError as error:
        raise InstructMiningError(not_installed(error, "report")) from error
    from instructmining_cli.reports.json_out import print_document

    options = ReportOptions(
        prefix=prefix,
        rule=rule,
        by=by,
        descending=descending,
        group_by=group_by,
        examples=examples,
        texts=not no_examples,
        fields=fields,
    )
    made = make_report(scored, out, options, overwrite=overwrite)
    for remark in made.remarks:
        warn(remark)
    if json:
        print_document({"out": made.out, "bytes": made.size, "rows": made.rows, "seconds": round(made.seconds, 3)})
    rows = ", ".join(f"{label} ({count:,})" for label, count in made.rows.items())
    say(f"report of the rows of {rows}, {made.size / 1000:,.0f} kB: {out}")
