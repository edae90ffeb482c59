"""Scores lines while they come, and answers each with a line, in order."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from instructmining.errors import DeviceMemoryError, InstructMiningError
from instructmining.types import ScoredRow
from instructmining_serving.http.access import Receive, Scope, Send
from instructmining_serving.http.answers import ClientGoneError, NotReadyError, counted
from instructmining_serving.http.bodies import BodyError, BodyLimits, decoded, json_value
from instructmining_serving.http.lines import Line, lines_of
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.rows import RowsRefusedError, result_of
from instructmining_serving.scheduling.room import Room
from instructmining_serving.service import ScoringService, TooLargeError

LINES = "application/x-ndjson"
_NAMES = frozenset({LINES, "application/ndjson", "application/jsonl"})
_IN_HAND = 512 << 10  # bytes of the lines of a stream that are read and not yet answered
_OF_LINE = 1 << 10  # bytes that a line counts as beside its own
_LAST_S = 1.0  # for a client to see that the stream ends before it sent all


def has_lines(request: Request) -> bool:
    """Return whether the body of a request is lines of JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() in _NAMES


@dataclass(frozen=True, slots=True)
class _Group:
    """Lines that are scored together, and what they count as in hand."""

    answer: asyncio.Task[tuple[bytes, Exception | None]]
    weight: int


class _NotReadingError(Exception):
    """What is sent does not go out."""


class LineStream(Response):
    """Answers the lines of a body, in order, while they come.

    Nothing more is received while as much as may be is in hand: the client is not reading, or the queue is full.
    """

    def __init__(
        self, request: Request, service: ScoringService, metrics: Metrics, bodies: BodyLimits, seconds: float
    ) -> None:
        """Prepare; nothing is received yet.

        Args:
            request: whose body is lines.
            service: that scores.
            metrics: of the service.
            bodies: limits; of bytes, for each line.
            seconds: for the next bytes to come, for a line to be computed, and for the client to read.

        Raises:
            NotReadyError: the service takes no requests now.
            NotServedError: it computes no column.
            BodyError: the encoding of the body is not known.
        """
        super().__init__(media_type=LINES)
        if (reason := service.not_ready) is not None:
            raise NotReadyError(f"not ready: {reason}")
        service.check_columns()
        self._request = request
        self._service = service
        self._metrics = metrics
        self._lines = lines_of(decoded(Request(request.scope, self._receive)), bodies.max_bytes)
        self._max_bytes = bodies.max_bytes
        self._seconds = seconds
        self._in_hand = Room(_IN_HAND)
        self._groups: asyncio.Queue[_Group | None] = asyncio.Queue()  # in order; None after the last
        self._ended_by: Exception | None = None  # why the last line is not the last of the body
        self._started = False
        self._received = asyncio.Event()  # all of the body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the lines."""
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(tasks))
                await self._write(scope, receive, send)
                reading.cancel()
                while not self._groups.empty():
                    if (group := self._groups.get_nowait()) is not None:
                        group.answer.cancel()
        except* ClientDisconnect:
            counted(ClientGoneError("the client went away"), self._metrics)
        except* _NotReadingError:
            counted(BodyError(408, "the client did not read"), self._metrics)

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        """Read lines and begin to score them; then wait for the client to go away.

        Raises:
            ClientDisconnect: it went away.
        """
        closing = tasks.create_task(self._service.closing.wait())
        try:
            while (lines := await self._next_lines(closing)) is not None:
                weight = sum(_OF_LINE + len(line.content or b"") for line in lines)
                await self._in_hand.take(weight)
                self._groups.put_nowait(_Group(tasks.create_task(self._answered(lines)), weight))
        except (BodyError, NotReadyError) as error:
            self._ended_by = error
        finally:
            closing.cancel()
        self._groups.put_nowait(None)
        while (await self._receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnect

    async def _receive(self) -> MutableMapping[str, Any]:
        message = await self._request.receive()
        if not message.get("more_body"):
            self._received.set()
        return message

    async def _next_lines(self, closing: asyncio.Task[Any]) -> list[Line] | None:
        """Return the next lines; None after the last.

        Raises:
            NotReadyError: the service is shutting down.
            BodyError: nothing came in time, or it is damaged.
            ClientDisconnect: the client went away.
        """
        if not closing.done():
            coming = asyncio.ensure_future(anext(self._lines, None))
            try:
                await asyncio.wait({coming, closing}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    return coming.result()
            finally:
                coming.cancel()
        if closing.done():
            raise NotReadyError("the service is shutting down; lines without an answer can be sent again")
        raise BodyError(408, f"nothing came within {self._seconds:g} seconds")

    async def _answered(self, lines: Sequence[Line]) -> tuple[bytes, Exception | None]:
        """Return the answers to some lines, and why there can be no more after them, if so."""
        rows: dict[int, object] = {}
        answers: dict[int, object] = {}
        for line in lines:
            try:
                rows[line.number] = self._row(line)
            except (BodyError, TooLargeError) as error:
                answers[line.number] = self._problem(error, line.number)
        try:
            if (reason := self._service.scheduler.fault) is not None:
                raise NotReadyError(f"not ready: {reason}; lines without an answer can be sent again")
            scored = await self._service.score_each(list(rows.values()), self._seconds) if rows else []
        except (TimeoutError, DeviceMemoryError) as error:
            answers |= {number: self._problem(error, number) for number in rows}
        except InstructMiningError as error:
            return b"", error
        else:
            answers |= {number: self._result(number, found) for number, found in zip(rows, scored, strict=True)}
        return b"".join(orjson.dumps(answers[line.number]) + b"\n" for line in lines), None

    def _row(self, line: Line) -> object:
        """Return the row of a line, any value of JSON.

        Raises:
            TooLargeError: it is longer than a line may be.
            BodyError: it is not JSON.
        """
        if line.content is None:
            raise TooLargeError(f"the line has more than {self._max_bytes:,} bytes")
        return json_value(line.content, "the line")

    def _result(self, number: int, found: ScoredRow | str) -> object:
        if isinstance(found, str):
            problem: dict[str, Any] = self._problem(RowsRefusedError([(0, found)]), number)
            return {"error": {"message": found, "type": problem["error"]["type"]}, "line": number}
        return result_of(found)

    def _problem(self, error: Exception, number: int) -> dict[str, Any]:
        return {**orjson.loads(counted(error, self._metrics).body), "line": number}

    async def _write(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answers in order, and last why the stream ends before its body does, if so.

        Raises:
            _NotReadingError: the client does not read.
        """
        end: Exception | None = None
        while end is None and (group := await self._groups.get()) is not None:
            content, end = await group.answer
            if content:
                await self._send(send, content)
            self._in_hand.give(group.weight)
        end = end or self._ended_by
        if end is None:
            await self._send(send, b"", more=False)
            return
        problem = counted(end, self._metrics)
        if not self._started:
            await problem(scope, receive, send)
            return
        await self._send(send, bytes(problem.body) + b"\n")
        with suppress(TimeoutError):  # a connection that is closed while the client sends may lose what was sent to it
            await asyncio.wait_for(self._received.wait(), _LAST_S)
        await self._send(send, b"", more=False)

    async def _send(self, send: Send, content: bytes, *, more: bool = True) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                if not self._started:
                    self._started = True
                    headers = [(b"content-type", LINES.encode())]
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": content, "more_body": more})
        except TimeoutError as error:
            raise _NotReadingError from error
