"""Who may call the service: a bearer token, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

import orjson

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})  # for probes

_NOT_KSERVE = "/v2/rerank"  # which is vLLM's


def is_of_kserve(path: str) -> bool:
    """Return whether a route's clients speak KServe's protocol, whose errors are texts."""
    return path == "/v2" or (path.startswith("/v2/") and path != _NOT_KSERVE)


class BearerToken:
    """ASGI middleware that refuses requests without the token; probes need none."""

    def __init__(self, app: App, token: str | None) -> None:
        """Wrap an application.

        Args:
            app: what answers.
            token: None lets everybody in.
        """
        self._app = app
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._token is None or scope["type"] != "http" or scope["path"] in OPEN or self._is_right(scope):
            await self._app(scope, receive, send)
            return
        await send(
            {
                "type": "http.response.start",
                "status": 401,
                "headers": [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")],
            }
        )
        message = "a bearer token is needed, and this is not it"
        said = {"error": message if is_of_kserve(scope["path"]) else {"message": message, "type": "unauthorized"}}
        await send({"type": "http.response.body", "body": orjson.dumps(said)})

    def _is_right(self, scope: Mapping[str, Any]) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or self._token is None:
            return False
        scheme, _, token = given[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)
