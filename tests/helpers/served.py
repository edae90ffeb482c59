"""A service over HTTP without a network."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from instructmining_serving.http.app import HttpOptions, create_app
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.http.server import Server
from instructmining_serving.scheduling.errors import OverloadedError
from instructmining_serving.service import ScoringService, ServiceOptions


@dataclass(frozen=True)
class Listening:
    """A service that listens."""

    port: int
    service: ScoringService
    metrics: Metrics
    server: Server

    @property
    def url(self) -> str:
        """Return the address."""
        return f"http://127.0.0.1:{self.port}"


def client_of(bundle: Path, *, http: HttpOptions | None = None, **options: Any) -> Iterator[TestClient]:  # noqa: ANN401
    """Yield one client."""
    metrics = Metrics()
    with ScoringService.open(ServiceOptions(bundle, device="cpu", **options), metrics.observer()) as service:
        app = create_app(service, metrics, http or HttpOptions())
        with TestClient(app, raise_server_exceptions=False) as client:
            yield client


@contextmanager
def listening(
    bundle: Path,
    *,
    http: HttpOptions | None = None,
    buffers: int | None = None,
    **options: Any,  # noqa: ANN401
) -> Iterator[Listening]:
    """Serve on loopback, in a thread, until the end of the context.

    Args:
        bundle: that is served.
        http: as of the application.
        buffers: bytes that the system keeps of what a connection sends and receives.
        options: of the service.
    """
    metrics = Metrics()
    with ScoringService.open(ServiceOptions(bundle, device="cpu", **options), metrics.observer()) as service:
        app = create_app(service, metrics, http or HttpOptions())
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10)
        server = Server(config, service)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            if buffers is not None:
                for kind in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    listener.setsockopt(socket.SOL_SOCKET, kind, buffers)
            thread = Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                wait_until(lambda: server.started or not thread.is_alive())
                yield Listening(listener.getsockname()[1], service, metrics, server)
            finally:
                server.should_exit = True
                thread.join()


def wait_until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def posted(client: TestClient, route: str, **body: object) -> Any:  # noqa: ANN401
    """Return the answer to a request that is answered."""
    answer = client.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def overloaded(*_: object) -> None:
    """Stand for Scheduler.submit."""
    raise OverloadedError("too much waits", 2.3)


def sigmoid(values: list[float]) -> list[float]:
    """Return numbers from 0 to 1."""
    return [1 / (1 + math.exp(-value)) for value in values]
