"""Rows and lines to files that appear complete or not at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from instructmining.errors import OutputError
from instructmining.errors.arguments import check_type
from instructmining.writing.atomic import STANDARD, Placement
from instructmining.writing.run_writer import SUFFIXES, compressed


def check_row_file(out: str | Path) -> Path:
    """The path of a file of rows, whose name says whether and how it is compressed.

    Raises:
        OutputError: it is no path, or the suffix is not known.
    """
    check_type("out", out, (str, Path), wanted="the path of a file to write", error=OutputError)
    if not Path(out).name.endswith(SUFFIXES):
        raise OutputError(f"{out}: wanted a name ending in {', '.join(SUFFIXES)}")
    return Path(out)


@contextmanager
def row_file(files: Placement, out: str | Path, *, prefix: str = "") -> Iterator[BinaryIO]:
    """A stream of lines to a target, compressed as its name says; standard output where that is "-".

    Args:
        files: takes the file.
        out: one of its targets, or "-".
        prefix: what ``score`` put before its columns' names.

    Raises:
        OutputError: the disk does not take it.
    """
    if out in STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with files.open(out) as file:
        stream = compressed(file, Path(out).name, prefix=prefix)
        yield stream
        if stream is not file:
            stream.close()
