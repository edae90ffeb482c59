"""Calls a service from Python: typed, with retries; no model is loaded here."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx2

from instructmining.errors import InstructMiningError

_RETRIED = frozenset({429, 502, 503, 504})
_FIRST_S, _LONGEST_S = 0.25, 30.0  # between two tries


class ServiceError(InstructMiningError):
    """A service refused a request, or does not answer.

    Attributes:
        status: of the answer; None where none came.
        kind: what is wrong, such as "invalid_rows" or "overloaded".
        rows: number of each bad row, from 0, and why it is bad.
    """

    def __init__(
        self, message: str, status: int | None = None, kind: str = "no_answer", rows: Mapping[int, str] | None = None
    ) -> None:
        """Take what the answer said."""
        super().__init__(message)
        self.status, self.kind, self.rows = status, kind, dict(rows or {})


@dataclass(frozen=True, slots=True)
class Result:
    """The columns of a row."""

    columns: Mapping[str, float | int | None]  # None where undefined, with the reason in notes
    notes: Mapping[str, str]
    truncated: tuple[str, ...]  # roles whose text was truncated


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row of many that cannot be scored."""

    row: int  # its number, from 0
    reason: str
    kind: str  # what is wrong, such as "invalid_rows"


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is tried, with twice the time between tries each time, or what the service asks for."""

    tries: int = 5


class _Calls:
    """What both clients share: requests, and what their answers mean."""

    def __init__(self, token: str | None, retries: Retries) -> None:
        self._headers = {} if token is None else {b"authorization": f"Bearer {token}".encode()}
        self._retries = retries

    def _waits(self, number: int, answer: httpx2.Response | None) -> float | None:
        """Return the seconds to wait before the next try; None where there is none."""
        if number + 1 >= self._retries.tries or (answer is not None and answer.status_code not in _RETRIED):
            return None
        asked = str(answer.headers.get("retry-after", "")) if answer is not None else ""
        if asked.isdecimal():
            return min(float(asked), _LONGEST_S)
        return min(_FIRST_S * (1 << number), _LONGEST_S) * random.uniform(0.5, 1)


def _content(answer: httpx2.Response) -> dict[str, Any]:
    """Return the answer's object.

    Raises:
        ServiceError: the service refused the request.
    """
    try:
        found = answer.json()
    except ValueError as error:
        raise ServiceError(f"{answer.url}: {answer.status_code}, not JSON", answer.status_code) from error
    if answer.is_success:
        return dict(found)
    said = found.get("error", {}) if isinstance(found, dict) else {}
    rows = {row["row"]: row["reason"] for row in said.get("rows", [])}
    message = said.get("message", answer.reason_phrase)
    raise ServiceError(f"{answer.url}: {answer.status_code}, {message}", answer.status_code, said.get("type", ""), rows)


def _results(content: Mapping[str, Any]) -> list[Result]:
    return [Result(one["columns"], one["score_notes"], tuple(one["truncated"])) for one in content["results"]]


def _body(rows: Sequence[Mapping[str, object]], amounts: Mapping[str, float | None]) -> dict[str, object]:
    return {"examples": list(rows), **{name: value for name, value in amounts.items() if value is not None}}


class Client(_Calls):
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
        return _results(self._call("POST", "/v1/score", _body(rows, {})))

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
        return list(self._call("POST", "/v1/select", _body(rows, amounts))["selected"])

    def health(self) -> dict[str, Any]:
        """Return what runs there.

        Raises:
            ServiceError: the service is not ready, or does not answer.
        """
        return self._call("GET", "/health", None)

    def _call(self, method: str, path: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        number = 0
        while True:
            answer: httpx2.Response | None = None
            try:
                answer = self._http.request(method, path, json=body, headers=self._headers)
            except httpx2.TransportError as error:
                if (seconds := self._waits(number, None)) is None:
                    raise ServiceError(f"{self._http.base_url}: {type(error).__name__}: {error}") from error
            else:
                if (seconds := self._waits(number, answer)) is None:
                    return _content(answer)
            time.sleep(seconds)
            number += 1


class AsyncClient(_Calls):
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
        return _results(await self._call("POST", "/v1/score", _body(rows, {})))

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
        return list((await self._call("POST", "/v1/select", _body(rows, amounts)))["selected"])

    async def health(self) -> dict[str, Any]:
        """Return what runs there.

        Raises:
            ServiceError: the service is not ready, or does not answer.
        """
        return await self._call("GET", "/health", None)

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        number = 0
        while True:
            answer: httpx2.Response | None = None
            try:
                answer = await self._http.request(method, path, json=body, headers=self._headers)
            except httpx2.TransportError as error:
                if (seconds := self._waits(number, None)) is None:
                    raise ServiceError(f"{self._http.base_url}: {type(error).__name__}: {error}") from error
            else:
                if (seconds := self._waits(number, answer)) is None:
                    return _content(answer)
            await asyncio.sleep(seconds)
            number += 1
