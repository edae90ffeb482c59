"""``instructmining experiment import-oda``: reads OpenDataArena's score files and tables of trials."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from instructmining_cli.options.checks import a_count, rows_out
from instructmining_cli.options.output import OUT_HELP, Json, check_json
from instructmining_cli.process.terminal import say


def import_oda(
    rows: Annotated[
        str,
        typer.Argument(metavar="ROWS", help="Rows that were scored there; with --trials, R-Select's pool."),
    ],
    out: Annotated[
        str, typer.Option("-o", "--out", help=f"{OUT_HELP} With --trials, the table of runs for fit, a .csv file.")
    ],
    scores: Annotated[
        list[str] | None, typer.Argument(metavar="SCORES", help='Files of {"id": ..., "scores": {...}} lines.')
    ] = None,
    trials: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Trials of R-Select, .json or .csv, in place of SCORES."),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, callback=a_count, help="Rows that each trial selected: top_k of R-Select's configuration."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Json = False,
) -> None:
    """Take over scores of OpenDataArena as fields oda.NAME, matched by id; or trials of R-Select as a table for fit.

    select and rescore read the fields by their names; score and design compute their own columns only.
    With --trials, each trial's selection is made again from the pool, and OUT has its loss and its means.

    Examples:
        instructmining experiment import-oda a.jsonl oda_scores.jsonl -o b.jsonl
        instructmining experiment import-oda p.jsonl -o r.csv --trials t.csv --top-k 9
    """
    if bool(scores) == (trials is not None):
        raise typer.BadParameter("wanted SCORES or --trials, and not both")
    if (trials is None) != (top_k is None):
        raise typer.BadParameter("--trials and --top-k belong together: the rows that each trial selected")
    if trials is None:
        rows_out(out)
    elif not out.endswith(".csv"):
        raise typer.BadParameter(f"{out}: with --trials, wanted a name ending in .csv")
    check_json(json, out)
    if trials is not None and top_k is not None:
        _import_trials(rows, trials, out, top_k, overwrite=overwrite, json=json)
    else:
        _import_scores(rows, scores or [], out, overwrite=overwrite, json=json)


def _import_scores(rows: str, scores: list[str], out: str, *, overwrite: bool, json: bool) -> None:
    from instructmining_cli.reports.json_out import print_document
    from instructmining_experiments.opendataarena.scores import import_scores
    from instructmining_scale.wording import rows_of

    done = import_scores(rows, scores, out, overwrite=overwrite)
    if done.left_out:
        say(f"left out, since they are no numbers: {', '.join(done.left_out)}")
    for name, count in done.null.items():
        say(f"{name} is null in {rows_of(count)}")
    say(f"added {', '.join(done.fields)} to {rows_of(done.rows)}: {out}")
    if json:
        print_document({"out": out, **asdict(done)})


def _import_trials(pool: str, trials: str, out: str, top_k: int, *, overwrite: bool, json: bool) -> None:
    from instructmining_cli.reports.json_out import print_document
    from instructmining_experiments.opendataarena.trials import import_trials

    done = import_trials(pool, trials, out, top_k=top_k, overwrite=overwrite)
    for why, count in done.skipped.items():
        say(f"left out {count:,} trials {why}")
    say(f"{done.runs} runs with the means of {', '.join(done.columns)}: {out}")
    if json:
        print_document({"out": out, **asdict(done)})
