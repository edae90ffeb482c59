"""``instructmining select``: the best rows of a scored file."""

from __future__ import annotations

from typing import Annotated

import typer


def select(
    scored: Annotated[str, typer.Argument(metavar="SCORED", help="A file that score wrote.")],
    out: Annotated[str, typer.Option("-o", "--out", help="OUT.jsonl, .jsonl.gz or .jsonl.zst.")],
    top: Annotated[int | None, typer.Option(min=1, help="Keep N rows.")] = None,
    fraction: Annotated[float | None, typer.Option(help="Keep this share of the rows that have a value, 0..1.")] = None,
    max_loss: Annotated[float | None, typer.Option(help="Keep rows whose value is at most this.")] = None,
    by: Annotated[str, typer.Option(help="Column to order by, ascending.")] = "predicted_log_loss",
    prefix: Annotated[str, typer.Option(help="The prefix that score was given.")] = "",
    keep_scores: Annotated[bool, typer.Option("--keep-scores", help="Keep the added columns in the rows.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Write the original rows with the smallest predicted loss, ascending; ties keep their input order.

    Give exactly one of --top, --fraction and --max-loss. Rows without a value are left out and counted.
    """
    from instructmining.selection import Choice
    from instructmining.selection import select as select_rows

    if sum(value is not None for value in (top, fraction, max_loss)) != 1:
        raise typer.BadParameter("give exactly one of --top, --fraction and --max-loss")
    if fraction is not None and not 0 < fraction <= 1:
        raise typer.BadParameter("--fraction is a share: more than 0 and at most 1")
    kept = select_rows(
        scored,
        out,
        Choice(top=top, fraction=fraction, max_loss=max_loss),
        by=by,
        prefix=prefix,
        keep_scores=keep_scores,
        overwrite=overwrite,
    )
    worst = f", {prefix}{by} up to {kept.worst:.4f}" if kept.worst is not None else ""
    typer.echo(f"kept {kept.kept:,} of {kept.rows:,} rows{worst}: {out}", err=True)
    if kept.without_value:
        typer.echo(f"left out {kept.without_value:,} rows without a value", err=True)
