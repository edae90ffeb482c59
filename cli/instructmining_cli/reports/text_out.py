"""Writes the text that is a command's result to standard output or a file."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from instructmining_cli.process.terminal import echo

_MAX_DIGITS = 9  # of COLUMNS


def text_width(target: str | None) -> int | None:
    """Return the width of a line from COLUMNS or the terminal; None for a file, or if neither is set."""
    if target is not None:
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and len(columns) <= _MAX_DIGITS and int(columns):
        return int(columns)
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
    """Yield a text to fill; write it to a file, locked until then, or to standard output when the block ends.

    Args:
        out: path of the file; None or "-" for standard output.
        overwrite: replace the file if it exists.
        reads: files that the command reads.
        others: other files that it writes.
        json: print the JSON document on standard output instead of the text.

    Raises:
        OutputError: the file exists, is read, is one of the others, or cannot be written.
    """
    from instructmining.writing.atomic import STANDARD, Placement, check_apart

    check_apart([out, *others], reads)
    with Placement([out], overwrite=overwrite) as files:
        target = None if out in STANDARD else str(out)
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
    """A text that the command fills."""

    width: int | None  # most characters of a line; None for no limit
    content: str = ""
    document: str = ""  # the same result as JSON
