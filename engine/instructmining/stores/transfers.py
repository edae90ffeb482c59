"""Brings whole files to a store, and folders from it.

A store has no rename. An object appears as a whole, but pyarrow completes an upload that an error interrupts, and some
stores show an empty object meanwhile. So a file is finished here first; of several, the last one that is brought says
what the others are.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from instructmining.stores.addresses import Address
from instructmining.stores.failures import translated
from instructmining.stores.files import open_file, remove, stored
from instructmining.stores.filesystems import file_system

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_SLICE = 64 << 20  # bytes on their way at once
_LARGEST = {"s3": 10_000 * (10 << 20)}  # ten thousand parts of ten mebibytes
_TRIES = 3
_FINAL = frozenset({errno.EACCES, errno.ENOENT})  # no bucket, no right to write: another try says the same
_PAUSE_S = 2.0  # before the second try; twice as long before the third
_COPIED = 1 << 23


def upload(local: Path, path: str) -> None:
    """Bring a file to a store as a whole; replaces what is there.

    Raises:
        OSError: the store refuses it, after several tries; nothing is at the address then.
    """
    address = Address.parse(path)
    if address.scheme == "hf":  # each file would be a commit
        raise OSError(errno.EROFS, "files of the hub are read here, not written; upload a folder with the hub's client")
    size = local.stat().st_size
    if size > _LARGEST.get(address.scheme, size):
        raise OSError(errno.EFBIG, f"has {size:,} bytes, more than one object may have here; write it in shards")
    for tries in range(1, _TRIES + 1):
        try:
            with translated():
                _write(file_system(address), address.path, local)
            there = stored(path)
            if there is None or there.size != size:
                found = "nothing" if there is None else f"{there.size:,} bytes"
                raise OSError(errno.EIO, f"{size:,} bytes were written, and the store has {found}")
        except OSError as error:
            if tries == _TRIES or error.errno in _FINAL:
                raise
            time.sleep(_PAUSE_S * tries)
        else:
            return


def _write(store: FileSystem, path: str, local: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415 - only where a store is used

    with pa.memory_map(str(local)) if local.stat().st_size else pa.BufferReader(b"") as source:
        content = source.read_buffer()
        file = store.open_output_stream(path, compression=None)  # by default, a name ending in .gz is compressed
        try:
            for begin in range(0, content.size, _SLICE):
                file.write(content.slice(begin, min(_SLICE, content.size - begin)))
                file.flush()  # waits, so that memory does not hold the file
        except BaseException:
            with suppress(OSError, pa.ArrowException):  # closing completes the object
                file.close()
            with suppress(OSError, pa.ArrowException):
                store.delete_file(path)
            raise
        file.close()


def put(content: bytes, path: str) -> None:
    """Bring a small file to a store.

    Raises:
        OSError: the store refuses it.
    """
    with TemporaryDirectory(prefix="instructmining-") as folder:
        local = Path(folder) / "content"
        local.write_bytes(content)
        upload(local, path)


def upload_in_order(files: Sequence[tuple[Path, str]]) -> None:
    """Bring files to a store one after the other; what is there under the last one's address goes first.

    Raises:
        OSError: the store refuses one.
    """
    last = stored(files[-1][1])
    if last is not None and last.size:
        remove([last.path])
    for local, path in files:
        upload(local, path)


def download(path: str, local: Path) -> None:
    """Copy a file of a store to this machine.

    Raises:
        OSError: it cannot be read or written.
    """
    with open_file(path) as source, local.open("wb") as target:
        shutil.copyfileobj(source, target, _COPIED)
