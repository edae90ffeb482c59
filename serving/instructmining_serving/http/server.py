"""The server: uvicorn, which tells the service when it begins to shut down."""

from __future__ import annotations

import socket

import uvicorn

from instructmining_serving.service import ScoringService


class Server(uvicorn.Server):
    """Serves an application of a service."""

    def __init__(self, config: uvicorn.Config, service: ScoringService) -> None:
        """Prepare; :meth:`run` serves."""
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests and streams end, and close."""
        self._service.begin_closing()
        await super().shutdown(sockets)
