"""Which files of a bundle were found to be those that were exported, remembered by their state.

A file whose size, times and inode are those at which it was read whole is not read again.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import orjson

from instructmining.writing.cache import keep, kept

_NAME = "digests.json"
_SETTLED_S = 0.1  # a file that was changed later than this before it was read may change again within one tick


class Digests:
    """SHA-256 of the files of a folder, each read once for each state of it."""

    def __init__(self, folder: Path) -> None:
        """Take what is remembered of the folder."""
        self._folder = folder
        self._place = os.path.realpath(folder)
        self._known = _remembered().get(self._place, {})
        self._changed = False

    def sha256(self, file: Path) -> str:
        """Of a file of the folder, hexadecimal.

        Raises:
            OSError: it cannot be read.
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

    def remember(self) -> None:
        """Keep what was read, where the cache can be written, and forget folders that are gone."""
        if not self._changed or not _is_utf8(self._place):  # which JSON cannot hold
            return
        folders = {place: known for place, known in _remembered().items() if Path(place).is_dir()}
        keep(_NAME, orjson.dumps(folders | {self._place: self._known}))


def sha256_of(file: Path) -> str:
    """Digest of a file that is read whole, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remembered() -> dict[str, dict[str, object]]:
    """By folder and name of the file; nothing where it is damaged."""
    try:
        found = orjson.loads(kept(_NAME) or b"{}")
    except orjson.JSONDecodeError:
        return {}
    folders = found.items() if isinstance(found, dict) else ()
    return {place: known for place, known in folders if isinstance(known, dict)}


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
