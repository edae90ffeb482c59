"""Bounds the memory that the bodies of all requests take together, until these are answered."""

from __future__ import annotations

from instructmining_serving.http.access import App, Receive, Scope, Send
from instructmining_serving.scheduling.errors import OverloadedError
from instructmining_serving.service import TooLargeError

_KEY = "instructmining.held"  # in the scope of a request
_VALUE_BYTES = 64  # of a parsed value, beside its text


class HeldBodies:
    """ASGI middleware that accounts for the bodies of requests; :func:`hold` adds to a request's account."""

    def __init__(self, app: App, most_bytes: int) -> None:
        """Wrap an application.

        Args:
            app: what answers.
            most_bytes: that all bodies may take.
        """
        self._app = app
        self.most_bytes = most_bytes
        self.bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        account = scope[_KEY] = _Account(self)
        try:
            await self._app(scope, receive, send)
        finally:
            self.bytes -= account.bytes


class _Account:
    def __init__(self, all_of_them: HeldBodies) -> None:
        self._all = all_of_them
        self.bytes = 0

    def add(self, count: int) -> None:
        self.bytes += count
        self._all.bytes += count
        most = self._all.most_bytes
        if self.bytes > most:
            raise TooLargeError(f"the body would take more than {most:,} bytes of memory")
        if self._all.bytes > most:
            raise OverloadedError("the bodies of other requests take the memory that bodies may take", 1.0)


def hold(scope: Scope, part: bytes) -> None:
    """Account for a part of a request's body, and for the values that it becomes as JSON.

    Raises:
        TooLargeError: the body takes too much memory by itself.
        OverloadedError: all bodies do.
    """
    if (account := scope.get(_KEY)) is not None:
        account.add(len(part) + _VALUE_BYTES * sum(map(part.count, (b",", b"[", b"{"))))
