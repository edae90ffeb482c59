"""Calls a service from Python: typed, with retries; no model is loaded here."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx2

from instructmining.errors import InstructMiningError

_RETRIED = frozenset({429, 502, 503, 504})
_FIRST_S, _LONGEST_S = 0.25, 30.0  # between two tries
_PIECE_ROWS, _PIECE_BYTES, _PIECES = 64, 256 << 10, 2  # of rows sent as lines; the last: pieces at a time


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
        headers = {} if token is None else {b"authorization": f"Bearer {token}".encode()}
        self._of_json = {**headers, b"content-type": b"application/json"}
        self._of_lines = {**headers, b"content-type": b"application/x-ndjson"}
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
    return [_result(one) for one in content["results"]]


def _result(said: Mapping[str, Any]) -> Result:
    return Result(said["columns"], said["score_notes"], tuple(said["truncated"]))


class _Piece:
    """Some of many rows, sent as lines; what an answer leaves out is sent again."""

    def __init__(self, first: int) -> None:
        """Take the number of its first row among all."""
        self.found: list[Result | BadRow] = []
        self._first = first
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, row: Mapping[str, object]) -> bool:
        """Add a row; return whether the piece is large enough."""
        self._lines.append(json.dumps(row).encode() + b"\n")
        self._bytes += len(self._lines[-1])
        return len(self._lines) >= _PIECE_ROWS or self._bytes >= _PIECE_BYTES

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lines)

    def content(self) -> bytes:
        """Return the lines that have no answer."""
        return b"".join(self._lines[len(self.found) :])

    def take(self, answer: httpx2.Response) -> ServiceError | None:
        """Take the answers to lines; return why some lines have none, if so.

        Raises:
            ServiceError: the service refused all.
        """
        if not answer.is_success:
            _content(answer)
        why, kind = "the answer ends too early", "no_answer"
        for line in answer.content.splitlines():
            said = json.loads(line)
            error = said.get("error")
            if error is None:
                self.found.append(_result(said))
            elif "line" in said:
                self.found.append(BadRow(self._first + len(self.found), error["message"], error["type"]))
            else:
                why, kind = error["message"], error["type"]
        if len(self.found) == len(self._lines):
            return None
        return ServiceError(f"{answer.url}: {why}", answer.status_code, kind)


def _pieces(rows: Iterable[Mapping[str, object]]) -> Iterator[_Piece]:
    """Yield rows in pieces that are sent whole before their answers are read, as HTTP clients do."""
    piece = _Piece(0)
    first = 0
    for row in rows:
        if piece.add(row):
            yield piece
            first += len(piece)
            piece = _Piece(first)
    if len(piece):
        yield piece


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

    def score_lines(self, rows: Iterable[Mapping[str, object]]) -> Iterator[Result | BadRow]:
        """Yield the columns of rows of any accepted shape, in order; a bad row is a :class:`BadRow`.

        Rows are sent in pieces, two at a time, and read as they are sent: any number of them takes little memory.

        Raises:
            ServiceError: the service refused a piece, or does not answer.
        """
        waiting: deque[Future[list[Result | BadRow]]] = deque()
        with ThreadPoolExecutor(_PIECES) as threads:
            for piece in _pieces(rows):
                waiting.append(threads.submit(self._answered, piece))
                if len(waiting) == _PIECES:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _answered(self, piece: _Piece) -> list[Result | BadRow]:
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
        return list(self._call("POST", "/v1/select", _body(rows, amounts))["selected"])

    def health(self) -> dict[str, Any]:
        """Return what runs there.

        Raises:
            ServiceError: the service is not ready, or does not answer.
        """
        return self._call("GET", "/health", None)

    def _call(self, method: str, path: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        return _content(self._ask(method, path, content=content, headers=self._of_json))

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

    async def score_lines(self, rows: Iterable[Mapping[str, object]]) -> AsyncIterator[Result | BadRow]:
        """Yield the columns of rows of any accepted shape, in order; a bad row is a :class:`BadRow`.

        Rows are sent in pieces, two at a time, and read as they are sent: any number of them takes little memory.

        Raises:
            ServiceError: the service refused a piece, or does not answer.
        """
        waiting: deque[asyncio.Task[list[Result | BadRow]]] = deque()
        try:
            for piece in _pieces(rows):
                waiting.append(asyncio.create_task(self._answered(piece)))
                if len(waiting) == _PIECES:
                    for found in await waiting.popleft():
                        yield found
            while waiting:
                for found in await waiting.popleft():
                    yield found
        finally:
            for task in waiting:
                task.cancel()

    async def _answered(self, piece: _Piece) -> list[Result | BadRow]:
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
        return list((await self._call("POST", "/v1/select", _body(rows, amounts)))["selected"])

    async def health(self) -> dict[str, Any]:
        """Return what runs there.

        Raises:
            ServiceError: the service is not ready, or does not answer.
        """
        return await self._call("GET", "/health", None)

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        return _content(await self._ask(method, path, content=content, headers=self._of_json))

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
