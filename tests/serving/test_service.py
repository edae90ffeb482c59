from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from served import client_of, posted
from starlette.testclient import TestClient

from instructmining.errors import RuleError
from instructmining.inference.devices import Device
from instructmining.inference.executor import Done, Executor, Job
from instructmining.scorer.requests import RowRequests
from instructmining.scorer.scorer import Scorer
from instructmining.types import ScoredWindow
from instructmining_serving.http.app import HttpOptions, create_app
from instructmining_serving.http.connections import TimedConnection
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.scheduling.scheduler import Limits
from instructmining_serving.scheduling.work import Work
from instructmining_serving.service import ScoringService, ServiceOptions

ROW = {"instruction": "Name a colour.", "output": "Green."}
SMALL = json.dumps({"examples": [ROW]}).encode()


def large(number: int) -> bytes:
    """200 different rows of about 100 tokens."""
    rows = [{"instruction": f"Name {number} and {row}.", "output": "Bread rises. " * 30} for row in range(200)]
    return json.dumps({"examples": rows}).encode()


@dataclass
class Listening:
    """A service on a port, whose batches are counted and can be held."""

    service: ScoringService
    url: str
    port: int
    batches: int = 0
    let: threading.Event = field(default_factory=threading.Event)

    def post(self, body: bytes) -> httpx2.Response:
        return httpx2.post(f"{self.url}/v1/score", content=body, timeout=60)

    def send(self, body: bytes, *, length: int | None = None) -> socket.socket:
        """Send a request, or a part of it, and return the connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        size = len(body) if length is None else length
        connection.sendall(b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + body)
        return connection

    def metric(self, name: str) -> float:
        (line,) = [line for line in httpx2.get(f"{self.url}/metrics").text.splitlines() if line.startswith(f"{name} ")]
        return float(line.split()[1])


@pytest.fixture
def listening(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    """Its queue holds 60,000 tokens, three large requests."""
    compute = Executor.compute

    def counted(self: Executor, job: Job, device: Device) -> Done:
        found.batches += 1
        assert found.let.wait(60)
        time.sleep(0.002)  # a device is slower than this bundle's models
        return compute(self, job, device)

    monkeypatch.setattr(Executor, "compute", counted)
    metrics = Metrics()
    options = ServiceOptions(small_bundle, indicators="perplexity", device="cpu", limits=Limits(queue_tokens=60_000))
    with ScoringService.open(options, metrics.observer()) as service:
        config = uvicorn.Config(
            create_app(service, metrics, HttpOptions()), port=0, http=TimedConnection, log_level="error"
        )
        server = uvicorn.Server(config)
        found = Listening(service, "", 0)
        found.let.set()
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        found.port = server.servers[0].sockets[0].getsockname()[1]
        found.batches = 0  # without the warm-up's
        found.url = f"http://127.0.0.1:{found.port}"
        yield found
        found.let.set()
        server.should_exit = True
        thread.join(30)


def is_ready(client: TestClient, status: int) -> bool:
    """Whether the probe's answer has this status."""
    return client.get("/health/ready").status_code == status


def wait_for(condition: Any, seconds: float = 30) -> None:  # noqa: ANN401
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_small_requests_beside_a_flood_of_large_ones_wait_at_most_two_batches(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []  # batches that began between the admission of a small request and its result
    submit = listening.service.scheduler.submit

    def noting(work: Work) -> None:
        is_small = work.left_texts == 1
        submit(work)
        if is_small:
            begin = listening.batches
            work.future.add_done_callback(lambda _: waited.append(listening.batches - begin))

    monkeypatch.setattr(listening.service.scheduler, "submit", noting)
    ended = threading.Event()
    statuses: list[int] = []

    def flood(number: int) -> None:
        while not ended.is_set():
            statuses.append(listening.post(large(number)).status_code)

    with ThreadPoolExecutor(8) as pool:
        flooding = [pool.submit(flood, number) for number in range(8)]
        wait_for(lambda: listening.service.scheduler.waiting_requests >= 2)
        for _ in range(20):
            answer = listening.post(SMALL)
            while answer.status_code == 429:
                answer = listening.post(SMALL)
            assert answer.status_code == 200
        ended.set()
    for future in flooding:
        future.result()
    assert len(waited) == 20
    assert max(waited) <= 2
    assert set(statuses) <= {200, 429}


def test_a_flood_is_refused_with_retry_after_while_the_queue_is_full(listening: Listening) -> None:
    listening.let.clear()
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(listening.post, large(number)) for number in range(16)]
        wait_for(lambda: sum(answer.done() for answer in answers) >= 11)
        assert listening.service.scheduler.waiting_tokens <= 60_000
        listening.let.set()
        found = [answer.result(60) for answer in answers]
    refused = [answer for answer in found if answer.status_code == 429]
    assert {answer.status_code for answer in found} == {200, 429}
    assert len(refused) >= 11
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert listening.post(SMALL).status_code == 200


def test_a_thousand_clients_that_go_away_leave_no_place_taken(listening: Listening) -> None:
    listening.let.clear()
    with ThreadPoolExecutor(1) as pool:
        at_work: Future[httpx2.Response] = pool.submit(listening.post, SMALL)
        wait_for(lambda: listening.batches and not listening.service.scheduler.waiting_requests)
        for _ in range(10):
            connections = [listening.send(SMALL) for _ in range(100)]
            time.sleep(0.02)
            for connection in connections:
                connection.close()
        wait_for(lambda: listening.metric("instructmining_requests_in_flight") == 2)
        scheduler = listening.service.scheduler
        assert (scheduler.waiting_requests, scheduler.waiting_tokens) == (0, 0)
        before = listening.batches
        listening.let.set()
        assert at_work.result(60).status_code == 200
    assert listening.post(SMALL).status_code == 200
    assert listening.batches <= before + 2  # nothing was computed for those who went away


def test_slow_clients_starve_nobody(listening: Listening) -> None:
    slow = [listening.send(SMALL[:1], length=len(SMALL)) for _ in range(200)]
    deaf = [listening.send(large(number)) for number in range(2)]  # they never read
    begin = time.monotonic()
    place = 1
    while place < len(SMALL) and time.monotonic() < begin + 20:
        for connection in slow[place % 10 :: 10]:
            connection.send(SMALL[place : place + 1])
        if place % 10 == 0:
            assert listening.post(SMALL).status_code == 200
        place += 1
    for connection in (*slow, *deaf):
        connection.close()
    assert time.monotonic() - begin < 20


def test_a_graph_that_hangs_makes_the_service_not_ready_until_it_goes_on(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let = threading.Event()
    let.set()
    compute = Executor.compute

    def hanging(self: Executor, job: Job, device: Device) -> Done:
        assert let.wait(60)
        return compute(self, job, device)

    monkeypatch.setattr(Executor, "compute", hanging)
    options = {"indicators": "perplexity", "limits": Limits(max_batch_s=0.5)}
    for client in client_of(small_bundle, http=HttpOptions(seconds=0.5), **options):
        let.clear()
        assert client.post("/v1/score", content=SMALL).status_code == 504
        wait_for(partial(is_ready, client, 503))
        assert "a batch takes" in client.get("/health").json()["reason"]
        assert client.post("/v1/score", content=SMALL).status_code == 503  # at once, without a time-out
        let.set()
        wait_for(partial(is_ready, client, 200))
        assert client.post("/v1/score", content=SMALL).status_code == 200


def test_all_columns_are_those_without_neighbours_where_no_rows_to_compare_with_are_given(
    small_bundle: Path, tmp_path: Path
) -> None:
    with ScoringService.open(ServiceOptions(small_bundle, indicators="all", device="cpu")) as service:
        assert service.left_out == ["knn_6"]
        assert service.scorer.columns == ("input_length", "output_length", "reward", "perplexity", "mtld", "ifd")
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"prompt": "a", "response": "b"}\n' * 10, encoding="utf-8")
    options = ServiceOptions(small_bundle, indicators="all", knn_against=str(pool), device="cpu")
    with ScoringService.open(options) as service:
        assert service.left_out == []
        assert "knn_6" in service.scorer.columns
    with pytest.raises(RuleError, match=r"knn_6 needs the neighbours of each row"):
        ScoringService.open(ServiceOptions(small_bundle, rule="paper-v1", indicators="all", device="cpu"))


def test_embeddings_alone_are_served_without_rows_to_compare_with(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, roles=["embedding"], device="cpu") as scorer:
        size = scorer.embedding_size
    for client in client_of(small_bundle, roles="embedding"):
        assert client.get("/health").json()["columns"] == []
        (vector,) = posted(client, "/embed", inputs=["Green."], dimensions=size)
        found = posted(client, "/v1/embeddings", input="Green.", dimensions=size)
        assert found["data"][0]["embedding"] == pytest.approx(vector)
        refused = client.post("/v1/score", json={"examples": [ROW]})
        assert (refused.status_code, refused.json()["error"]["message"]) == (
            404,
            "the service computes no column; serve with --indicators or --rule",
        )
        refused = client.post("/v1/completions", json={"prompt": "Green.", "max_tokens": 1})
        assert (refused.status_code, "serve with --roles perplexity" in refused.text) == (404, True)
        assert client.post("/v1/select", json={"examples": [ROW], "top": 1}).status_code == 422


def test_rewards_are_served_beside_other_columns(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, indicators="reward", device="cpu") as scorer:
        (row,) = scorer.score([{"prompt": "Name a colour.", "response": "Green."}])
    for client in client_of(small_bundle, roles="reward", indicators="mtld"):
        assert client.get("/health").json()["columns"] == ["mtld"]
        found = posted(client, "/score", text_1="Name a colour.", text_2="Green.", use_activation=False)
        assert found["data"][0]["score"] == pytest.approx(row.columns["reward"])


def test_neighbours_of_a_small_request_are_searched_in_a_thread_so_that_others_are_answered(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps({"instruction": f"Say {n}.", "output": f"{n}"}) + "\n" for n in range(8)))
    threads: list[str] = []
    finish = RowRequests.finish

    def noted(self: RowRequests, *arguments: Any) -> ScoredWindow:  # noqa: ANN401
        threads.append(threading.current_thread().name)
        return finish(self, *arguments)

    monkeypatch.setattr(RowRequests, "finish", noted)
    for client in client_of(small_bundle, indicators="knn_6", knn_against=str(pool)):
        posted(client, "/v1/score", examples=[ROW])
    assert [name.startswith("instructmining-tokens") for name in threads] == [True]
