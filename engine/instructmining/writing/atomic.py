"""Files and folders that appear complete or not at all, of which one process at a time writes each.

What is written lies beside its target under a name that nothing else has, ``.NAME.XXXXXXXX.instructmining``; it is
synced, renamed, and its folder synced. Such names are given here alone: what lies under one when no process writes the
target is left by a process that was killed, and is removed by the next.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from filelock import FileLock, Timeout

from instructmining.errors import OutputError

_OURS = ".instructmining"
_LOCK = f".lock{_OURS}"
STANDARD = frozenset({None, "-"})  # what is named in place of a file where there is none


def beside(target: Path) -> Path:
    """A name beside a target that nothing has."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{_OURS}")


def is_unfinished(name: str, target: str = "*") -> bool:
    """Whether a file of this name is what :func:`beside` named for a target, or for any."""
    digits = "[0-9a-f]" * 8
    return fnmatchcase(name, f".{target if target == '*' else escape(target)}.{digits}{_OURS}")


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """A file that appears complete or not at all, also when the power goes; the last of several writers counts.

    Raises:
        OutputError: the disk does not take it.
    """
    partial = beside(path)
    try:
        with partial.open("xb") as file:
            file.write(content)
            _sync(file)
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def put_folder(folder: Path, target: Path) -> None:
    """Rename a folder to its target, which this process has claimed; the folder that is there is removed.

    Raises:
        OSError: it cannot be; then what was there is there again.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    old = _replaced(target)
    if target.exists():
        target.rename(old)
    try:
        folder.rename(target)
        sync_folder(target.parent)
    finally:
        _remove_replaced(target)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder; where the system has no such call, nothing."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def claimed(target: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Be the one process that writes a target; its folder is made where there is none.

    Args:
        target: a file or a folder, there or not.
        on_wait: called where another process writes it, which is then waited for; without it, that is refused.

    Raises:
        OutputError: another process writes it, or the folder cannot be written.
    """
    path = target.with_name(f".{target.name}{_LOCK}")
    lock = FileLock(path, thread_local=False)
    try:
        if not target.parent.is_dir():
            _make_folder(target.parent)
        try:
            _acquire(lock, path, timeout=0)
        except Timeout as error:
            if on_wait is None:
                raise OutputError(f"{target}: another run writes there; wait for it, or name another file") from error
            on_wait()
            _acquire(lock, path, timeout=-1)
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}") from error
    try:
        _remove_unfinished(target)
        yield
    finally:
        with suppress(OSError):  # where the system removes no open file, it stays and does no harm
            path.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, path: Path, *, timeout: float) -> None:
    """Hold the lock on the file that has the name now: whoever held it before may have removed that of then."""
    while True:
        lock.acquire(timeout=timeout)
        if path.exists():
            return
        lock.release()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error


class Placement:
    """Files that are written beside their targets and put in place together; a context manager.

    What is not put in place is removed at the end.
    """

    def __init__(
        self,
        targets: Iterable[str | Path | None],
        *,
        overwrite: bool = False,
        sidecars: Sequence[str | Path] = (),
        reads: Iterable[str | Path | None] = (),
    ) -> None:
        """Check that all can be written, and be the one process that writes them.

        Args:
            targets: in the order in which they are put in place; None and "-" are passed over.
            overwrite: whether the targets may be there.
            sidecars: put in place before the targets, and replaced where they are there.
            reads: files and bundles that are read; no target or sidecar may be one of them.

        Raises:
            OutputError: a target is read, is there, is no file or is named twice, or another process writes it.
        """
        wanted = [Path(str(target)) for target in targets if target not in STANDARD]
        self._targets = [*map(Path, sidecars), *wanted]
        for target in self._targets:
            check_place(target, overwrite=True)
        check_apart(self._targets, reads)
        self._written: dict[Path, Path] = {}  # target → where it is
        with ExitStack() as stack:
            for target in [*wanted, *map(Path, sidecars)]:
                stack.enter_context(claimed(target))
                check_place(target, overwrite=overwrite or target not in wanted)
            stack.callback(self._remove)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """The placement itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not put in place, and let others write."""
        self._stack.close()

    @contextmanager
    def open(self, target: str | Path) -> Iterator[BinaryIO]:
        """A file that takes the place of a target once :meth:`put` is called.

        Raises:
            OutputError: the disk does not take it.
        """
        target = Path(target)
        self._written[target] = partial = beside(target)
        try:
            with partial.open("xb") as file:
                yield file
                _sync(file)
        except OSError as error:
            raise OutputError(f"{target}: {error.strerror}") from error

    def write(self, target: str | Path, content: bytes) -> None:
        """Write a file of this content; see :meth:`open`."""
        with self.open(target) as file:
            file.write(content)

    def put(self) -> None:
        """Put all that was written in place, the last target last.

        Raises:
            OutputError: the file system does not do it.
        """
        for target in self._targets:
            if target not in self._written:
                continue
            try:
                self._written.pop(target).replace(target)
                sync_folder(target.parent)
            except OSError as error:
                raise OutputError(f"{target}: {error.strerror}") from error

    def _remove(self) -> None:
        for partial in self._written.values():
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def check_apart(outputs: Sequence[str | Path | None], reads: Iterable[str | Path | None]) -> None:
    """Prove that nothing that is read would be replaced, and that no two outputs are one.

    Names are followed through links; hard links to one file are that file.

    Args:
        outputs: files and folders that will be written, with all that is put beside them; None and "-" are passed over.
        reads: files, and folders with all below them; names of what is no file are passed over.

    Raises:
        OutputError: an output is read, holds what is read, or is another output.
    """
    read = [_Read(str(name)) for name in reads if name not in STANDARD]
    places: list[str] = []
    for output in outputs:
        if output in STANDARD:
            continue
        place, identity = os.path.realpath(str(output)), _identity(str(output))
        for one in read:
            if any(_is_below(path, place) for path in one.paths) or (identity and identity in one.identities):
                raise OutputError(f"{output}: would replace {one.name}, which this command reads; name another output")
        if any(_is_below(place, other) or _is_below(other, place) for other in places):
            raise OutputError(f"{output}: is named for two outputs; name another file")
        places.append(place)


def check_place(target: Path, *, overwrite: bool) -> None:
    """Prove that a file may be put in a place.

    Raises:
        OutputError: a folder or a device is there, or a file that may not be replaced.
    """
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name a file")
    if (target.exists() and not target.is_file()) or _is_of_the_system(target):
        raise OutputError(f"{target}: is a device or a pipe; name a file, or - for standard output")
    if os.path.lexists(target) and not overwrite:
        raise OutputError(f"{target}: exists; give --overwrite to replace it")


def _is_of_the_system(target: Path) -> bool:
    """Whether it is a name of a device or of an open stream, as /dev/stdout, which may lead to a file."""
    folder = os.path.realpath(target.parent)
    return os.name == "posix" and (folder == "/dev" or folder.startswith(("/dev/fd", "/proc/")))


class _Read:
    """What is read: a file, or a folder with the files below it."""

    def __init__(self, name: str) -> None:
        path = Path(name)
        below = [str(file) for file in path.rglob("*") if file.is_file()] if path.is_dir() else []
        self.name = name
        self.paths = [os.path.realpath(file) for file in (name, *below)]
        self.identities = {_identity(file) for file in (name, *below)}


def _is_below(path: str, place: str) -> bool:
    """Whether a path is a place or lies in it."""
    return path == place or path.startswith(f"{place.rstrip(os.sep)}{os.sep}")


def _identity(path: str) -> tuple[int, int] | None:
    """Of a file that is there, whatever its name."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino)


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced{_OURS}")


def _remove_replaced(target: Path) -> None:
    """Remove the folder that another was to replace, or put it back where that other did not come."""
    old = _replaced(target)
    if not old.is_dir() or old.is_symlink():
        return
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(target)


def _remove_unfinished(target: Path) -> None:
    """What a process that was killed left of this target."""
    with suppress(OSError):
        _remove_replaced(target)
        for path in target.parent.iterdir():
            if not is_unfinished(path.name, target.name):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
