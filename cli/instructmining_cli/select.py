"""``instructmining select``: the best rows of a scored file."""

from __future__ import annotations

from typing import Annotated

import typer


def select(
    scored: Annotated[str, typer.Argument(metavar="SCORED", help="A file that score wrote.")],
    out: Annotated[str, typer.Option("-o", "--out", help="OUT.jsonl, .jsonl.gz or .jsonl.zst.")],
    top: Annotated[int | None, typer.Option(min=1, help="Keep N rows.")] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Keep this share of the rows with a value, 0..1, to the nearest row.")
    ] = None,
    max_loss: Annotated[float | None, typer.Option(help="Keep rows whose value is at most this.")] = None,
    by: Annotated[str, typer.Option(help="Column to order by, ascending.")] = "predicted_log_loss",
    descending: Annotated[
        bool, typer.Option("--descending", help="Largest first, for columns where more is better, as reward.")
    ] = False,
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
    if descending and max_loss is not None:
        raise typer.BadParameter("--max-loss keeps the smallest values and does not go with --descending")
    if fraction is not None and not 0 < fraction <= 1:
        raise typer.BadParameter("--fraction is a share: more than 0 and at most 1")
    kept = select_rows(
        scored,
        out,
        Choice(top=top, fraction=fraction, max_loss=max_loss),
        by=by,
        prefix=prefix,
        descending=descending,
        keep_scores=keep_scores,
        overwrite=overwrite,
    )
    bound = "down to" if descending else "up to"
    worst = f", {prefix}{by} {bound} {kept.worst:.4f}" if kept.worst is not None else ""
    typer.echo(f"kept {kept.kept:,} of {kept.rows:,} rows{worst}: {out}", err=True)
    if kept.without_value:
        typer.echo(f"left out for want of a value: {kept.without_value:,}", err=True)
