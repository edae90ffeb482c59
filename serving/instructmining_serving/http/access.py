"""Who may call the service: a bearer token, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from instructmining.errors import InstructMiningError

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})  # for probes


class UnauthorizedError(InstructMiningError):
    """A request has no token, or another one."""


class BearerToken:
    """ASGI middleware that refuses requests without the token; probes need none."""

    def __init__(self, app: App, token: str | None, refused: Callable[[Scope, UnauthorizedError], App]) -> None:
        """Wrap an application.

        Args:
            app: what answers.
            token: None lets everybody in.
            refused: returns what answers a request that is refused.
        """
        self._app = app
        self._token = None if token is None else token.encode()
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answers = self._app
        if self._token is not None and scope["type"] == "http" and scope["path"] not in OPEN:
            try:
                _check(scope, self._token)
            except UnauthorizedError as error:
                answers = self._refused(scope, error)
        await answers(scope, receive, send)


def _check(scope: Scope, wanted: bytes) -> None:
    """Check the token of a request.

    Raises:
        UnauthorizedError: it is not the right one.
    """
    given = [value.partition(b" ") for name, value in scope["headers"] if name == b"authorization"]
    tokens = [token.strip() for scheme, _, token in given if scheme.lower() == b"bearer" and token.strip()]
    if not tokens:
        raise UnauthorizedError("no token was sent; wanted Authorization: Bearer TOKEN")
    if len(given) != 1 or not hmac.compare_digest(tokens[0], wanted):
        raise UnauthorizedError("the token is not the right one")
