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

from instructmining_serving.http.held import hold

_CHUNK = 1 << 20


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


async def read_body(request: Request, limits: BodyLimits) -> bytes:
    """Return the body of a request.

    Raises:
        BodyError: 413 where it is too large, 408 where it takes too long, 415 where its encoding is not known, 400
            where it is damaged or the client went away.
        TooLargeError: it takes too much memory.
        OverloadedError: the bodies of all requests do.
    """
    wanted = request.headers.get("content-encoding", "identity").strip().lower()
    if wanted not in _DECODERS:
        raise BodyError(415, f"the content encoding {wanted[:40]!r} is not known; wanted {', '.join(_DECODERS)}")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > limits.max_bytes:
        raise BodyError(413, f"the body has {length[:20]} bytes, more than {limits.max_bytes:,}")
    parts = []
    left = limits.max_bytes
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in _DECODERS[wanted](request.stream()):
                left -= len(part)
                if left < 0:
                    raise BodyError(413, f"the body has more than {limits.max_bytes:,} bytes")
                hold(request.scope, part)
                parts.append(part)
    except TimeoutError as error:
        raise BodyError(408, f"the body did not come within {limits.seconds:g} seconds") from error
    except ClientDisconnect as error:
        raise BodyError(400, "the client went away before its body was read") from error
    except (zlib.error, zstandard.ZstdError) as error:
        raise BodyError(400, f"the body is not {wanted}: {error}") from error
    return b"".join(parts)


async def read_json(request: Request, limits: BodyLimits) -> Mapping[str, Any]:
    """Return the body of a request, a JSON object.

    Raises:
        BodyError: as of :func:`read_body`; 400 where it is not JSON, 422 where it is not an object.
    """
    try:
        found = orjson.loads(await read_body(request, limits))
    except orjson.JSONDecodeError as error:
        raise BodyError(400, f"the body is not JSON: {error.msg} at character {error.pos}") from error
    if not isinstance(found, dict):
        raise BodyError(422, f"the body is {_kind(found)}, wanted an object")
    return found


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


async def _plain(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for part in stream:
        yield part


def _inflated(bits: int) -> Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]:
    async def decode(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        decoder = zlib.decompressobj(bits)
        async for part in stream:
            left = part
            while left:
                yield decoder.decompress(left, _CHUNK)
                left = decoder.unconsumed_tail
        if not decoder.eof:
            raise zlib.error("it ends too early")
        yield decoder.flush()

    return decode


async def _zstd(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj(write_size=_CHUNK)
    async for part in stream:
        for begin in range(0, len(part), 1 << 10):  # so that a small part does not become gigabytes at once
            yield decoder.decompress(part[begin : begin + (1 << 10)])
    if not decoder.eof:
        raise zstandard.ZstdError("it ends too early")


_DECODERS: Mapping[str, Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]] = {
    "identity": _plain,
    "gzip": _inflated(31),
    "deflate": _inflated(15),
    "zstd": _zstd,
}
