"""Spans of requests for OpenTelemetry, where it is installed; no text of a user is in them, nor an error's message."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

try:
    from opentelemetry import propagate, trace
except ModuleNotFoundError:
    _INSTALLED = False
else:
    _INSTALLED = True
    _tracer = trace.get_tracer("instructmining")

Value: TypeAlias = str | int
_SERVER_ERROR = 500


@contextmanager
def request_span(name: str, headers: Mapping[str, str]) -> Iterator[Callable[[Mapping[str, Value], int], None]]:
    """Make the span of a request, a child of its client's; yields what takes attributes and the status of the answer.

    Args:
        name: of the span.
        headers: of the request, names in lower case.
    """
    if not _is_on():
        yield lambda _, __: None
        return
    with _tracer.start_as_current_span(
        name,
        context=propagate.extract(headers),
        kind=trace.SpanKind.SERVER,
        record_exception=False,
        set_status_on_exception=False,
    ) as made:

        def end(attributes: Mapping[str, Value], status: int) -> None:
            made.set_attributes({**attributes, "http.response.status_code": status})
            if status >= _SERVER_ERROR:
                made.set_status(trace.StatusCode.ERROR)

        yield end


@contextmanager
def span(name: str, **counts: int) -> Iterator[None]:
    """Make a span of a part of a request, with numbers as attributes."""
    if not _is_on():
        yield
        return
    with _tracer.start_as_current_span(
        name, attributes=_named(counts), record_exception=False, set_status_on_exception=False
    ):
        yield


def past_span(name: str, begin: float, end: float, **counts: int) -> None:
    """Make a span of a part of a request that is over.

    Args:
        name: of the span.
        begin: seconds, monotonic.
        end: likewise.
        counts: attributes.
    """
    if not _is_on():
        return
    offset = time.time_ns() - time.monotonic_ns()
    made = _tracer.start_span(name, start_time=offset + int(begin * 1e9), attributes=_named(counts))
    made.end(offset + int(end * 1e9))


def _is_on() -> bool:
    """Return whether somebody has set up OpenTelemetry: without that spans go nowhere, and cost time."""
    return _INSTALLED and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _named(counts: Mapping[str, int]) -> dict[str, int]:
    return {f"instructmining.{name}": value for name, value in counts.items()}
