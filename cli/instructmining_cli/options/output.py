"""Options for the output of a command."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

OUT_HELP = (
    "Write rows to OUT.jsonl, .parquet, .csv or .tsv, text also .gz or .zst, here or at an address such as "
    "s3://BUCKET/OUT.jsonl; - is standard output."
)
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print the result to standard output as one JSON document.")
]
Out: TypeAlias = Annotated[
    str | None, typer.Option("-o", "--out", help="Write to this file; by default to standard output.")
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]


def check_json(json: bool, out: str | None) -> None:
    """Check that nothing else is written to standard output together with the JSON document.

    Raises:
        BadParameter: the rows are written there too.
    """
    if json and out == "-":
        raise typer.BadParameter("--json: -o - writes the rows to standard output too; give -o a file")
