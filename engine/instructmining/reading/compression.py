"""Files to bytes: plain, .gz or .zst, or standard input; and what all readers of rows from such bytes share."""

from __future__ import annotations

import io
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import zstandard

from instructmining.errors import InputError
from instructmining.records import RowOrReject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BOM = b"\xef\xbb\xbf"
DAMAGE = (EOFError, zlib.error, zstandard.ZstdError)  # of compressed data; the disk's own errors are OSError
PACKED = (".gz", ".zst")
_CHUNK = 1 << 20
_PACKED = 1 << 16  # compressed bytes taken at a time
_GZIP = 31  # zlib's window bits for the gzip format


class FileRows(ABC):
    """Rows of one file in order, bad ones as rejects, read from front to back; counts what it passed.

    Attributes:
        path: as it was given.
        blank: blank lines skipped so far.
        bytes_total: size of the file, None for standard input.
        rows_total: None, since nothing in such a file says it.
        begin: line and offset of the row to begin with, None for the first.
    """

    rows_total: int | None = None

    def __init__(self, path: str, *, max_row_bytes: int) -> None:
        """Name a file; it is opened when the rows are asked for.

        Args:
            path: a file, or "-" for standard input.
            max_row_bytes: a longer row is a reject, of which the first bytes are kept.

        Raises:
            InputError: there is no such file, or it cannot be read.
        """
        self.path = path
        self.blank = 0
        self.bytes_total = None if path == "-" else file_size(path)
        self.begin: tuple[int, int] | None = None
        self._max_row_bytes = max_row_bytes
        self._raw: BinaryIO | None = None
        self._passed = False

    @property
    def once(self) -> bool:
        """Whether it is standard input, whose rows can be asked for only once."""
        return self.path == "-"

    @property
    def bytes_read(self) -> int:
        """Bytes taken from the file so far, compressed where it is; its size once it is read to the end or left."""
        if self._passed:
            return self.bytes_total or 0
        if self._raw is None or self.path == "-":
            return 0
        return self.bytes_total or 0 if self._raw.closed else self._raw.tell()

    def pass_over(self) -> None:
        """Count the file as read; its rows are not asked for."""
        self._passed = True

    def begin_at(self, line: int, offset: int) -> None:
        """Begin with a row that was met before, at the line and the offset that it had then.

        Raises:
            InputError: the input is standard input.
        """
        if self.path == "-":
            raise InputError("standard input cannot be read again from the middle; give a file")
        self.begin = (line, offset)

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield each row, or the reject that stands for it.

        Raises:
            InputError: the file cannot be opened, the disk gives an error anywhere in it, or compressed data is damaged
                before the first row. Damage behind that is a reject: it is the same each time the file is read.
        """
        with self._opened() as stream:
            try:
                yield from self.rows_of(stream, self._head(stream))
            except OSError as error:
                raise InputError(f"{self.path}: cannot be read: {error.strerror or error}") from error

    @abstractmethod
    def rows_of(self, stream: io.BufferedReader, head: bytes) -> Iterator[RowOrReject]:
        """Yield the rows from :attr:`begin` on, or the rejects that stand for them.

        Args:
            stream: at its beginning.
            head: its first bytes, which the stream gives again.
        """

    def skip(self, stream: io.BufferedReader, size: int) -> None:
        """Pass over the first bytes.

        Raises:
            InputError: they cannot be read.
        """
        try:
            if stream.seekable():
                stream.seek(size)
                return
            while size > 0:
                part = stream.read(min(size, _CHUNK))
                if not part:
                    return
                size -= len(part)
        except DAMAGE as error:
            raise InputError(f"{self.path}: cannot be read: {error}") from error

    def _head(self, stream: io.BufferedReader) -> bytes:
        try:
            return stream.peek(_CHUNK)[:_CHUNK]
        except DAMAGE as error:
            raise InputError(f"{self.path}: cannot be read: {error}") from error

    @contextmanager
    def _opened(self) -> Iterator[io.BufferedReader]:
        with ExitStack() as stack:
            try:
                raw = sys.stdin.buffer if self.path == "-" else stack.enter_context(Path(self.path).open("rb"))
            except OSError as error:
                raise InputError(f"{self.path}: {error.strerror}") from error
            self._raw = raw
            suffix = Path(self.path).suffix
            plain: io.RawIOBase | BinaryIO = raw
            if suffix == ".gz":
                plain = _Decompressed(raw, partial(zlib.decompressobj, wbits=_GZIP))
            elif suffix == ".zst":
                plain = _Decompressed(raw, lambda: zstandard.ZstdDecompressor().decompressobj())
            yield io.BufferedReader(plain, _CHUNK)  # type: ignore[arg-type]


def file_size(path: str) -> int:
    """Bytes of a file that is there.

    Raises:
        InputError: there is none, or it is a folder.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{path}: is a folder; wanted a file of rows")
    try:
        return file.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


class _Frame(Protocol):
    """One compressed frame, as zlib and zstandard read it."""

    @property
    def unused_data(self) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Decompressed(io.RawIOBase):
    """Compressed frames one after the other; a cut one raises once all before the cut was given."""

    def __init__(self, raw: BinaryIO, start: Callable[[], _Frame]) -> None:
        self._raw = raw
        self._start = start
        self._frame: _Frame | None = None
        self._packed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: WriteableBuffer, /) -> int:
        """Fill the target as far as one piece goes.

        Raises:
            EOFError: the file ends inside a frame.
        """
        while not self._plain:
            packed = self._packed or self._raw.read(_PACKED)
            if not packed:
                if self._frame is not None:
                    raise EOFError("the compressed file is cut")
                return 0
            self._frame = self._frame or self._start()
            self._plain = memoryview(self._frame.decompress(packed))
            self._packed = b""
            if self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, None
        view = memoryview(target)
        size = min(len(view), len(self._plain))
        view[:size], self._plain = self._plain[:size], self._plain[size:]
        return size
