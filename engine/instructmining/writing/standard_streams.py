"""Standard output and error as streams of bytes that take every byte or fail."""

from __future__ import annotations

import io
import sys
from typing import BinaryIO, TextIO


def standard_output() -> BinaryIO:
    """Return standard output for bytes."""
    return _whole(sys.stdout)


def standard_error() -> BinaryIO:
    """Return standard error for bytes."""
    return _whole(sys.stderr)


def _whole(stream: TextIO) -> BinaryIO:
    """Return the bytes below a text stream, buffered.

    With ``PYTHONUNBUFFERED`` Python leaves the file itself there, which may write a part of what it is given and then
    only says how much.
    """
    below = stream.buffer
    if isinstance(below, io.RawIOBase):
        return io.BufferedWriter(io.FileIO(below.fileno(), "wb", closefd=False))
    return below
