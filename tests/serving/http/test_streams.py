from __future__ import annotations

import gzip
import http.client
import json
import socket
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx2
import pytest
import zstandard
from served import Listening, listening, wait_until

from instructmining.errors import DeviceError, DeviceMemoryError
from instructmining.inference.executor import Done, Executor
from instructmining_serving.http import streams
from instructmining_serving.http.app import HttpOptions
from instructmining_serving.http.bodies import BodyLimits
from instructmining_serving.scheduling.scheduler import Limits

NDJSON = {"content-type": "application/x-ndjson"}
ROWS: list[dict[str, object]] = [
    {"instruction": "Name a colour.", "output": "Green is a colour."},
    {"instruction": "Count.", "input": "To three", "output": "One two three."},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there!"}]},
    {"prompt": "Say hello.", "chosen": "Hello!", "rejected": "No."},
    {"prompt": "Say hello.", "response": "Good morning to you."},
]


def as_lines(rows: Sequence[object]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def answers(found: httpx2.Response) -> list[Any]:
    assert found.status_code == 200, found.text
    assert found.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in found.text.splitlines()]


class Connection:
    """A client that sends and reads as it likes."""

    def __init__(self, port: int, *, buffers: int | None = None) -> None:
        self.socket = socket.socket()
        if buffers is not None:
            for kind in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                self.socket.setsockopt(socket.SOL_SOCKET, kind, buffers)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(
            b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: application/jsonl; charset=utf-8\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(content), content))

    def end(self) -> None:
        self.socket.sendall(b"0\r\n\r\n")

    def answer(self) -> http.client.HTTPResponse:
        found = http.client.HTTPResponse(self.socket)
        found.begin()
        assert found.status == 200
        return found


@pytest.fixture(scope="module")
def served(small_bundle: Path) -> Iterator[Listening]:
    limits = HttpOptions(bodies=BodyLimits(max_bytes=5000))
    with listening(small_bundle, http=limits, indicators="mtld,ifd,reward", max_rows=50) as found:
        yield found


class Held:
    """Holds the devices."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compute = Executor.compute
        self.going = Event()  # while it is set, batches are computed
        self.going.set()
        self.at_work = Event()  # a batch is held

        def waiting(*arguments: Any) -> Done:  # noqa: ANN401
            if not self.going.is_set():
                self.at_work.set()
            self.going.wait()
            return compute(*arguments)

        monkeypatch.setattr(Executor, "compute", waiting)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    found = Held(monkeypatch)
    yield found
    found.going.set()


def test_lines_of_any_shape_are_answered_in_order_with_the_numbers_of_the_json_answer(served: Listening) -> None:
    rows = ROWS * 40
    found = answers(httpx2.post(f"{served.url}/v1/score", content=as_lines(rows), headers=NDJSON, timeout=60))
    assert len(found) == len(rows)
    for number, row in enumerate(ROWS):
        answer = httpx2.post(f"{served.url}/v1/score", json={"examples": [row]})
        (expected,) = answer.json()["results"]
        for result in found[number :: len(ROWS)]:
            assert set(result) == {"columns", "score_notes", "truncated", "unread"}
            assert result["columns"] == pytest.approx(expected["columns"], rel=1e-5)
            assert (result["score_notes"], result["truncated"]) == (expected["score_notes"], expected["truncated"])


def test_a_bad_line_is_answered_with_its_error_and_the_stream_goes_on(served: Listening) -> None:
    good = json.dumps(ROWS[0]).encode()
    lines = [good, b"{", b"", b" \r", b"[1]", b'{"x": 1}', b"a" * 6000, b'{"instruction": "a", "output": ""}', good]
    found = answers(httpx2.post(f"{served.url}/v1/score", content=b"\n".join(lines), headers=NDJSON))
    assert [line.get("line") for line in found] == [None, 2, 5, 6, 7, 8, None]
    said = [(line["error"]["type"], line["error"]["message"]) for line in found[1:-1]]
    for (kind, message), (wanted, part) in zip(
        said,
        [
            ("bad_request", "the line is not JSON"),
            ("invalid_rows", "found a list, wanted an object"),
            ("invalid_rows", "no known format"),
            ("too_large", "the line has more than 5,000 bytes"),
            ("invalid_rows", "the response is empty"),
        ],
        strict=True,
    ):
        assert (kind, part in message) == (wanted, True), message
    assert found[0]["columns"] == found[-1]["columns"]


def test_an_empty_stream_has_an_empty_answer(served: Listening) -> None:
    assert answers(httpx2.post(f"{served.url}/v1/score", content=b"\n\n", headers=NDJSON)) == []


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.ZstdCompressor().compress)],
)
def test_compressed_lines_are_read_as_they_come(
    served: Listening, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    headers = NDJSON | {"content-encoding": encoding}
    body = encode(as_lines(ROWS[:2])) + encode(b"\n" * 4_000_000) + encode(as_lines(ROWS[2:]))
    found = answers(httpx2.post(f"{served.url}/v1/score", content=body, headers=headers, timeout=60))
    assert ["columns" in line for line in found] == [True] * len(ROWS)
    cut = httpx2.post(f"{served.url}/v1/score", content=encode(as_lines(ROWS))[:-6], headers=headers)
    assert "the body is not" in cut.text.splitlines()[-1]
    unknown = httpx2.post(f"{served.url}/v1/score", content=body, headers=NDJSON | {"content-encoding": "br"})
    assert unknown.status_code == 415


def test_a_body_that_is_damaged_at_once_is_refused(served: Listening) -> None:
    found = httpx2.post(f"{served.url}/v1/score", content=b"plain", headers=NDJSON | {"content-encoding": "gzip"})
    assert (found.status_code, found.json()["error"]["type"]) == (400, "bad_request")


@pytest.mark.parametrize(("encoding", "encode"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_a_compressed_body_that_does_not_say_so_is_refused_once(
    served: Listening, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    body = encode(as_lines(ROWS))
    for headers, content in ((NDJSON, iter([body[:1], body[1:3], body[3:]])), ({}, body)):
        found = httpx2.post(f"{served.url}/v1/score", content=content, headers=headers)
        error = found.json()["error"]
        assert (found.status_code, error["type"]) == (415, "unsupported")
        assert f"wanted Content-Encoding: {encoding}" in error["message"]


def test_a_byte_order_mark_is_left_out(served: Listening) -> None:
    mark = b"\xef\xbb\xbf"
    for body in (iter([mark[:2], mark[2:], as_lines(ROWS[:1])]), mark + as_lines(ROWS[:1])):
        (found,) = answers(httpx2.post(f"{served.url}/v1/score", content=body, headers=NDJSON))
        assert "columns" in found
    whole = mark + json.dumps({"examples": ROWS[:1]}).encode()
    assert httpx2.post(f"{served.url}/v1/score", content=whole).status_code == 200
    with Connection(served.port) as client:  # no byte is waited for that need not come
        client.send(b"1\n")
        assert json.loads(client.answer().readline())["line"] == 1


def test_a_service_without_columns_refuses_lines_as_it_does_json(small_bundle: Path) -> None:
    with listening(small_bundle, roles="embedding") as served:
        for body, headers in ((as_lines(ROWS), NDJSON), (json.dumps({"examples": ROWS}).encode(), {})):
            found = httpx2.post(f"{served.url}/v1/score", content=body, headers=headers)
            assert (found.status_code, found.json()["error"]["type"]) == (404, "not_served")


def test_each_line_is_answered_while_the_next_is_not_sent_yet(served: Listening) -> None:
    with Connection(served.port) as client:
        client.send(as_lines(ROWS[:1]))
        answer = client.answer()
        assert "columns" in json.loads(answer.readline())
        for row in ROWS[1:]:
            content = as_lines([row])
            client.send(content[:10])
            client.send(content[10:])
            assert "columns" in json.loads(answer.readline())
        client.end()
        assert answer.read() == b""


def test_nothing_more_is_received_while_the_client_does_not_read(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_IN_HAND", 32 << 10)
    with (
        listening(small_bundle, indicators="mtld", buffers=8192) as served,
        Connection(served.port, buffers=8192) as client,
    ):
        line = b'["' + b"a" * 95 + b'"]\n'
        total = 20_000
        sent: list[int] = []

        def send() -> None:
            for _ in range(total // 100):
                client.send(line * 100)
                sent.append(100)
            client.end()

        sending = Thread(target=send)
        sending.start()
        before = -1
        while sum(sent) > before:
            before = sum(sent)
            sending.join(0.5)
        assert before < total / 2
        answer = client.answer()
        assert [json.loads(line)["line"] for line in answer.read().splitlines()] == [*range(1, total + 1)]
        sending.join()


def test_a_client_that_does_not_read_is_left_after_the_time_out(small_bundle: Path) -> None:
    with (
        listening(small_bundle, http=HttpOptions(seconds=0.3), indicators="mtld", buffers=8192) as served,
        Connection(served.port, buffers=8192) as client,
    ):
        client.socket.settimeout(2)
        with suppress(OSError):  # a time-out, or a connection that was closed
            while True:
                client.send(b"1\n" * 1000)
        wait_until(lambda: 'errors_total{kind="timeout"} 1.0' in served.metrics.text().decode())
        wait_until(lambda: "requests_in_flight 0.0" in served.metrics.text().decode())
        client.socket.close()


def test_a_stream_that_sends_nothing_for_long_ends_with_a_line_that_says_so(small_bundle: Path) -> None:
    with (
        listening(small_bundle, http=HttpOptions(seconds=0.5), indicators="mtld") as served,
        Connection(served.port) as client,
    ):
        client.send(as_lines(ROWS[:1]))
        first, last = map(json.loads, client.answer().read().splitlines())
        assert "columns" in first
        assert last == {"error": {"message": "nothing came within 0.5 seconds", "type": "timeout"}}


def test_rows_of_a_client_that_goes_away_leave_the_queue(served: Listening, held: Held) -> None:
    scheduler = served.service.scheduler
    held.going.clear()
    with Connection(served.port) as client:
        client.send(as_lines(ROWS[:1]))
        assert held.at_work.wait(20)
        client.send(as_lines(ROWS))
        wait_until(lambda: scheduler.waiting_tokens)
    wait_until(lambda: not scheduler.waiting_tokens)
    held.going.set()
    assert answers(httpx2.post(f"{served.url}/v1/score", content=as_lines(ROWS), headers=NDJSON))


def test_streams_wait_for_room_and_are_never_refused(small_bundle: Path) -> None:
    limits = Limits(queue_tokens=100)
    with listening(small_bundle, indicators="perplexity", limits=limits) as served:
        found: list[list[Any]] = []

        def stream() -> None:
            rows = as_lines(ROWS[:2] * 100)
            found.append(answers(httpx2.post(f"{served.url}/v1/score", content=rows, headers=NDJSON, timeout=60)))

        threads = [Thread(target=stream) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [len(lines) for lines in found] == [200] * 4
    assert all("columns" in line for lines in found for line in lines)


def test_a_stream_ends_with_a_line_that_says_so_when_the_service_shuts_down(small_bundle: Path, held: Held) -> None:
    with listening(small_bundle, indicators="perplexity") as served, Connection(served.port) as client:
        client.send(as_lines(ROWS[:1]))
        answer = client.answer()
        assert "columns" in json.loads(answer.readline())
        held.going.clear()
        client.send(as_lines(ROWS[:1]))
        assert held.at_work.wait(20)
        client.send(as_lines(ROWS[:2]))
        wait_until(lambda: served.service.scheduler.waiting_tokens)
        served.server.should_exit = True
        wait_until(served.service.closing.is_set)
        held.going.set()
        *rest, last = map(json.loads, answer.read().splitlines())
        assert ["columns" in line for line in rest] == [True] * 3
        assert last["error"]["type"] == "not_ready"
        assert "the service is shutting down" in last["error"]["message"]


def test_a_stream_whose_client_never_pauses_ends_too_when_the_service_shuts_down(small_bundle: Path) -> None:
    with listening(small_bundle, indicators="mtld") as served, Connection(served.port) as client:

        def send() -> None:
            with suppress(OSError):
                while True:
                    client.send(as_lines(ROWS[:1]) * 50)

        sending = Thread(target=send)
        sending.start()
        answer = client.answer()
        answer.readline()
        served.server.should_exit = True
        while "columns" in (line := json.loads(answer.readline())):
            pass
        assert line["error"]["type"] == "not_ready"
        sending.join()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DeviceMemoryError("cpu: no memory"), [1, 2]),  # no fault of the device: the stream goes on
        (DeviceError("cpu: broken"), [None]),
    ],
)
def test_a_stream_ends_where_a_graph_fails(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: list[int | None]
) -> None:
    def failing(*_: object) -> None:
        raise error

    with listening(small_bundle, indicators="perplexity") as served, Connection(served.port) as client:
        monkeypatch.setattr(Executor, "compute", failing)
        monkeypatch.setattr(Executor, "reopen", lambda *_: None)
        client.send(as_lines(ROWS[:2]))
        client.end()
        wait_until(lambda: 'errors_total{kind="model_fault"}' in served.metrics.text().decode())
        monkeypatch.undo()
        client.socket.settimeout(20)
        found = http.client.HTTPResponse(client.socket)
        found.begin()
        lines = [json.loads(line) for line in found.read().splitlines()]
    assert found.status == (200 if len(said) > 1 else 503)
    assert [line.get("line") for line in lines] == said
    assert all(line["error"]["type"] == "model_fault" for line in lines)


def test_a_line_that_takes_too_long_is_answered_with_that(small_bundle: Path, held: Held) -> None:
    with listening(small_bundle, http=HttpOptions(seconds=0.5), indicators="perplexity") as served:
        held.going.clear()
        found = answers(httpx2.post(f"{served.url}/v1/score", content=as_lines(ROWS[:1]), headers=NDJSON))
        held.going.set()
    assert found == [{"error": {"message": "the request took too long", "type": "timeout"}, "line": 1}]
