"""A service over HTTP without a network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from instructmining_serving.http.app import HttpOptions, create_app
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.scheduling.scheduler import OverloadedError
from instructmining_serving.service import ScoringService, ServiceOptions


def client_of(bundle: Path, *, http: HttpOptions | None = None, **options: Any) -> Iterator[TestClient]:  # noqa: ANN401
    """Yield one client."""
    metrics = Metrics()
    with ScoringService.open(ServiceOptions(bundle, device="cpu", **options), metrics.observer()) as service:
        app = create_app(service, metrics, http or HttpOptions())
        with TestClient(app, raise_server_exceptions=False) as client:
            yield client


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
