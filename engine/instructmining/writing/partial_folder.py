"""``OUT.partial``, the folder of a run in progress: how it is recognized, claimed and removed.

A file in it marks it as made by a run; it is created first and removed last. A folder without that file and without
the state of a run belongs to somebody else, and nothing in it is touched.
"""

from __future__ import annotations

from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

import orjson

from instructmining.errors import OutputError
from instructmining.writing.atomic import is_unfinished

_MARKER = "made-by-instructmining"
_SAYS = b"A run of instructmining works here, or was cut; the folder goes when its output is complete.\n"
_STATE = "state.json"
_LOCK = "lock"  # of a run of an earlier version, empty
# Files that a run puts there: see the table in docs/reliability.md.
_NAMES = ("batches.*", "rows", "rows.joined", "rejects", "run", "windows", "*.f32", "neighbours.*", _LOCK)


def take(folder: Path) -> None:
    """Create the folder, or take over the one that a run left.

    Raises:
        OutputError: the existing folder was not made by a run, or it cannot be created.
    """
    try:
        if folder.is_symlink() or (folder.exists() and not is_of_a_run(folder)):
            raise OutputError(
                f"{folder}: exists and was not made by a run, which needs this name; move it, or name another OUT"
            )
        folder.mkdir(exist_ok=True)
        if not (folder / _MARKER).exists():
            (folder / _MARKER).write_bytes(_SAYS)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}") from error


def is_of_a_run(folder: Path) -> bool:
    """Return whether a run made this folder, or it is empty."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if not names or _MARKER in names:
        return True
    return _is_state(folder / _STATE) or (names == {_LOCK} and not (folder / _LOCK).stat().st_size)


def clear(folder: Path) -> None:
    """Remove what a run left in its folder, first what another run would resume from.

    Raises:
        OSError: the file system refuses.
    """
    (folder / _STATE).unlink(missing_ok=True)
    for path in list(folder.iterdir()):
        if is_unfinished(path.name) or any(fnmatchcase(path.name, name) for name in _NAMES):
            path.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove the folder of a run; if it holds somebody else's files, keep them and the folder.

    Raises:
        OSError: the file system refuses.
    """
    clear(folder)
    (folder / _MARKER).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _is_state(path: Path) -> bool:
    try:
        said = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return False
    return isinstance(said, dict) and {"version", "identity", "generation", "marks"} <= said.keys()
