"""Files that are small by what they are, as rules: one that is not is refused before it fills the memory."""

from __future__ import annotations

import errno
from pathlib import Path

MOST = 64 << 20  # bytes


def read_small(path: str | Path, *, most: int = MOST) -> bytes:
    """All of a file, pipes included.

    Raises:
        OSError: it cannot be read, its name cannot be one, or it has more than ``most`` bytes.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(most + 1)
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error)) from error
    if len(content) > most:
        raise OSError(errno.EFBIG, f"is larger than {most >> 20} MiB, which no such file is")
    return content
