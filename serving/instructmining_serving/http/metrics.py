"""What the service measures of itself, in Prometheus' form."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from instructmining_serving.http.access import App, Receive, Scope, Send
from instructmining_serving.scheduling.scheduler import Computed
from instructmining_serving.service import Observer

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BATCH_TOKENS = tuple(1 << power for power in range(4, 16))


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        """Register them."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        name, own = "instructmining_", self.registry
        self.requests = Counter(f"{name}requests", "Requests answered.", ["route", "method", "code"], registry=own)
        self.duration = Histogram(
            f"{name}request_duration_seconds", "From the head of a request to the end of its answer.", ["route"],
            buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self.in_flight = Gauge(f"{name}requests_in_flight", "Requests being answered.", registry=own)
        self.rows = Counter(f"{name}rows", "Rows and texts computed, by any route.", registry=own)
        self.tokens = Counter(f"{name}tokens", "Tokens computed, without padding.", ["role"], registry=own)
        self.padding = Counter(f"{name}padding_tokens", "Padding computed.", ["role"], registry=own)
        self.queue_requests = Gauge(f"{name}queue_requests", "Requests that wait.", registry=own)
        self.queue_tokens = Gauge(f"{name}queue_tokens", "Tokens that wait.", registry=own)
        self.queue_wait = Histogram(
            f"{name}queue_wait_seconds",
            "From a request's admission to its first batch.",
            buckets=_SECONDS,
            registry=own,
        )
        self.batch_tokens = Histogram(
            f"{name}batch_tokens", "Tokens of a batch, with padding.", ["role"], buckets=_BATCH_TOKENS, registry=own
        )
        self.inference = Histogram(
            f"{name}inference_seconds", "Of a batch.", ["role", "device"], buckets=_SECONDS, registry=own
        )
        self.tokenization = Histogram(
            f"{name}tokenization_seconds",
            "Reading and tokenizing a request, or finishing it.",
            buckets=_SECONDS,
            registry=own,
        )
        self.errors = Counter(f"{name}errors", "Requests refused or failed.", ["kind"], registry=own)
        self.ready = Gauge(f"{name}ready", "1 where requests are taken.", registry=own)
        self.info = Gauge(
            f"{name}build_info", "What runs here; always 1.", ["version", "bundle", "rule", "device"], registry=own
        )

    def observer(self) -> Observer:
        """Return what a service tells its batches to."""
        return Observer(self._batch, self.tokenization.observe, self.rows.inc)

    def _batch(self, done: Computed) -> None:
        self.tokens.labels(done.roles).inc(done.tokens)
        self.padding.labels(done.roles).inc(done.padded - done.tokens)
        self.batch_tokens.labels(done.roles).observe(done.padded)
        self.inference.labels(done.roles, str(done.device)).observe(done.seconds)
        for seconds in done.waited:
            self.queue_wait.observe(seconds)

    def text(self) -> bytes:
        """Return all of them in Prometheus' text form."""
        return generate_latest(self.registry)


class MeasuredRequests:
    """ASGI middleware that counts requests and their seconds by route."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        """Wrap an application."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, code = time.perf_counter(), "499"  # the client went away before an answer

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = str(message["status"])
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "other")  # never the path that was asked for
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(route, method, code).inc()
            self._metrics.duration.labels(route).observe(time.perf_counter() - begin)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
