"""Writes rows to files that appear complete or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from instructmining.errors import OutputError
from instructmining.errors.arguments import check_type
from instructmining.writing.atomic import STANDARD, Placement
from instructmining.writing.run_writer import compressed
from instructmining.writing.standard_streams import standard_output
from instructmining.writing.tables import SUFFIXES, About


def check_row_file(out: str | Path) -> str | Path:
    """Check the path of a file of rows, whose suffix sets the format and the compression.

    Raises:
        OutputError: it is no path, or its suffix is not known.
    """
    check_type("out", out, (str, Path), wanted="the path of a file to write", error=OutputError)
    if not Path(out).name.endswith(SUFFIXES):
        raise OutputError(f"{out}: wanted a name ending in {', '.join(SUFFIXES)}")
    return out


@contextmanager
def row_file(files: Placement, out: str | Path, *, prefix: str = "", about: About | None = None) -> Iterator[BinaryIO]:
    """Yield a stream that takes lines for a target, compressed as its suffix says.

    Args:
        files: the placement of the target.
        out: a target, or "-" for standard output.
        prefix: prefix of the columns of ``score``.
        about: what a Parquet file says about itself, asked once all lines are written.

    Raises:
        OutputError: the disk refuses the lines, or they do not go into such a file.
    """
    if out in STANDARD:
        stream = standard_output()
        yield stream
        stream.flush()
        return
    with files.open(out) as file:
        stream = compressed(file, Path(out).name, prefix=prefix, about=about)
        yield stream
        if stream is not file:
            stream.close()
