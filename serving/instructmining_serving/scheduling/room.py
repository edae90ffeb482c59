"""Room for so much at once, which is waited for in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """So much room, in one event loop; who asks first gets room first.

    What is larger than all the room takes all of it.
    """

    def __init__(self, size: int) -> None:
        """Take the size in any unit."""
        self._size = self._left = size
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def take(self, amount: int) -> None:
        """Wait for room, and take it."""
        wanted = min(amount, self._size)
        async with self._turn:
            while self._left < wanted:
                self._freed.clear()
                await self._freed.wait()
            self._left -= wanted

    def give(self, amount: int) -> None:
        """Give back what was taken."""
        self._left += min(amount, self._size)
        self._freed.set()

    @asynccontextmanager
    async def taken(self, amount: int) -> AsyncIterator[None]:
        """Wait for room, and have it inside."""
        await self.take(amount)
        try:
            yield
        finally:
            self.give(amount)
