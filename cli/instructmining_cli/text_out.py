"""Where commands put a text that is their result: standard output, or a file."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

OUT_HELP = "OUT.jsonl, .jsonl.gz, .jsonl.zst or .parquet; - writes rows to standard output."
Out: TypeAlias = Annotated[str | None, typer.Option("-o", "--out", help="A file; by default standard output.")]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]


def text_width(target: Path | None) -> int | None:
    """Characters of a line of text: those of the terminal, or COLUMNS; None for a file, or where nothing says it."""
    if target is not None:
        return None
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return int(said)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def check_text(out: str | None, *, overwrite: bool, sources: Sequence[str]) -> Path | None:
    """The file that a text may be written to; None for standard output.

    Raises:
        OutputError: it is there, or is one of the sources.
    """
    from instructmining.errors import OutputError

    if out is None or out == "-":
        return None
    target = Path(out)
    if target.exists():
        if any(Path(source).exists() and target.samefile(source) for source in sources):
            raise OutputError(f"{out}: is one of the inputs; name another file")
        if not overwrite:
            raise OutputError(f"{out}: exists; give --overwrite to replace it")
    return target


def put_text(text: str, target: Path | None) -> None:
    """Write the text.

    Raises:
        OutputError: the disk does not take it.
    """
    from instructmining.journal import write_whole

    if target is None:
        typer.echo(text, nl=False)
    else:
        write_whole(target, text.encode())
