"""``OUT.partial``, the folder of a run at work: how it is known, taken, and removed.

A file in it says that a run made it; it is the first to come and the last to go. Where neither that file nor the state
of a run is there, the folder is somebody else's, and nothing of it is touched.
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
# What a run puts there: see the table in docs/reliability.md.
_NAMES = ("batches.*", "rows", "rows.joined", "rejects", "run", "windows", "*.f32", "neighbours.*", _LOCK)


def take(folder: Path) -> None:
    """Make the folder, or take the one that a run has left.

    Raises:
        OutputError: what is there was not made by a run, or it cannot be made.
    """
    try:
        if folder.is_symlink() or (folder.exists() and not is_of_a_run(folder)):
            raise OutputError(
                f"{folder}: is there and was not made by a run, which would work in it; move it, or name another OUT"
            )
        folder.mkdir(exist_ok=True)
        if not (folder / _MARKER).exists():
            (folder / _MARKER).write_bytes(_SAYS)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}") from error


def is_of_a_run(folder: Path) -> bool:
    """Whether a run made this folder, or it is empty."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if not names or _MARKER in names:
        return True
    return _is_state(folder / _STATE) or (names == {_LOCK} and not (folder / _LOCK).stat().st_size)


def clear(folder: Path) -> None:
    """Remove what a run has left in its folder, first of all what another would go on from.

    Raises:
        OSError: the file system does not do it.
    """
    (folder / _STATE).unlink(missing_ok=True)
    for path in list(folder.iterdir()):
        if is_unfinished(path.name) or any(fnmatchcase(path.name, name) for name in _NAMES):
            path.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove the folder of a run; with somebody else's files in it they stay, and it does.

    Raises:
        OSError: the file system does not do it.
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
