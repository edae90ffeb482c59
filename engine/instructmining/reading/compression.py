"""Opens files and standard input as bytes: plain, gzip or zstd."""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from instructmining.errors import InputError
from instructmining.errors.names import not_opened
from instructmining.reading.file_kinds import HEAD_BYTES, Packing, check_readable, kind_by_name, packing_by_head
from instructmining.reading.waiting import wait_for_bytes
from instructmining.stores.addresses import is_address
from instructmining.stores.files import open_file, size_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BOM = b"\xef\xbb\xbf"
DAMAGE = (EOFError, zlib.error, zstandard.ZstdError)  # of compressed data; errors of the disk are OSError
STANDARD_INPUT = "-"
_CHUNK = 1 << 20
_PACKED = 1 << 16  # compressed bytes read at a time
_CUT = "the compressed file is cut"
_SKIPPABLE = b"\x2a\x4d\x18"  # of a zstd skippable frame's magic number, after its first byte
_TOO_MUCH = "too much memory"  # zstd's words for a window of more than 128 MiB
_WINDOW = "; compress the file again without --long"
_NEWLINE = ord("\n")
_GZIP = 31  # zlib's window bits for the gzip format


class ByteSource:
    """The uncompressed bytes of one input.

    Attributes:
        stream: buffered stream of the uncompressed bytes.
    """

    def __init__(self, path: str, raw: BinaryIO) -> None:
        """Detect the compression from the first bytes, or from the name where they do not show it.

        Args:
            path: path in messages.
            raw: the open file, at its beginning.

        Raises:
            InputError: this version does not read such files.
        """
        self._path = path
        plain: io.BufferedReader = io.BufferedReader(cast(io.RawIOBase, raw), _CHUNK)
        head = plain.peek(HEAD_BYTES)[:HEAD_BYTES]
        check_readable(path, head)
        packing = packing_by_head(head) or kind_by_name(path).packing
        self._packed = None if packing is None else _Decompressed(plain, _PIECES[packing])
        self.stream: io.BufferedReader = plain
        if self._packed is not None:
            self.stream = io.BufferedReader(cast(io.RawIOBase, self._packed), _CHUNK)

    @property
    def is_packed(self) -> bool:
        """Whether the bytes are stored compressed."""
        return self._packed is not None

    def head(self) -> bytes:
        """The first bytes, up to a megabyte, which the stream yields again; only valid before anything else is read.

        Raises:
            InputError: the bytes are damaged.
        """
        try:
            return self.stream.peek(_CHUNK)[:_CHUNK]
        except DAMAGE as error:
            raise InputError(f"{self._path}: cannot be read: {error}") from error

    def position(self, offset: int) -> float:
        """Return the position in the file of an uncompressed byte; in a compressed file by the ratio so far."""
        packed = self._packed
        if packed is None:
            return offset
        return packed.taken * offset / packed.given if packed.given else 0.0


def _any(_: bytes) -> bool:
    return True


@contextmanager
def opened(path: str, *, is_told: Callable[[bytes], bool] = _any) -> Iterator[ByteSource]:
    """Open a file, or standard input.

    Args:
        path: path of the file, or "-".
        is_told: whether the first bytes of a pipe suffice to detect its kind.

    Raises:
        InputError: the file cannot be opened or read.
    """
    if path == STANDARD_INPUT and sys.stdin is None:
        raise InputError("standard input is closed; give a file, or a pipe to read from")
    with ExitStack() as stack:
        try:
            raw = sys.stdin.buffer if path == STANDARD_INPUT else stack.enter_context(open_file(path))
            source = ByteSource(path, cast(BinaryIO, _Pipe(raw, is_told)) if is_pipe(path) else raw)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        yield source


def is_pipe(path: str) -> bool:
    """Return whether a path can be read only once: standard input, or a pipe such as a shell's ``<(…)``."""
    if path == STANDARD_INPUT or is_address(path):
        return path == STANDARD_INPUT
    file = Path(path)
    return file.exists() and not file.is_file() and not file.is_dir()


def file_size(path: str) -> int:
    """Return the size of a file in bytes.

    Raises:
        InputError: there is no such file, or it is a folder.
    """
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder; wanted a file of rows")
    try:
        return size_of(path, as_known=True)
    except OSError as error:
        raise InputError(not_opened(path, error)) from error


class _Pipe(io.RawIOBase):
    """Bytes of a pipe as they arrive, the first ones together; a thread that waits for more can be called off."""

    def __init__(self, file: BinaryIO, is_told: Callable[[bytes], bool]) -> None:
        self._file = file
        self._is_told = is_told
        self._is_begun = False
        try:
            self._number: int | None = file.fileno()
        except OSError:  # an in-memory stream in place of standard input
            self._number = None

    def readable(self) -> bool:
        return True

    def readinto(self, target: WriteableBuffer, /) -> int:
        """Read what is there; at the beginning wait until it suffices, fills the target, or the pipe ends."""
        view = memoryview(target)
        size = self._some(view)
        looked_at = 0
        while not self._is_begun and 0 < size < len(view):
            # Checked at a line's end or once the size has doubled, so that small pieces cost no more than large ones.
            if view[size - 1] == _NEWLINE or size >= 2 * looked_at:
                looked_at = size
                if self._is_told(bytes(view[:size])):
                    break
            more = self._some(view[size:])
            if not more:
                break
            size += more
        self._is_begun = True
        return size

    def _some(self, target: memoryview) -> int:
        if self._number is not None:
            wait_for_bytes(self._number)
        return cast(io.BufferedReader, self._file).readinto1(target)


class _Decompressed(io.RawIOBase):
    """Concatenated compressed frames; a truncated frame raises after all bytes before the cut were given.

    Output comes in pieces of bounded size, however far a few bytes expand.

    Attributes:
        taken: compressed bytes decompressed so far.
        given: uncompressed bytes given so far.
    """

    def __init__(self, raw: io.BufferedReader, pieces: Callable[[_Packed], Iterator[bytes]]) -> None:
        self.given = 0
        self._packed = _Packed(raw)
        self._pieces = _together(pieces(self._packed))
        self._plain = memoryview(b"")

    @property
    def taken(self) -> int:
        return self._packed.taken

    def readable(self) -> bool:
        return True

    def readinto(self, target: WriteableBuffer, /) -> int:
        """Fill the target from one piece.

        Raises:
            EOFError: the file ends inside a frame.
        """
        while not self._plain:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._plain = memoryview(piece)
            self.given += len(piece)
        view = memoryview(target)
        size = min(len(view), len(self._plain))
        view[:size], self._plain = self._plain[:size], self._plain[size:]
        return size


def _together(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces, so that positions in the file can be estimated from the pieces before."""
    waiting: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            waiting.append(piece)
            size += len(piece)
            if size >= _CHUNK:
                yield b"".join(waiting)
                waiting, size = [], 0
    except DAMAGE:
        yield b"".join(waiting)
        raise
    yield b"".join(waiting)


class _Packed:
    """Compressed bytes, counted as they are read."""

    def __init__(self, raw: io.BufferedReader) -> None:
        self.taken = 0
        self._raw = raw

    def some_of(self, most: int) -> bytes:
        """Read at most so many bytes; none at the end."""
        part = self._raw.read(most)
        self.taken += len(part)
        return part

    def exactly(self, size: int) -> bytes:
        """Read exactly so many bytes.

        Raises:
            EOFError: the file ends before.
        """
        part = self._raw.read(size)
        self.taken += len(part)
        if len(part) < size:
            raise EOFError(_CUT)
        return part


def _gzip(packed: _Packed) -> Iterator[bytes]:
    """Decompress gzip members; zeros that pad the end of a member are ignored.

    Raises:
        EOFError: the file ends inside a member.
        zlib.error: the data is damaged.
    """
    waiting = packed.some_of(_PACKED)
    while waiting:
        member = zlib.decompressobj(wbits=_GZIP)
        while not member.eof:
            plain = member.decompress(waiting, _CHUNK)
            waiting = member.unconsumed_tail
            if plain:
                yield plain
            if not waiting and not member.eof:
                waiting = packed.some_of(_PACKED)
                if not waiting:
                    raise EOFError(_CUT)
        waiting = member.unused_data or packed.some_of(_PACKED)
        while waiting and not (waiting := waiting.lstrip(b"\0")):
            waiting = packed.some_of(_PACKED)


def _zstd(packed: _Packed) -> Iterator[bytes]:
    """Decompress zstd frames (RFC 8878) block by block; a block is at most 128 KiB.

    Raises:
        EOFError: the file ends inside a frame.
        zstandard.ZstdError: the data is damaged.
    """
    while first := packed.some_of(1):
        magic = first + packed.exactly(3)
        if magic[1:] == _SKIPPABLE and magic[0] & 0xF0 == 0x50:
            left = int.from_bytes(packed.exactly(4), "little")
            while left:
                left -= len(packed.exactly(min(left, _CHUNK)))
            continue
        frame = zstandard.ZstdDecompressor().decompressobj()
        head = packed.exactly(1)
        sizes = head[0]
        is_single = sizes >> 5 & 1
        content_size = (is_single, 2, 4, 8)[sizes >> 6]
        rest = packed.exactly((1 - is_single) + (0, 1, 2, 4)[sizes & 3] + content_size)
        try:
            yield frame.decompress(magic + head + rest)
        except zstandard.ZstdError as error:
            raise zstandard.ZstdError(f"{error}{_WINDOW if _TOO_MUCH in str(error) else ''}") from error
        is_last = False
        while not is_last:
            block = packed.exactly(3)
            number = int.from_bytes(block, "little")
            is_last, is_repeated, size = bool(number & 1), number >> 1 & 3 == 1, number >> 3
            yield frame.decompress(block + packed.exactly(1 if is_repeated else size))
        if sizes >> 2 & 1:
            yield frame.decompress(packed.exactly(4))
        if not frame.eof:
            raise EOFError(_CUT)


_PIECES: dict[Packing, Callable[[_Packed], Iterator[bytes]]] = {"gzip": _gzip, "zstd": _zstd}
