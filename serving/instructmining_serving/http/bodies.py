"""Reads the body of a request: bounded in bytes, also after decompression, and in time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import zstandard
from starlette.requests import ClientDisconnect, Request

from instructmining.reading.conversations import kind_of
from instructmining_serving.http.held import hold

_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # by what they begin with, as no JSON does


class BodyError(Exception):
    """A body that is not read; ``status`` is the answer's."""

    def __init__(self, status: int, message: str) -> None:
        """Take the status and what to say."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How large a body may be, and how long it may take."""

    max_bytes: int = 32 << 20  # after decompression
    seconds: float = 30.0  # for the whole body


def decoded(request: Request) -> AsyncIterator[bytes]:
    """Yield the body of a request as it comes, decompressed in parts of some megabytes at most.

    A byte order mark at its begin is left out.

    Raises:
        BodyError: 415 where its encoding is not known; while iterating, 415 where it is compressed in another way than
            its encoding says, 400 where it is damaged.
        ClientDisconnect: while iterating, the client goes away.
    """
    wanted = request.headers.get("content-encoding", "identity").strip().lower()
    if wanted not in _DECODERS:
        raise BodyError(415, f"the content encoding {wanted[:40]!r} is not known; wanted {', '.join(_DECODERS)}")
    return _undamaged(_text(_DECODERS[wanted](request.stream())), wanted)


async def _undamaged(parts: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    try:
        async for part in parts:
            yield part
    except (zlib.error, zstandard.ZstdError) as error:
        raise BodyError(400, f"the body is not {encoding}: {error}") from error


async def _text(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts of a text, in UTF-8 and without a byte order mark.

    Raises:
        BodyError: it is compressed.
    """
    first = b""
    async for part in parts:
        first += part
        if not any(len(first) < len(mark) and mark.startswith(first) for mark in (_BOM, *_COMPRESSED)):
            break
    for mark, name in _COMPRESSED.items():
        if first.startswith(mark):
            raise BodyError(415, f"the body is {name}, and its headers do not say so; wanted Content-Encoding: {name}")
    yield first.removeprefix(_BOM)
    async for part in parts:
        yield part


async def read_body(request: Request, limits: BodyLimits) -> bytes:
    """Return the body of a request.

    Raises:
        BodyError: 413 where it is too large, 408 where it takes too long, 415 where its encoding is not known, 400
            where it is damaged or the client went away.
        TooLargeError: it takes too much memory.
        OverloadedError: the bodies of all requests do.
    """
    stream = decoded(request)
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > limits.max_bytes:
        raise BodyError(413, f"the body has {length[:20]} bytes, more than {limits.max_bytes:,}")
    parts = []
    left = limits.max_bytes
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in stream:
                left -= len(part)
                if left < 0:
                    raise BodyError(413, f"the body has more than {limits.max_bytes:,} bytes")
                hold(request.scope, part)
                parts.append(part)
    except TimeoutError as error:
        raise BodyError(408, f"the body did not come within {limits.seconds:g} seconds") from error
    except ClientDisconnect as error:
        raise BodyError(400, "the client went away before its body was read") from error
    return b"".join(parts)


async def read_json(request: Request, limits: BodyLimits) -> Mapping[str, Any]:
    """Return the body of a request, a JSON object.

    Raises:
        BodyError: as of :func:`read_body`; 400 where it is not JSON, 422 where it is not an object.
    """
    return json_object(await read_body(request, limits), "the body")


def json_object(content: bytes, what: str) -> Mapping[str, Any]:
    """Return a JSON object.

    Args:
        content: its text.
        what: has it.

    Raises:
        BodyError: 400 where it is not JSON, 422 where it is not an object.
    """
    found = json_value(content, what)
    if not isinstance(found, dict):
        raise BodyError(422, f"{what} is {kind_of(found)}, wanted an object")
    return found


def json_value(content: bytes, what: str) -> object:
    """Return any value of JSON.

    Args:
        content: its text.
        what: has it.

    Raises:
        BodyError: 400 where it is not JSON.
    """
    try:
        found: object = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BodyError(400, f"{what} is not JSON: {error.msg} at character {error.pos}") from error
    return found


async def _plain(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for part in stream:
        yield part


def _inflated(bits: int) -> Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]:
    async def decode(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        decoder = zlib.decompressobj(bits)
        async for part in stream:
            left = part
            while left:
                if decoder.eof:  # another file follows, as in two that were put together
                    decoder = zlib.decompressobj(bits)
                yield decoder.decompress(left, _CHUNK)
                left = decoder.unused_data or decoder.unconsumed_tail
        if not decoder.eof:
            raise zlib.error("it ends too early")

    return decode


async def _zstd(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    decoder = decompressor.decompressobj(write_size=_CHUNK)
    async for part in stream:
        for begin in range(0, len(part), 1 << 10):  # so that a small part does not become gigabytes at once
            left = part[begin : begin + (1 << 10)]
            while left:
                if decoder.eof:  # another file follows, as in two that were put together
                    decoder = decompressor.decompressobj(write_size=_CHUNK)
                yield decoder.decompress(left)
                left = decoder.unused_data
    if not decoder.eof:
        raise zstandard.ZstdError("it ends too early")


_DECODERS: Mapping[str, Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]] = {
    "identity": _plain,
    "gzip": _inflated(31),
    "deflate": _inflated(15),
    "zstd": _zstd,
}
