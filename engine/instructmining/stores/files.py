"""Reads files of this machine and of stores in the same way."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from instructmining.stores.addresses import Address, is_address, plain
from instructmining.stores.failures import translated
from instructmining.stores.filesystems import file_system

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from pyarrow import NativeFile

_HEAD_BYTES = 64  # that a look at the beginning of a file keeps
_KNOWN_S = 60.0  # for which what a store said of a file is taken to hold; a run checks at its end whether it did
_AT_ONCE = 16  # requests for the beginnings of many files
_FIRST_BYTES, _MOST_BYTES = 1 << 16, 1 << 23  # of a request: few for a look, more while a file is read in order


Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a store says of a file."""

    path: str  # its address
    size: int  # in bytes
    modified_ns: int


class _Known(Generic[Value]):
    """What a store said of files, for a while: of many small files it would be asked many times."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, Value]] = {}

    def get(self, path: str) -> Value | None:
        at, value = self._said.get(path, (-_KNOWN_S, None))
        return value if time.monotonic() - at < _KNOWN_S else None

    def keep(self, path: str, value: Value) -> None:
        self._said[path] = (time.monotonic(), value)

    def forget(self, path: str) -> None:
        self._said.pop(path, None)


_files, _heads = _Known[StoredFile](), _Known[bytes]()


def open_file(path: str | Path) -> io.BufferedReader:
    """Open a file to read its bytes; of a store's file only what is read is fetched.

    Raises:
        OSError: there is no such file, it cannot be opened, or later that it cannot be read.
        StoreError: the address is wrong.
    """
    if not is_address(path):
        return Path(plain(path) if isinstance(path, str) else path).open("rb")
    address = Address.parse(str(path))
    with translated():
        file = file_system(address).open_input_file(address.path)
        size = file.size()
    return io.BufferedReader(_Ranges(file, size), _FIRST_BYTES)


def table_source(path: str) -> str | io.BufferedReader:
    """Return what pyarrow opens a table by: an absolute path, which is never mistaken for a URL, or an open file.

    Raises:
        OSError: a store's file cannot be opened.
    """
    return open_file(path) if is_address(path) else os.fspath(Path(path).absolute())


def stored(path: str) -> StoredFile | None:
    """Return what a store says of a file; None where there is none.

    Raises:
        OSError: the store cannot be reached, or refuses.
    """
    from pyarrow.fs import FileType  # noqa: PLC0415 - only where a store is used

    address = Address.parse(path)
    with translated():
        found = file_system(address).get_file_info(address.path)
    if found.type != FileType.File:
        _forget(str(address))
        return None
    there = StoredFile(str(address), found.size, found.mtime_ns or 0)
    if there != _files.get(there.path):
        _heads.forget(there.path)
    _files.keep(there.path, there)
    return there


def _forget(path: str) -> None:
    _files.forget(path)
    _heads.forget(path)


def stored_below(path: str) -> list[StoredFile]:
    """Return all files of a store whose keys begin with an address and a slash, sorted by their addresses.

    Raises:
        OSError: the store cannot be reached, or refuses.
    """
    from pyarrow.fs import FileSelector, FileType  # noqa: PLC0415 - only where a store is used

    address = Address.parse(path)
    with translated():
        selector = FileSelector(address.path, allow_not_found=True, recursive=True)
        found = file_system(address).get_file_info(selector)
    root = str(Address(address.scheme, address.bucket, "", address.account))
    files = [
        StoredFile(f"{root}/{one.path.partition('/')[2]}", one.size, one.mtime_ns or 0)
        for one in found
        if one.type == FileType.File
    ]
    for one in files:
        _files.keep(one.path, one)
    return sorted(files, key=lambda one: os.fsencode(one.path))


def head_of(path: str | Path) -> bytes:
    """Return the first bytes of a file, at most 64.

    Raises:
        OSError: it cannot be read.
    """
    known = _heads.get(str(path)) if is_address(path) else None
    if known is not None:
        return known
    with open_file(path) as file:
        head = file.read(_HEAD_BYTES)
    if is_address(path):
        _heads.keep(str(path), head)
    return head


def look_at(paths: Sequence[str]) -> None:
    """Fetch the beginnings of many files of a store at once, so that each is there when it is asked for.

    Raises:
        OSError: one cannot be read.
    """
    there = [path for path in paths if is_address(path) and _heads.get(path) is None]
    if len(there) > 1:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="look") as pool:
            list(pool.map(head_of, there))


def has_bucket_of(path: str) -> bool:
    """Return whether the bucket of an address exists.

    Raises:
        OSError: the store cannot be reached, or refuses.
    """
    from pyarrow.fs import FileType  # noqa: PLC0415 - only where a store is used

    address = Address.parse(path)
    if address.scheme == "hf":
        return True  # the first part of the path is a kind of repository
    with translated():
        return bool(file_system(address).get_file_info(address.bucket).type != FileType.NotFound)


def exists(path: str | Path) -> bool:
    """Return whether there is a file, or on this machine a folder.

    Raises:
        OSError: the store cannot be reached.
    """
    return stored(str(path)) is not None if is_address(path) else Path(path).exists()


def size_of(path: str | Path, *, as_known: bool = False) -> int:
    """Return the size of a file in bytes.

    Args:
        path: of the file.
        as_known: whether what a store said of it a short while ago will do.

    Raises:
        OSError: there is none, or the store cannot be reached.
    """
    if not is_address(path):
        return Path(path).stat().st_size
    found = (_files.get(str(path)) if as_known else None) or stored(str(path))
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return found.size


def read_file(path: str | Path) -> bytes:
    """Return the bytes of a whole file.

    Raises:
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        return file.read()


def remove(paths: Iterable[str]) -> None:
    """Remove files of a store; those that are not there are passed over.

    Raises:
        OSError: the store refuses.
    """
    for path in paths:
        address = Address.parse(path)
        _forget(str(address))
        with suppress(FileNotFoundError), translated():
            file_system(address).delete_file(address.path)


class _Ranges(io.RawIOBase):
    """A file of a store, read by ranges that grow while it is read in order."""

    def __init__(self, file: NativeFile, size: int) -> None:
        self._file, self._size = file, size
        self._at = 0
        self._part, self._begin = memoryview(b""), 0
        self._next = _FIRST_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, target: WriteableBuffer, /) -> int:
        """Fill the target with what one range has.

        Raises:
            OSError: the store fails, or the file became shorter.
        """
        view = memoryview(target).cast("B")
        if self._at >= self._size or not view:
            return 0
        if not self._begin <= self._at < self._begin + len(self._part):
            self._fetch(len(view))
        skipped = self._at - self._begin
        count = min(len(view), len(self._part) - skipped)
        view[:count] = self._part[skipped : skipped + count]
        self._at += count
        return count

    def _fetch(self, least: int) -> None:
        follows = self._at == self._begin + len(self._part) and self._at > 0
        self._next = min(2 * self._next, _MOST_BYTES) if follows else _FIRST_BYTES
        wanted = min(max(self._next, least), self._size - self._at)
        with translated():
            self._file.seek(self._at)
            part = self._file.read(wanted)
        if len(part) < wanted:
            raise OSError(errno.EIO, "became shorter while it was read")
        self._part, self._begin = memoryview(part), self._at

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
