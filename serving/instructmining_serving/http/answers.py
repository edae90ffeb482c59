"""Answers: results as JSON, and every error as one JSON object with its status."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from instructmining.errors import InstructMiningError
from instructmining_serving.http.access import UnauthorizedError
from instructmining_serving.http.bodies import BodyError
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.rows import RowsRefusedError
from instructmining_serving.scheduling.errors import ClosingError, OverloadedError
from instructmining_serving.service import NotServedError, ScoringService, TooLargeError

_Result = TypeVar("_Result")


class NotReadyError(InstructMiningError):
    """The service is warming up, or a device fails."""


class ClientGoneError(InstructMiningError):
    """Nobody waits for the answer."""


def answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(content), status, dict(headers or {}), media_type="application/json")


def problem(status: int, kind: str, message: str, **more: object) -> Response:
    """Return an error as JSON."""
    headers = {"Retry-After": str(more.pop("retry_after"))} if "retry_after" in more else {}
    return answer({"error": {"message": message, "type": kind, **more}}, status, headers)


def answer_of(error: Exception) -> Response:
    """Return the answer that an error becomes; no text of a row is in it, but what is wrong with each."""
    more: dict[str, object] = {}
    status, kind = next((said for known, said in _ANSWERS.items() if isinstance(error, known)), (500, "internal"))
    message = str(error) if status != 500 else "an error that was not foreseen; the service's log has it"
    match error:
        case BodyError():
            status, kind = error.status, _BODY_KINDS.get(error.status, "bad_request")
        case HTTPException():
            status, message = error.status_code, str(error.detail)
            kind, message = _OF_ROUTER.get(status, (kind, message))
        case RowsRefusedError():
            more["rows"] = [{"row": row, "reason": reason} for row, reason in error.reasons]
        case OverloadedError():
            more["retry_after"] = max(1, math.ceil(error.retry_after_s))
        case TimeoutError():
            message = "the request took too long"
    if status == 503:
        more["retry_after"] = _RETRY_S
    found = problem(status, kind, message, **more)
    if isinstance(error, HTTPException):
        found.headers.update(error.headers or {})  # the methods that are allowed
    if isinstance(error, UnauthorizedError):
        found.headers["WWW-Authenticate"] = "Bearer"
    return found


_RETRY_S = 5
# The first that fits, in order.
_ANSWERS: Mapping[type[Exception], tuple[int, str]] = {
    BodyError: (400, "bad_request"),
    HTTPException: (400, "bad_request"),
    UnauthorizedError: (401, "unauthorized"),
    RowsRefusedError: (422, "invalid_rows"),
    TooLargeError: (413, "too_large"),
    OverloadedError: (429, "overloaded"),
    NotReadyError: (503, "not_ready"),
    ClosingError: (503, "not_ready"),
    NotServedError: (404, "not_served"),
    ClientGoneError: (499, "cancelled"),  # which nobody reads; it is counted
    TimeoutError: (504, "timeout"),
    InstructMiningError: (503, "model_fault"),
}
# What only the router finds.
_OF_ROUTER = {
    404: ("not_found", "there is no such route; /docs has all"),
    405: ("method_not_allowed", "the route has no such method; the header Allow names those that it has"),
}
_BODY_KINDS = {413: "too_large", 408: "timeout", 415: "unsupported", 422: "invalid"}


async def within(
    request: Request, service: ScoringService, task: Callable[[], Awaitable[_Result]], seconds: float
) -> _Result:
    """Do a request's work while its client waits: it is cancelled when the client goes away or the time is over.

    Raises:
        NotReadyError: the service takes no requests now.
        TimeoutError: the time is over.
        ClientGoneError: nobody waits for the answer.
    """
    if (reason := service.not_ready) is not None:
        raise NotReadyError(f"not ready: {reason}")
    working = asyncio.ensure_future(task())
    leaving = asyncio.ensure_future(_left(request))
    try:
        async with asyncio.timeout(seconds):
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError("the client went away")
        return await working
    finally:
        leaving.cancel()
        working.cancel()


async def _left(request: Request) -> None:
    """Return when the client goes away; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def counted(error: Exception, metrics: Metrics) -> Response:
    """Count an error by its kind, and return its answer."""
    found = answer_of(error)
    said: Mapping[str, Any] = orjson.loads(found.body)
    metrics.errors.labels(said["error"]["type"]).inc()
    return found
