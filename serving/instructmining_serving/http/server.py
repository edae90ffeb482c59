"""The server: uvicorn, which leaves signals to its caller, and tells the service when it begins to shut down."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn

from instructmining_serving.service import ScoringService


class Server(uvicorn.Server):
    """Serves an application of a service; :meth:`ask_to_end` ends it."""

    def __init__(self, config: uvicorn.Config, service: ScoringService) -> None:
        """Prepare; :meth:`run` serves."""
        super().__init__(config)
        self._service = service

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle no signal: uvicorn's own way drops requests at the second one, with tracebacks."""
        yield

    def ask_to_end(self) -> None:
        """Take no more connections, answer the requests at work, and return from :meth:`serve`."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests and streams end, and close."""
        self._service.begin_closing()
        await super().shutdown(sockets)
