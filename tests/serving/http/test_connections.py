from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn

from instructmining_serving.http.access import Receive, Scope, Send
from instructmining_serving.http.connections import TimedConnection

LARGE = 32 << 20


class Impatient(TimedConnection):
    head_s = 0.5
    stall_s = 0.5


async def answers(_: Scope, receive: Receive, send: Send) -> None:
    """Answer with a little, or with much where the request has a body."""
    size = LARGE if (await receive())["body"] else 2
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    await send({"type": "http.response.body", "body": b"x" * size})


@pytest.fixture
def connect() -> Iterator[Callable[[], socket.socket]]:
    config = uvicorn.Config(answers, port=0, http=Impatient, lifespan="off", log_level="error", timeout_keep_alive=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    opened = []

    def connection() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", port), timeout=10))
        return opened[-1]

    yield connection
    for one in opened:
        one.close()
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def answered(connection: socket.socket) -> bool:
    """Whether a small answer comes."""
    found = b""
    while not found.endswith(b"\r\n\r\nxx") and (part := connection.recv(1000)):
        found += part
    return found.endswith(b"xx")


def ends(connection: socket.socket) -> bool:
    """Whether the service closes the connection."""
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def test_a_client_that_never_sends_a_whole_head_is_left(connect: Callable[[], socket.socket]) -> None:
    silent, slow = connect(), connect()
    slow.sendall(b"GET / HTTP/1.1\r\n")
    begin = time.monotonic()
    assert ends(silent)
    assert ends(slow)
    assert 0.3 < time.monotonic() - begin < 5


def test_a_second_head_must_end_in_time_too_but_an_idle_connection_may_wait(
    connect: Callable[[], socket.socket],
) -> None:
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    client = connect()
    client.sendall(request)
    assert answered(client)
    time.sleep(1)  # longer than a head may take
    client.sendall(request)
    assert answered(client)
    client.sendall(request[:10])
    begin = time.monotonic()
    assert ends(client)
    assert time.monotonic() - begin < 4


def test_a_client_that_does_not_read_its_answer_is_left(connect: Callable[[], socket.socket]) -> None:
    client = connect()
    client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx")
    time.sleep(2)
    found = 0
    while part := client.recv(1 << 20):
        found += len(part)
    assert found < LARGE


def test_a_client_that_reads_slowly_gets_its_whole_answer(connect: Callable[[], socket.socket]) -> None:
    client = connect()
    client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx")
    found = 0  # with the head
    while found < LARGE:
        found += len(client.recv(1 << 22))
        time.sleep(0.1)
