"""Calls a service from Python: typed, with retries; no model is loaded here."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import httpx2

from instructmining_serving.client_calls import (
    PIECES,
    BadRow,
    Calls,
    Piece,
    Result,
    Retries,
    Rows,
    ServiceError,
    body_of,
    content_of,
    pieces,
    pieces_as_they_come,
    results_of,
)

__all__ = ["AsyncClient", "BadRow", "Client", "Result", "Retries", "ServiceError"]


class Client(Calls):
    """Calls a service; a context manager, safe to share between threads.

    Example:
        >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
        ...     client.score([{"instruction": "Name a colour.", "output": "Green."}])[0].columns["perplexity"]
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 120.0,
        retries: Retries | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: of the service.
            token: its bearer token.
            timeout: seconds for each try.
            retries: how often a request is tried where the service is overloaded, not ready, or does not answer.
            http: sends the requests; by default a client of its own.
        """
        super().__init__(token, retries or Retries())
        self._http = http or httpx2.Client(base_url=url, timeout=timeout)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def score(self, rows: Sequence[Mapping[str, object]]) -> list[Result]:
        """Return the columns of rows of any accepted shape, in order.

        Raises:
            ServiceError: the service refused them, or does not answer.
        """
        return results_of(self._call("POST", "/v1/score", body_of(rows, {})))

    def score_lines(self, rows: Iterable[Mapping[str, object]]) -> Iterator[Result | BadRow]:
        """Yield the columns of rows of any accepted shape, in order; a bad row is a :class:`BadRow`.

        Rows are sent in pieces, two at a time, and read as they are sent: any number of them takes little memory.

        Raises:
            ServiceError: the service refused a piece, or does not answer.
        """
        waiting: deque[Future[list[Result | BadRow]]] = deque()
        with ThreadPoolExecutor(PIECES) as threads:
            for piece in pieces(rows):
                waiting.append(threads.submit(self._answered, piece))
                if len(waiting) == PIECES:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _answered(self, piece: Piece) -> list[Result | BadRow]:
        number = 0
        while True:
            answer = self._ask("POST", "/v1/score", content=piece.content(), headers=self._of_lines)
            if (error := piece.take(answer)) is None:
                return piece.found
            if (seconds := self._waits(number, None)) is None:
                raise error
            time.sleep(seconds)
            number += 1

    def select(
        self,
        rows: Sequence[Mapping[str, object]],
        *,
        top: int | None = None,
        fraction: float | None = None,
        max_loss: float | None = None,
    ) -> list[int]:
        """Return the places of the rows with the least predicted loss, best first; give one of the amounts.

        Raises:
            ServiceError: the service refused them, or does not answer.
        """
        amounts = {"top": top, "fraction": fraction, "max_loss": max_loss}
        return list(self._call("POST", "/v1/select", body_of(rows, amounts))["selected"])

    def health(self) -> dict[str, Any]:
        """Return what runs there.

        Raises:
            ServiceError: the service is not ready, or does not answer.
        """
        return self._call("GET", "/health", None)

    def _call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        return content_of(self._ask(method, path, content=body, headers=self._of_json))

    def _ask(self, method: str, path: str, *, content: bytes | None, headers: Mapping[bytes, bytes]) -> httpx2.Response:
        number = 0
        while True:
            answer: httpx2.Response | None = None
            try:
                answer = self._http.request(method, path, content=content, headers=headers)
            except httpx2.TransportError as error:
                if (seconds := self._waits(number, None)) is None:
                    raise ServiceError(f"{self._http.base_url}: {type(error).__name__}: {error}") from error
            else:
                if (seconds := self._waits(number, answer)) is None:
                    return answer
            time.sleep(seconds)
            number += 1


class AsyncClient(Calls):
    """Calls a service from an event loop; an async context manager."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 120.0,
        retries: Retries | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        """Prepare; nothing is sent yet. The arguments are those of :class:`Client`."""
        super().__init__(token, retries or Retries())
        self._http = http or httpx2.AsyncClient(base_url=url, timeout=timeout)

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def score(self, rows: Sequence[Mapping[str, object]]) -> list[Result]:
        """Return the columns of rows of any accepted shape, in order.

        Raises:
            ServiceError: the service refused them, or does not answer.
        """
        return results_of(await self._call("POST", "/v1/score", body_of(rows, {})))

    async def score_lines(self, rows: Rows) -> AsyncIterator[Result | BadRow]:
        """Yield the columns of rows of any accepted shape, in order; a bad row is a :class:`BadRow`.

        Rows are sent in pieces, two at a time, and read as they are sent: any number of them takes little memory.

        Args:
            rows: an iterable, or an asynchronous one.

        Raises:
            ServiceError: the service refused a piece, or does not answer.
        """
        waiting: deque[asyncio.Task[list[Result | BadRow]]] = deque()
        try:
            async for piece in pieces_as_they_come(rows):
                waiting.append(asyncio.create_task(self._answered(piece)))
                if len(waiting) == PIECES:
                    for found in await waiting.popleft():
                        yield found
            while waiting:
                for found in await waiting.popleft():
                    yield found
        finally:
            for task in waiting:
                task.cancel()

    async def _answered(self, piece: Piece) -> list[Result | BadRow]:
        number = 0
        while True:
            answer = await self._ask("POST", "/v1/score", content=piece.content(), headers=self._of_lines)
            if (error := piece.take(answer)) is None:
                return piece.found
            if (seconds := self._waits(number, None)) is None:
                raise error
            await asyncio.sleep(seconds)
            number += 1

    async def select(
        self,
        rows: Sequence[Mapping[str, object]],
        *,
        top: int | None = None,
        fraction: float | None = None,
        max_loss: float | None = None,
    ) -> list[int]:
        """Return the places of the rows with the least predicted loss, best first; give one of the amounts.

        Raises:
            ServiceError: the service refused them, or does not answer.
        """
        amounts = {"top": top, "fraction": fraction, "max_loss": max_loss}
        return list((await self._call("POST", "/v1/select", body_of(rows, amounts)))["selected"])

    async def health(self) -> dict[str, Any]:
        """Return what runs there.

        Raises:
            ServiceError: the service is not ready, or does not answer.
        """
        return await self._call("GET", "/health", None)

    async def _call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        return content_of(await self._ask(method, path, content=body, headers=self._of_json))

    async def _ask(
        self, method: str, path: str, *, content: bytes | None, headers: Mapping[bytes, bytes]
    ) -> httpx2.Response:
        number = 0
        while True:
            answer: httpx2.Response | None = None
            try:
                answer = await self._http.request(method, path, content=content, headers=headers)
            except httpx2.TransportError as error:
                if (seconds := self._waits(number, None)) is None:
                    raise ServiceError(f"{self._http.base_url}: {type(error).__name__}: {error}") from error
            else:
                if (seconds := self._waits(number, answer)) is None:
                    return answer
            await asyncio.sleep(seconds)
            number += 1
