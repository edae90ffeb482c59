"""A connection whose client must neither send the head of a request, nor read its answer, for ever."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_LEAST_READ = 1 << 16  # bytes of an answer that a client must read in the time; what waits is else dropped


class TimedConnection(H11Protocol):
    """uvicorn's connection with two more time-outs; its own is for connections that are not used."""

    head_s: ClassVar[float] = 30.0  # from connecting, or from its first byte, to the end of a request's head
    stall_s: ClassVar[float] = 30.0  # in which some of an answer must be read

    _head: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Wait for the first head."""
        super().connection_made(transport)
        self._head = self.loop.call_later(self.head_s, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Read what came; a head that has begun must end in time."""
        super().data_received(data)
        waits = self.conn.their_state is h11.IDLE
        if waits and self._head is None:
            self._head = self.loop.call_later(self.head_s, self.transport.abort)
        elif not waits and self._head is not None:
            self._head.cancel()
            self._head = None

    def pause_writing(self) -> None:
        """Watch that the client reads on."""
        super().pause_writing()
        if self._stall is None:
            self._watch()

    def resume_writing(self) -> None:
        """Watch no more."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is not used; what its client did not read by then is dropped a little later."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self.stall_s, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch no more."""
        super().connection_lost(exc)
        for timer in (self._head, self._stall):
            if timer is not None:
                timer.cancel()

    def _watch(self) -> None:
        waiting = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() > waiting - _LEAST_READ:
                self.transport.abort()
            else:
                self._watch()

        self._stall = self.loop.call_later(self.stall_s, look)
