"""Writes files and folders that appear complete or not at all, one process at a time per target.

A file is written next to its target under a name of its own, ``.NAME.XXXXXXXX.instructmining``; then it is synced and
renamed, and its folder synced. Only this module uses such names: a file with one that no process writes was left by a
killed process, and the next process removes it. A file for a store is written on this machine, and then brought there
as a whole.
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
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import BinaryIO, Self

from filelock import FileLock, Timeout

from instructmining.errors import OutputError
from instructmining.stores.addresses import SCHEMES, is_address, name_of, plain
from instructmining.stores.files import exists
from instructmining.stores.transfers import upload

_OURS = ".instructmining"
_LOCK = f".lock{_OURS}"
STANDARD = frozenset({None, "-"})  # stand for standard input or output, or for no file


def beside(target: Path) -> Path:
    """Return an unused name next to a target."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{_OURS}")


def is_unfinished(name: str, target: str = "*") -> bool:
    """Return whether a name is one that :func:`beside` returned for a target, or for any."""
    digits = "[0-9a-f]" * 8
    return fnmatchcase(name, f".{target if target == '*' else escape(target)}.{digits}{_OURS}")


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file that appears complete or not at all, also on power loss; the last of several writers wins.

    Raises:
        OutputError: the disk refuses it.
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
    """Rename a folder to its target, which this process has claimed; removes the folder that was there.

    Raises:
        OSError: the rename fails; the earlier folder is back in place.
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
    """Wait until the disk has the names in a folder; does nothing where the system has no such call."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def claimed(target: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of a target, so that only this process writes it; creates its folder where missing.

    Args:
        target: a file or a folder, whether or not it exists.
        on_wait: called before waiting for another process that writes it; without it, that is an error.

    Raises:
        OutputError: another process writes it, or the folder cannot be written.
    """
    if target.name in {"", ".."}:  # "." and paths that end so name a folder that has another name
        target = target.resolve()
    path = target.with_name(f".{target.name}{_LOCK}")
    lock = FileLock(path, thread_local=False)
    try:
        check_local(target)
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
        with suppress(OSError):  # where the system cannot remove an open file, it stays and does no harm
            path.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, path: Path, *, timeout: float) -> None:
    """Hold the lock on the file that has the name now: the holder before may have removed the earlier one."""
    while True:
        lock.acquire(timeout=timeout)
        if path.exists():
            return
        lock.release()


def check_local(target: Path) -> None:
    """Check that a path is not an address that became one, such as ``s3:/BUCKET``.

    Raises:
        OutputError: it is.
    """
    if target.parts and target.parts[0].removesuffix(":") in SCHEMES and target.parts[0].endswith(":"):
        raise OutputError(
            f"{target}: looks like an address of a store; wanted {target.parts[0]}//BUCKET/KEY, or a path"
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error


class Placement:
    """Files that are written next to their targets and put in place together; a context manager.

    Files that were not put in place are removed on exit.
    """

    def __init__(
        self,
        targets: Iterable[str | Path | None],
        *,
        overwrite: bool = False,
        sidecars: Sequence[str | Path] = (),
        reads: Iterable[str | Path | None] = (),
    ) -> None:
        """Check that all targets can be written, and claim them for this process.

        Args:
            targets: targets in the order in which they are put in place; None and "-" are skipped.
            overwrite: whether the targets may exist.
            sidecars: put in place before the targets, and replaced where they exist.
            reads: files and bundles that are read; no target or sidecar may be one of them.

        Raises:
            OutputError: a target is read, exists, is no file or is named twice, or another process writes it.
        """
        wanted = [_key(target) for target in targets if target is not None and target not in STANDARD]
        beside_them = list(map(_key, sidecars))
        self._targets = [*beside_them, *wanted]
        for target in self._targets:
            check_place(target, overwrite=True)
        check_apart(self._targets, reads)
        self._written: dict[str, Path] = {}  # target → path where it was written
        with ExitStack() as stack:
            for target in [*wanted, *beside_them]:
                if not is_address(target):
                    stack.enter_context(claimed(Path(target)))
                check_place(target, overwrite=overwrite or target not in wanted)
            self._scratch = Path()  # for files that are brought to a store
            if any(map(is_address, self._targets)):
                self._scratch = Path(stack.enter_context(TemporaryDirectory(prefix="instructmining-")))
            stack.callback(self._remove)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Return the placement."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not put in place, and release the targets."""
        self._stack.close()

    @contextmanager
    def open(self, target: str | Path) -> Iterator[BinaryIO]:
        """Open a file that replaces a target once :meth:`put` is called.

        Raises:
            OutputError: the disk refuses it.
        """
        target = _key(target)
        partial = beside(self._scratch / name_of(target) if is_address(target) else Path(target))
        self._written[target] = partial
        try:
            with partial.open("xb") as file:
                yield file
                _sync(file)
        except OSError as error:
            raise OutputError(f"{target}: {error.strerror}") from error

    def write(self, target: str | Path, content: bytes) -> None:
        """Write a file with this content; see :meth:`open`."""
        with self.open(target) as file:
            file.write(content)

    def put(self) -> None:
        """Put all that was written in place, the last target last.

        Raises:
            OutputError: the file system refuses.
        """
        for target in self._targets:
            if target not in self._written:
                continue
            written = self._written.pop(target)
            try:
                if is_address(target):
                    upload(written, target)
                else:
                    written.replace(target)
                    sync_folder(Path(target).parent)
            except OSError as error:
                raise OutputError(f"{target}: {error.strerror}") from error

    def _remove(self) -> None:
        for partial in self._written.values():
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _key(target: str | Path) -> str:
    """Return a target in one form."""
    return plain(target) if is_address(target) and isinstance(target, str) else str(Path(target))


def check_apart(outputs: Sequence[str | Path | None], reads: Iterable[str | Path | None]) -> None:
    """Check that no input would be replaced, and that no two outputs are the same file.

    Links are followed; hard links to one file are that file.

    Args:
        outputs: files and folders that will be written, with all files next to them; None and "-" are skipped.
        reads: files, and folders with everything below them; names of no existing file are skipped.

    Raises:
        OutputError: an output is an input, contains one, or is another output.
    """
    given = [str(name) for name in reads if name not in STANDARD]
    read = [_Read(name) for name in given if not is_address(name)]
    there = [plain(name) for name in given if is_address(name)]
    places: list[str] = []
    for output in outputs:
        if output in STANDARD:
            continue
        if is_address(output):
            if any(output == name or f"{name}/".startswith(f"{output}/") for name in there):
                raise OutputError(f"{output}: would replace what this command reads; name another output")
            continue
        place, identity = os.path.realpath(str(output)), _identity(str(output))
        for one in read:
            if any(_is_below(path, place) for path in one.paths) or (identity and identity in one.identities):
                raise OutputError(f"{output}: would replace {one.name}, which this command reads; name another output")
        if any(_is_below(place, other) or _is_below(other, place) for other in places):
            raise OutputError(f"{output}: is named for two outputs; name another file")
        places.append(place)


def check_place(target: str | Path, *, overwrite: bool) -> None:
    """Check that a file may be put in a place.

    Raises:
        OutputError: the place is a folder or a device, a file that may not be replaced, or in a store that does not
            answer.
        StoreError: the address is wrong.
    """
    if is_address(target):
        try:
            is_there = not overwrite and exists(target)
        except OSError as error:
            raise OutputError(f"{target}: {error.strerror}") from error
        if is_there:
            raise OutputError(f"{target}: exists; give --overwrite to replace it")
        return
    target = Path(target)
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name a file")
    if (target.exists() and not target.is_file()) or _is_of_the_system(target):
        raise OutputError(f"{target}: is a device or a pipe; name a file, or - for standard output")
    if os.path.lexists(target) and not overwrite:
        raise OutputError(f"{target}: exists; give --overwrite to replace it")


def _is_of_the_system(target: Path) -> bool:
    """Return whether a path names a device or an open stream, such as /dev/stdout, which may lead to a file."""
    folder = os.path.realpath(target.parent)
    return os.name == "posix" and (folder == "/dev" or folder.startswith(("/dev/fd", "/proc/")))


class _Read:
    """An input: a file, or a folder with the files below it."""

    def __init__(self, name: str) -> None:
        path = Path(name)
        below = [str(file) for file in path.rglob("*") if file.is_file()] if path.is_dir() else []
        self.name = name
        self.paths = [os.path.realpath(file) for file in (name, *below)]
        self.identities = {_identity(file) for file in (name, *below)}


def _is_below(path: str, place: str) -> bool:
    """Return whether a path is a place or lies in it."""
    return path == place or path.startswith(f"{place.rstrip(os.sep)}{os.sep}")


def _identity(path: str) -> tuple[int, int] | None:
    """Return the identity of an existing file, whatever its name."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino)


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced{_OURS}")


def _remove_replaced(target: Path) -> None:
    """Remove the folder that was being replaced, or put it back where its replacement did not arrive."""
    old = _replaced(target)
    if not old.is_dir() or old.is_symlink():
        return
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(target)


def _remove_unfinished(target: Path) -> None:
    """Remove what a killed process left of this target."""
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
