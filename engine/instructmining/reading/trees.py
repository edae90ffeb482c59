"""Lists the files below a folder, or those that match a pattern, on this machine and in stores."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from instructmining.errors import InputError
from instructmining.reading.compression import is_pipe
from instructmining.reading.patterns import ANY_DEPTH, fits
from instructmining.stores.addresses import Address, folder_of, is_address, joined
from instructmining.stores.files import has_bucket_of, stored, stored_below

CLOSED = "/"  # ends the name of a folder that is not entered: a hidden one, or a link, which may lead in circles


class Tree(Protocol):
    """Where an input's folders and files are."""

    def is_file(self) -> bool:
        """Return whether the input is a file, a pipe, or nothing at all, rather than a folder or a pattern."""

    def is_folder(self, path: str) -> bool:
        """Return whether a path is a folder."""

    def exists(self, path: str) -> bool:
        """Return whether there is something at a path."""

    def below(self, folder: str) -> Iterator[str]:
        """Yield the files below a folder, relative to it, and the folders that are not entered."""

    def fitting(self) -> Iterator[str]:
        """Yield the paths that match the pattern; folders that are not entered end in /."""


def tree_of(name: str) -> Tree:
    """Return the tree that an input is in.

    Raises:
        StoreError: its address is wrong.
        InputError: the store cannot be reached.
    """
    return _Store(name) if is_address(name) else _Disk(name)


class _Disk:
    def __init__(self, name: str) -> None:
        self._name = name

    def is_file(self) -> bool:
        name = self._name
        return not Path(name).is_dir() and (is_pipe(name) or os.path.lexists(name) or not glob.has_magic(name))

    def is_folder(self, path: str) -> bool:
        return Path(path).is_dir()

    def exists(self, path: str) -> bool:
        return Path(path).exists()

    def below(self, folder: str) -> Iterator[str]:
        for parent, folders, names in os.walk(folder, onerror=_refuse):
            inside = Path(parent).relative_to(folder)
            closed = [name for name in folders if name.startswith(".") or (Path(parent) / name).is_symlink()]
            folders[:] = [name for name in folders if name not in closed]
            yield from (f"{inside / name}{CLOSED}" for name in closed)
            yield from (str(inside / name) for name in names)

    def fitting(self) -> Iterator[str]:
        parts = self._name.split("/")
        if ANY_DEPTH not in parts:
            yield from glob.iglob(self._name)  # noqa: PTH207 - Path.glob would change the form of the path
            return
        at = parts.index(ANY_DEPTH)
        above, below = "/".join(parts[:at]), tuple(part for part in parts[at:] if part)
        if at:
            above = above or "/"
        for top in glob.glob(above) if glob.has_magic(above) else [above]:  # noqa: PTH207
            for path in _walked(top, hidden=any(part.startswith(".") for part in below)):
                if path.endswith(CLOSED) or fits(path.split("/"), below):
                    yield os.path.join(top, path)  # noqa: PTH118 - keeps the form of the path


def _walked(top: str, *, hidden: bool) -> Iterator[str]:
    """Yield what a folder holds, recursively, relative to it."""
    if not Path(top).is_dir():
        return
    for parent, folders, names in os.walk(top or os.curdir, onerror=_refuse):
        if not hidden:
            folders[:] = [name for name in folders if not name.startswith(".")]
        for name in [*folders, *names]:
            path = Path(parent) / name
            below = str(path.relative_to(top))
            yield f"{below}{CLOSED}" if name in folders and path.is_symlink() else below


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: {error.strerror}") from error


class _Store:
    """The keys of a store that begin as an address does, up to its first star; folders are what keys have in common."""

    def __init__(self, name: str) -> None:
        self._name = name
        parts = Address.parse(name).key.split("/")
        stars = next((at for at, part in enumerate(parts) if glob.has_magic(part)), None)
        self._is_pattern = stars is not None
        top = name if stars is None else name.removesuffix("/".join(parts[stars:])).rstrip("/")
        try:
            self._is_file = stored(name) is not None
            self._files = [] if self._is_file else [one.path for one in stored_below(top)]
            has_bucket = bool(self._is_file or self._files) or has_bucket_of(name)
        except OSError as error:
            raise InputError(f"{name}: {error.strerror}") from error
        if not has_bucket:
            raise InputError(f"{name}: no such bucket")
        self._all = frozenset(self._files)
        self._folders = {parent for file in self._files for parent in _parents(file)}

    def is_file(self) -> bool:
        return self._is_file or (not self._is_pattern and not self._files)

    def is_folder(self, path: str) -> bool:
        return path in self._folders

    def exists(self, path: str) -> bool:
        return path in self._all

    def below(self, folder: str) -> Iterator[str]:
        closed = set()
        for file in self._files:
            path = file.removeprefix(f"{folder}/")
            *folders, _ = path.split("/")
            hidden = next((at for at, name in enumerate(folders, 1) if name.startswith(".")), None)
            if path == file:
                continue
            if hidden is None:
                yield path
            elif (shut := "/".join(folders[:hidden])) not in closed:
                closed.add(shut)
                yield f"{shut}{CLOSED}"

    def fitting(self) -> Iterator[str]:
        wanted = Address.parse(self._name).key.split("/")
        folders = self._folders if ANY_DEPTH not in wanted else ()
        yield from (path for path in (*self._files, *folders) if fits(Address.parse(path).key.split("/"), wanted))


def _parents(file: str) -> Iterator[str]:
    """Yield the folders of a file, from the inside out, down to its bucket."""
    depth = len(Address.parse(file).key.split("/"))
    for _ in range(depth):
        file = file.rpartition("/")[0]
        yield file


def beside_it(path: str, name: str) -> str:
    """Return the path of another name in the folder of a file."""
    return joined(folder_of(path), name)
