"""``instructmining compare``: two scored sets side by side."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from instructmining_cli.options.checks import rows_out
from instructmining_cli.options.output import Json, Out, Overwrite
from instructmining_cli.options.scoring import ScoredPrefix
from instructmining_cli.reports.text_out import text_file


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A file that score wrote.")],
    second: Annotated[
        str, typer.Argument(metavar="B", help="Another one, or rows that select chose from A, with or without scores.")
    ],
    format: Annotated[Literal["text", "json"], typer.Option(help="Form of the output.")] = "text",
    out: Out = None,
    left: Annotated[
        str | None, typer.Option(callback=rows_out, help="Write the rows of A that are not in B to this .jsonl.")
    ] = None,
    entered: Annotated[
        str | None, typer.Option(callback=rows_out, help="Write the rows of B that are not in A to this .jsonl.")
    ] = None,
    prefix: ScoredPrefix = "",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Show how far apart the columns of two sets are, and how many rows entered and left.

    Rows are the same if all fields except the added columns are equal. A set without scores takes those of the other.

    Examples:
        instructmining compare scored.jsonl best.jsonl
        instructmining compare scored.jsonl best.jsonl --left dropped.jsonl
    """
    from instructmining.scored.compare import Differing
    from instructmining.scored.compare import compare as compare_sets
    from instructmining.scored.render import comparison_json, comparison_text

    if left is not None and left == entered:
        raise typer.BadParameter("--left and --entered are the same file")
    with text_file(out, overwrite=overwrite, reads=[first, second], others=[left, entered], json=json) as text:
        found = compare_sets(first, second, prefix=prefix, differing=Differing(left, entered, overwrite))
        text.document = comparison_json(found)
        text.content = comparison_text(found, width=text.width) if format == "text" else text.document
