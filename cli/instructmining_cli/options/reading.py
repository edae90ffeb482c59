"""The options of ``score`` and ``bench`` that say what an input is and how it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from instructmining.reading.options import ReadOptions

Delimiter: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="CHAR", help="Between the fields of CSV and TSV, also of files without a known suffix; 'tab' is one."
    ),
]
Encoding: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of CSV and TSV, as latin-1 or utf-16; by default UTF-8.")
]


def reading_options(*, delimiter: str | None, encoding: str | None, max_row_bytes: int | None = None) -> ReadOptions:
    """The options as the engine takes them.

    Raises:
        BadParameter: one has no such value.
    """
    from instructmining.errors import InputError
    from instructmining.reading.options import MAX_ROW_BYTES, ReadOptions

    try:
        return ReadOptions(max_row_bytes or MAX_ROW_BYTES, delimiter, encoding)
    except InputError as error:
        raise typer.BadParameter(f"--{error}") from error


def expanded(
    inputs: Sequence[str], *, say: Callable[[str], None], out: str | None = None
) -> tuple[list[str], list[str]]:
    """The files of the inputs, and lines that say what is left out of their folders, which are also said now."""
    from instructmining.reading.sources import expand

    files = expand(inputs, out=out)
    lines = list(map(str, files.skipped))
    for line in lines:
        say(line)
    return list(files.paths), lines
