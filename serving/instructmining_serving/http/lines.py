"""Lines of a body as they come: bounded each, never held as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

_PART = 1 << 16  # bytes that are divided at once; then other requests have their turn
_MOST = 64  # lines of a group


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank."""

    number: int  # from 1, blank lines counted
    content: bytes | None  # None where it is longer than a line may be


async def lines_of(parts: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[list[Line]]:
    """Yield the lines of a text as they come, in groups of some dozens of kilobytes at most, or of one line.

    Args:
        parts: of the text, divided anywhere.
        max_bytes: of a line; of a longer one nothing is kept.
    """
    divided = _Divided(max_bytes)
    async for part in parts:
        for begin in range(0, len(part), _PART):
            for group in divided.groups(part[begin : begin + _PART]):
                yield group
            await asyncio.sleep(0)
    if last := divided.last():
        yield last


class _Divided:
    """Divides a text into lines."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._number = 1  # of the line that has begun
        self._begun: list[bytes] = []  # its parts
        self._bytes = 0  # so far, also where they are not kept

    def groups(self, part: bytes) -> Iterator[list[Line]]:
        """Yield the lines that end in a part."""
        if not self._bytes and not part.strip():  # a compressed body may have gigabytes of blank lines
            self._number += part.count(b"\n")
            return
        found: list[Line] = []
        *ended, begun = part.split(b"\n")
        for rest in ended:
            self._add(rest)
            found += self.last()
            self._number += 1
            if len(found) == _MOST:
                yield found
                found = []
        self._add(begun)
        if found:
            yield found

    def last(self) -> list[Line]:
        """Return the line that has begun, unless it is blank, and begin another."""
        content = b"".join(self._begun)
        too_long = self._bytes > self._max_bytes
        self._begun, self._bytes = [], 0
        if too_long:
            return [Line(self._number, None)]
        return [Line(self._number, content)] if content.strip() else []

    def _add(self, part: bytes) -> None:
        self._bytes += len(part)
        if self._bytes <= self._max_bytes:
            self._begun.append(part)
        else:
            self._begun = []
