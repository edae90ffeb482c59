"""Where commands put a text that is their result: standard output, or a file."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from instructmining_cli.process.terminal import echo

_MOST_DIGITS = 9  # of the width of a terminal


def text_width(target: Path | None) -> int | None:
    """Characters of a line of text: those of the terminal, or COLUMNS; None for a file, or where nothing says it."""
    if target is not None:
        return None
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and len(said) <= _MOST_DIGITS and int(said):
        return int(said)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@contextmanager
def text_file(
    out: str | None,
    *,
    overwrite: bool,
    reads: Sequence[str | None],
    others: Sequence[str | None] = (),
    json: bool = False,
) -> Iterator[TextOut]:
    """Where a text goes that is a command's result: a file that nobody else writes meanwhile, or standard output.

    Args:
        out: the file; None or "-" for standard output.
        overwrite: whether it may be there.
        reads: what the command reads.
        others: what else it writes.
        json: print the JSON document on standard output, and no text.

    Raises:
        OutputError: it is there, is read, or is one of the others; or the disk does not take it.
    """
    from instructmining.writing.atomic import STANDARD, Placement, check_apart

    check_apart([out, *others], reads)
    with Placement([out], overwrite=overwrite) as files:
        target = None if out in STANDARD else Path(str(out))
        text = TextOut(text_width(target))
        yield text
        if target is not None:
            files.write(target, text.content.encode())
            files.put()
        if json:
            echo(text.document, nl=False)
        elif target is None:
            echo(text.content, nl=False)


@dataclass
class TextOut:
    """A text to be put out, when it is known."""

    width: int | None  # of its lines; None where nothing says it
    content: str = ""
    document: str = ""  # the same as JSON
