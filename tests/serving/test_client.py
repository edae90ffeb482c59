from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from served import listening

from instructmining_serving import client as client_module
from instructmining_serving.client import AsyncClient, BadRow, Client, Result, Retries, ServiceError

ROWS = [{"instruction": "Name a colour.", "output": "Green."}]
COLUMNS = {"perplexity": 2.5, "mtld": None}
SCORED = {
    "results": [{"columns": COLUMNS, "score_notes": {"mtld": "short"}, "truncated": ["reward"], "unread": ["response"]}]
}
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
                found = getattr(client, method)(*arguments, **options)
                return list(found) if method == "score_lines" else found

        async def run() -> object:
            http = httpx2.AsyncClient(transport=transport, base_url="http://service")
            async with AsyncClient("http://service", token="t", retries=Retries(tries), http=http) as client:
                found = getattr(client, method)(*arguments, **options)
                return [one async for one in found] if method == "score_lines" else await found

        return asyncio.run(run())

    of.waits = waits  # type: ignore[attr-defined]
    return of


def answer(status: int, content: object, **headers: str) -> httpx2.Response:
    return httpx2.Response(
        status, json=content, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


def test_rows_come_back_as_results(call: Callable[..., object]) -> None:
    service = Service(answer(200, SCORED))
    assert call(service, "score", ROWS) == [Result(COLUMNS, {"mtld": "short"}, ("reward",), ("response",))]
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


RESULT = {"columns": COLUMNS, "score_notes": {}, "truncated": [], "unread": []}
SCORED_ROW = Result(COLUMNS, {}, (), ())


def lines(*said: object) -> httpx2.Response:
    return httpx2.Response(200, text="".join(json.dumps(line) + "\n" for line in said))


def of_each(request: httpx2.Request) -> httpx2.Response:
    """Answer each line with a result that has its row in it."""
    assert request.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in request.content.splitlines()]
    assert len(rows) <= 64
    return lines(*({**RESULT, "columns": row} for row in rows))


def test_any_number_of_rows_is_sent_in_pieces_as_they_are_read(call: Callable[..., object]) -> None:
    read: list[int] = []

    def rows() -> Iterator[dict[str, object]]:
        for number in range(1000):
            read.append(number)
            yield {"number": number, "text": "a" * (200_000 if number == 500 else 1)}

    found = call(of_each, "score_lines", rows())
    assert [one.columns["number"] for one in found] == [*range(1000)]  # type: ignore[attr-defined]
    assert call(of_each, "score_lines", []) == []

    transport = httpx2.MockTransport(of_each)
    with Client("http://service", http=httpx2.Client(transport=transport, base_url="http://service")) as client:
        read.clear()
        next(iter(client.score_lines(rows())))
        assert len(read) == 128


def test_the_client_for_an_event_loop_takes_rows_as_they_come() -> None:
    async def rows() -> AsyncIterator[dict[str, object]]:
        for number in range(200):
            await asyncio.sleep(0)
            yield {"number": number}

    async def run() -> list[object]:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(of_each), base_url="http://service")
        async with AsyncClient("http://service", http=http) as client:
            return [one.columns["number"] async for one in client.score_lines(rows()) if isinstance(one, Result)]

    assert asyncio.run(run()) == [*range(200)]


def test_bad_lines_are_named_by_their_rows(call: Callable[..., object]) -> None:
    bad = {"error": {"message": "empty", "type": "invalid_rows"}, "line": 2}
    assert call(Service(lines(RESULT, bad, RESULT)), "score_lines", ROWS * 3) == [
        SCORED_ROW,
        BadRow(1, "empty", "invalid_rows"),
        SCORED_ROW,
    ]


def test_lines_without_an_answer_are_sent_again(call: Callable[..., object]) -> None:
    rows = [{"row": number} for number in range(3)]
    closing = {"error": {"message": "the service is shutting down", "type": "not_ready"}}
    service = Service(lines(RESULT, closing), answer(503, closing), lines(RESULT, RESULT))
    assert call(service, "score_lines", rows) == [SCORED_ROW] * 3
    sent = [[json.loads(line)["row"] for line in request.content.splitlines()] for request in service.asked]
    assert sent == [[0, 1, 2], [1, 2], [1, 2]]
    ended = Service(*(lines(closing) for _ in range(3)))
    with pytest.raises(ServiceError, match="the service is shutting down") as caught:
        call(ended, "score_lines", rows, tries=3)
    assert caught.value.kind == "not_ready"
    with pytest.raises(ServiceError, match="too large"):
        call(Service(answer(413, {"error": {"message": "too large", "type": "too_large"}})), "score_lines", rows)


def test_lines_of_a_real_service_are_scored(small_bundle: Path) -> None:
    given = [{"instruction": "Count.", "output": "One. " * (1 + number % 7)} for number in range(300)]
    given[70] = {"instruction": "Count.", "output": ""}

    async def scored(url: str) -> list[Result | BadRow]:
        async with AsyncClient(url) as client:
            return [found async for found in client.score_lines(iter(given))]

    with listening(small_bundle, indicators="mtld,reward") as served, Client(served.url) as client:
        found = list(client.score_lines(iter(given)))
        assert [place for place, one in enumerate(found) if isinstance(one, BadRow)] == [70]
        expected = client.score(given[:7])
        for one, other in zip(found[:7], expected, strict=True):
            assert isinstance(one, Result)
            assert one.columns == pytest.approx(other.columns, rel=1e-5)
        again = asyncio.run(scored(served.url))
    assert [type(one) for one in again] == [type(one) for one in found]
