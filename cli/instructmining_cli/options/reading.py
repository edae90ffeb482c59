"""Options for how input files are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from instructmining_cli.options.checks import a_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from instructmining.reading.options import ReadOptions
    from instructmining.reading.sources import Files

Delimiter: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="CHAR", help="Delimiter of CSV and TSV, or 'tab'; files without a known suffix are then read as CSV."
    ),
]
Encoding: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Encoding of CSV and TSV, such as latin-1 or utf-16; by default UTF-8."),
]
BlockBytes: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=a_count,
        help="Shards begin and end at multiples of this in a file's uncompressed text; by default 8 MiB. Smaller "
        "blocks need more padding.",
    ),
]


def reading_options(
    *,
    delimiter: str | None,
    encoding: str | None,
    max_row_bytes: int | None = None,
    block_bytes: int | None = None,
) -> ReadOptions:
    """Return the options as the engine takes them.

    Raises:
        BadParameter: a value is not valid.
    """
    from instructmining.errors import InputError
    from instructmining.reading.options import BLOCK_BYTES, MAX_ROW_BYTES, ReadOptions

    try:
        return ReadOptions(max_row_bytes or MAX_ROW_BYTES, delimiter, encoding, block_bytes or BLOCK_BYTES)
    except InputError as error:
        raise typer.BadParameter(f"--{error}") from error


def expanded(inputs: Sequence[str], *, say: Callable[[str], None], out: str | None = None) -> Files:
    """Return the files of the inputs; say a line for each folder with entries that are not read."""
    from instructmining.reading.sources import expand

    files = expand(inputs, out=out)
    for skipped in files.skipped:
        say(str(skipped))
    return files
