from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx2
import pytest

from instructmining_serving import client as client_module
from instructmining_serving.client import AsyncClient, Client, Result, Retries, ServiceError

ROWS = [{"instruction": "Name a colour.", "output": "Green."}]
COLUMNS = {"perplexity": 2.5, "mtld": None}
SCORED = {"results": [{"columns": COLUMNS, "score_notes": {"mtld": "short"}, "truncated": ["reward"]}]}
Answers = Callable[[httpx2.Request], httpx2.Response]


class Service:
    """Gives one answer after the other, and keeps what was asked."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Calls a method of either client against a service; waits between tries are kept, not waited."""
    waits: list[float] = []

    async def waited(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(client_module.time, "sleep", waits.append)
    monkeypatch.setattr(client_module.asyncio, "sleep", waited)

    def of(service: Service, method: str, *arguments: object, tries: int = 5, **options: object) -> object:
        transport = httpx2.MockTransport(service)
        if request.param == "sync":
            http = httpx2.Client(transport=transport, base_url="http://service")
            with Client("http://service", token="t", retries=Retries(tries), http=http) as client:
                return getattr(client, method)(*arguments, **options)

        async def run() -> object:
            http = httpx2.AsyncClient(transport=transport, base_url="http://service")
            async with AsyncClient("http://service", token="t", retries=Retries(tries), http=http) as client:
                return await getattr(client, method)(*arguments, **options)

        return asyncio.run(run())

    of.waits = waits  # type: ignore[attr-defined]
    return of


def answer(status: int, content: object, **headers: str) -> httpx2.Response:
    return httpx2.Response(
        status, json=content, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


def test_rows_come_back_as_results(call: Callable[..., object]) -> None:
    service = Service(answer(200, SCORED))
    assert call(service, "score", ROWS) == [Result(COLUMNS, {"mtld": "short"}, ("reward",))]
    assert json.loads(service.asked[0].content) == {"examples": ROWS}
    assert service.asked[0].headers["authorization"] == "Bearer t"


def test_a_selection_sends_its_amount(call: Callable[..., object]) -> None:
    service = Service(answer(200, {"selected": [1, 0], "results": []}))
    assert call(service, "select", ROWS, fraction=0.5) == [1, 0]
    assert json.loads(service.asked[0].content) == {"examples": ROWS, "fraction": 0.5}


def test_an_overloaded_service_is_asked_again_when_it_says(call: Callable[..., object]) -> None:
    busy = answer(429, {"error": {"message": "busy", "type": "overloaded"}}, retry_after="7")
    service = Service(httpx2.ConnectError("refused"), busy, answer(200, {"status": "ready"}))
    assert call(service, "health") == {"status": "ready"}
    first, second = call.waits  # type: ignore[attr-defined]
    assert 0.1 < first < 0.3
    assert second == 7


def test_it_gives_up_after_some_tries(call: Callable[..., object]) -> None:
    service = Service(*(answer(503, {"error": {"message": "warming up", "type": "not_ready"}}) for _ in range(3)))
    with pytest.raises(ServiceError, match=r"503, warming up") as caught:
        call(service, "health", tries=3)
    assert (caught.value.status, caught.value.kind) == (503, "not_ready")
    gone = Service(*(httpx2.ConnectError("refused") for _ in range(2)))
    with pytest.raises(ServiceError, match=r"http://service: ConnectError: refused") as caught:
        call(gone, "health", tries=2)
    assert caught.value.status is None


def test_bad_rows_are_named_and_not_sent_again(call: Callable[..., object]) -> None:
    said = {"error": {"message": "row 1: empty", "type": "invalid_rows", "rows": [{"row": 1, "reason": "empty"}]}}
    service = Service(answer(422, said))
    with pytest.raises(ServiceError, match="row 1: empty") as caught:
        call(service, "score", ROWS)
    assert caught.value.rows == {1: "empty"}
    assert len(service.asked) == 1
    html = Service(httpx2.Response(200, text="<html>"))
    with pytest.raises(ServiceError, match="200, not JSON"):
        call(html, "health")
