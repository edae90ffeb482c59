"""The span of each request that scores; probes and metrics have none."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from instructmining_serving.http.access import App, Receive, Scope, Send
from instructmining_serving.traces import request_span

_GONE = 499  # the client went away before an answer


class TracedRequests:
    """ASGI middleware that makes a span of each POST."""

    def __init__(self, app: App) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        status = _GONE

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with request_span("score", headers) as end:
            try:
                await self._app(scope, receive, noting)
            finally:
                route = getattr(scope.get("route"), "path", "other")  # never the path that was asked for
                end({"http.request.method": "POST", "http.route": route}, status)
