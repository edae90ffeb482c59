"""An HTTP proxy before a store, in a process of its own, that breaks those requests that its rules match.

Run as a script it takes the port of the store, prints the proxy's port and that of its control, and ends with standard
input. The control takes rules (``POST /rules``), returns the requests so far (``GET /log``) and forgets them (``POST
/forget``), all as JSON.
"""

from __future__ import annotations

import http.client
import http.server
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from own_process import end_with_standard_input, started

Kind = Literal[
    "error500",  # an answer of the store's kind
    "slow_down_503",
    "denied_403",
    "error_in_200",  # as S3 does where it fails after it began to answer a completion
    "cut_before",  # the store never sees the request
    "cut_upload",  # the connection ends after half of the request's body
    "cut_after",  # the store has done it, but the client gets no answer
    "half_body",  # the answer ends after half of its body; without a body as cut_after
    "hang",  # no answer until the client goes away
    "delay",  # done and answered after a while
]
ANSWERS = {
    "error500": (500, "InternalError"),
    "slow_down_503": (503, "SlowDown"),
    "denied_403": (403, "AccessDenied"),
    "error_in_200": (200, "InternalError"),
}
_OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "upgrade"}
_LONGEST_HANG_S = 120.0


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests break, and how.

    Attributes:
        kind: of the fault.
        method: of the request; any where it is empty.
        target: a regular expression, searched for in path and query as they were sent.
        times: requests that break; None breaks all.
        after: requests that match and pass before the first one breaks.
        seconds: that a delay takes.
    """

    kind: Kind
    method: str = ""
    target: str = ""
    times: int | None = None
    after: int = 0
    seconds: float = 1.0


@dataclass(slots=True)
class Request:
    """A request as it came in; the status is 0 where the client got none, and None while it is not answered.

    Bytes are those of the body that was sent, and of the one that was answered.
    """

    method: str
    target: str
    range: str
    fault: str
    status: int | None = None
    sent: int = 0
    answered: int = 0


class FaultingProxy:
    """The proxy as the tests see it."""

    def __init__(self, port: int, control: int) -> None:
        self.port = port
        self._control = control

    def rules(self, *rules: Rule) -> None:
        """Replace the rules; the counts of each begin anew."""
        self._ask("POST", "/rules", [asdict(rule) for rule in rules])

    def log(self) -> list[Request]:
        """Return the requests since :meth:`forget`."""
        return [Request(**request) for request in self._ask("GET", "/log")]

    def forget(self) -> None:
        """Empty the log; drop the rules."""
        self._ask("POST", "/forget")

    def wait_for(self, matches: Callable[[Request], object], seconds: float = 60) -> Request:
        """Return the first request that matches, as soon as it has come in."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for request in self.log():
                if matches(request):
                    return request
            time.sleep(0.02)
        raise AssertionError(f"no such request within {seconds} s; there were {self.log()}")

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=30)
        try:
            connection.request(method, path, json.dumps(body))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def proxied(port: int) -> Iterator[FaultingProxy]:
    """Run a proxy before the store that listens on a port of this machine."""
    with started([sys.executable, __file__, str(port)]) as said:
        yield FaultingProxy(*map(int, said.split()))


class _State:
    """Rules and log, of all threads."""

    def __init__(self, store: int) -> None:
        self.store = store
        self.log: list[Request] = []
        self._rules: Sequence[tuple[Rule, list[int]]] = ()
        self._lock = threading.Lock()

    def replace(self, rules: list[dict[str, Any]]) -> None:
        with self._lock:
            self._rules = [(Rule(**rule), [0]) for rule in rules]

    def forget(self) -> None:
        with self._lock:
            self._rules, self.log = (), []

    def admit(self, method: str, target: str, asked_range: str) -> tuple[Request, Rule | None]:
        """Log a request; find the rule that breaks it."""
        with self._lock:
            found = self._match(method, target)
            request = Request(method, target, asked_range, found.kind if found else "")
            self.log.append(request)
            return request, found

    def _match(self, method: str, target: str) -> Rule | None:
        for rule, seen in self._rules:
            if rule.method in {"", method} and re.search(rule.target, target):
                seen[0] += 1
                if rule.after < seen[0] and (rule.times is None or seen[0] <= rule.after + rule.times):
                    return rule
        return None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: _State

    def log_message(self, *_: object) -> None:
        pass

    def _go(self) -> None:
        request, rule = self.state.admit(self.command, self.path, self.headers.get("Range", ""))
        kind = rule.kind if rule else ""
        if kind == "cut_upload":
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            return self._cut(request)
        body = self._body()
        request.sent = len(body)
        if kind in ANSWERS:
            return self._refuse(request, *ANSWERS[kind])
        if kind == "cut_before":
            return self._cut(request)
        if kind == "hang":
            self._wait_until_left()
            return self._cut(request)
        if rule is not None and kind == "delay":
            time.sleep(rule.seconds)
        return self._forward(request, body, kind)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = _go

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(chunks)

    def _forward(self, request: Request, body: bytes, kind: str) -> None:
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _OF_ONE_HOP}
        store = http.client.HTTPConnection("127.0.0.1", self.state.store, timeout=_LONGEST_HANG_S)
        try:
            store.request(self.command, self.path, body, {**kept, "Content-Length": str(len(body))})
            answer = store.getresponse()
            found = answer.read()
        finally:
            store.close()
        if kind == "cut_after" or (kind == "half_body" and len(found) < 2):
            return self._cut(request)
        length = str(len(found)) if self.command != "HEAD" else answer.getheader("Content-Length", "0")
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_ONE_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        request.status, request.answered = answer.status, len(found)
        if kind == "half_body":
            self.wfile.write(found[: len(found) // 2])
            self.wfile.flush()
            return self._cut(request)
        self.wfile.write(found)
        return None

    def _refuse(self, request: Request, status: int, code: str) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>a test</Message></Error>'
        request.status = status
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def _cut(self, request: Request) -> None:
        request.status = request.status or 0
        self.close_connection = True
        with suppress(OSError):  # the client was first
            self.connection.shutdown(socket.SHUT_RDWR)

    def _wait_until_left(self) -> None:
        self.connection.settimeout(_LONGEST_HANG_S)
        with suppress(OSError):  # it left by a reset, or stays for ever
            self.connection.recv(1)


class _Control(http.server.BaseHTTPRequestHandler):
    state: _State

    def log_message(self, *_: object) -> None:
        pass

    def _go(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        if self.path == "/rules":
            self.state.replace(body)
        if self.path == "/forget":
            self.state.forget()
        found = json.dumps([asdict(request) for request in list(self.state.log)]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    do_GET = do_POST = _go


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing where a client left: that is what tests do."""


def _serve(store: int) -> None:
    state = _State(store)
    handlers = [type("Handler", (kind,), {"state": state}) for kind in (_Handler, _Control)]
    servers = [_Server(("127.0.0.1", 0), handler) for handler in handlers]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    end_with_standard_input(" ".join(str(server.server_port) for server in servers))


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
