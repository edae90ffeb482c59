"""The options that say where and how a command's result is shown."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

OUT_HELP = "OUT.jsonl, .jsonl.gz, .jsonl.zst or .parquet; - writes rows to standard output."
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print the result on standard output as one JSON document.")
]
Out: TypeAlias = Annotated[str | None, typer.Option("-o", "--out", help="A file; by default standard output.")]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]


def check_json(json: bool, out: str | None) -> None:
    """Prove that the JSON document has standard output to itself.

    Raises:
        BadParameter: the rows go there too.
    """
    if json and out == "-":
        raise typer.BadParameter("--json: -o - writes the rows to standard output; name a file")
