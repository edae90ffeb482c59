"""``instructmining experiment export-oda``: writes columns as OpenDataArena's score files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from instructmining_cli.options.checks import rows_out
from instructmining_cli.options.output import OUT_HELP, Json, check_json
from instructmining_cli.options.scoring import ScoredPrefix
from instructmining_cli.process.terminal import say, warn


def export_oda(
    scored: Annotated[str, typer.Argument(metavar="SCORED", help="A file that score wrote.")],
    out: Annotated[str, typer.Option("-o", "--out", callback=rows_out, help=OUT_HELP)],
    rows: Annotated[
        bool, typer.Option("--rows", help="Also write the fields of the rows, as the pool of R-Select has them.")
    ] = False,
    prefix: ScoredPrefix = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Json = False,
) -> None:
    """Write the columns of scored rows for OpenDataArena's tools: a line {"id": ..., "scores": {...}} for each row.

    The id is the row's own, or its number from 0. ifd becomes IFD, UniEval's three UniEval_Dialog_..., and the tokens
    of a row Token_Length; other columns keep their names.

    Examples:
        instructmining experiment export-oda scored.jsonl -o scores.jsonl
        instructmining experiment export-oda scored.jsonl -o pool.jsonl --rows
    """
    from instructmining_cli.reports.json_out import print_document
    from instructmining_experiments.opendataarena.scores import export_scores
    from instructmining_scale.wording import rows_of

    check_json(json, out)
    done = export_scores(scored, out, with_rows=rows, prefix=prefix, overwrite=overwrite)
    for name, count in done.null.items():
        warn(f"caution: {name} is null in {rows_of(count)}; R-Select wants a number: select rows that have one")
    say(f"wrote {rows_of(done.rows)} with {', '.join(done.names)}: {out}")
    if json:
        print_document({"out": out, **asdict(done)})
