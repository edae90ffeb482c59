"""Detects whether a file changed, by its size, time and inode, without reading it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from instructmining.stores.addresses import is_address
from instructmining.stores.files import stored

State: TypeAlias = tuple[int, int, int, int]


def state_of(path: str | Path | None) -> State | None:
    """Return a value that changes when a file is written, replaced or removed; None where there is no file."""
    if path is None:
        return None
    try:
        if is_address(path):
            there = stored(str(path))
            return (0, 0, there.size, there.modified_ns) if there is not None else None
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
