"""Caches the digests of a bundle's files, so that an unchanged file is not read again.

A file counts as unchanged while its size, times and inode are the same.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import orjson

from instructmining.writing.cache import keep, kept

_NAME = "digests.json"
_SETTLED_S = 0.1  # a file changed less than this before the read may change again within a tick of the clock


class Digests:
    """Computes the SHA-256 of a folder's files; reads only those that changed."""

    def __init__(self, folder: Path) -> None:
        """Load the cached digests of the folder."""
        self._folder = folder
        self._path = os.path.realpath(folder)
        self._known = _cached().get(self._path, {})
        self._changed = False

    def sha256(self, file: Path) -> str:
        """Return the digest of a file in the folder, hexadecimal.

        Raises:
            OSError: the file cannot be read.
        """
        name = file.relative_to(self._folder).as_posix()
        found = file.stat()
        state = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        match self._known.get(name):
            case [*known, str(digest)] if known == state:
                return digest
        settled = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_S * 1e9
        digest = sha256_of(file)
        if settled:
            self._known[name] = [*state, digest]
            self._changed = True
        return digest

    def store(self) -> None:
        """Store new digests, if the cache can be written; drops those of folders that no longer exist."""
        if not self._changed or not _is_utf8(self._path):  # JSON cannot hold other paths
            return
        folders = {path: known for path, known in _cached().items() if Path(path).is_dir()}
        keep(_NAME, orjson.dumps(folders | {self._path: self._known}))


def sha256_of(file: Path) -> str:
    """Read a file and return its digest, hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cached() -> dict[str, dict[str, object]]:
    """Return the cached digests by folder and file name; empty where the cache is damaged."""
    try:
        found = orjson.loads(kept(_NAME) or b"{}")
    except orjson.JSONDecodeError:
        return {}
    folders = found.items() if isinstance(found, dict) else ()
    return {path: known for path, known in folders if isinstance(known, dict)}


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
