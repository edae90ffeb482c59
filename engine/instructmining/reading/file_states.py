"""Detects whether a file changed, by its size, time and inode, without reading it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

State: TypeAlias = tuple[int, int, int, int]


def state_of(path: str | Path | None) -> State | None:
    """Return a value that changes when a file is written, replaced or removed; None where there is no file."""
    if path is None:
        return None
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
