"""Reads small files, such as rules, and refuses large ones before they fill memory."""

from __future__ import annotations

import errno
from pathlib import Path

from instructmining.stores.files import open_file

MOST = 64 << 20  # bytes


def read_small(path: str | Path, *, most: int = MOST) -> bytes:
    """Read a whole file, pipes included.

    Raises:
        OSError: the file cannot be read, its name is invalid, or it has more than ``most`` bytes.
    """
    try:
        with open_file(path) as file:
            content = file.read(most + 1)
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error)) from error
    if len(content) > most:
        raise OSError(errno.EFBIG, f"is larger than {most >> 20} MiB, the most for such a file")
    return content
