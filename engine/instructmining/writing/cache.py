"""Where bundles, data and small results are kept between runs; the only reader of INSTRUCTMINING_CACHE."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from instructmining.errors import OutputError
from instructmining.writing.atomic import write_whole


def cache_folder() -> Path:
    """Return the folder for bundles and data: INSTRUCTMINING_CACHE, or the system's place for caches.

    Raises:
        OutputError: the user has no home folder.
    """
    if chosen := os.environ.get("INSTRUCTMINING_CACHE"):
        return Path(chosen)
    try:
        return user_cache_path("instructmining")
    except RuntimeError as error:
        raise OutputError(
            "this user has no home folder to keep a cache in; name a folder for it: INSTRUCTMINING_CACHE"
        ) from error


def kept(name: str) -> bytes | None:
    """Return what :func:`keep` stored under a name; None where there is nothing, or it cannot be read."""
    try:
        return (cache_folder() / name).read_bytes()
    except (OSError, OutputError):
        return None


def keep(name: str, content: bytes) -> None:
    """Store something small; if the cache cannot be written, it is computed again next time."""
    with suppress(OSError, OutputError):
        file = cache_folder() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)
