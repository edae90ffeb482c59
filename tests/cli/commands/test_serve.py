from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from serving_process import Served, serving, wait_for_requests

from instructmining_serving.client import Client, Retries, ServiceError

ROWS = [{"instruction": "Name a colour.", "output": "Green is a colour. " * 30}] * 100


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["--host", "0.0.0.0"], (2, "is not loopback, so requests need a token: put it into INSTRUCTMINING_TOKEN")),
        (["--token-file", "gone"], (1, "error: gone: No such file or directory")),
        (["--token-file", os.devnull], (1, f"error: {os.devnull}: holds no token")),
        (["--indicators", "knn_6"], (1, "knn_6 needs the neighbours of each row")),
        (["--bundle", "gone"], (1, "error: gone: no such folder")),
        (["--roles", "unieval"], (1, "has no role 'unieval', which the option roles (--roles) needs")),
    ],
)
def test_what_cannot_be_served_is_one_line(
    run: Callable[..., int],
    small_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    answer: tuple[int, str],
) -> None:
    monkeypatch.delenv("INSTRUCTMINING_TOKEN", raising=False)
    code, said = answer
    assert run("serve", "--bundle", small_bundle, "--port", 0, "--indicators", "mtld", *options) == code
    assert said in " ".join(capsys.readouterr().err.replace("\u2502", " ").split())


def test_a_service_answers_with_its_token_and_ends_after_the_requests_at_work(small_bundle: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "instructmining", "serve", "--bundle", str(small_bundle), "--port", str(port)]
    service = subprocess.Popen(
        [*command, "--indicators", "perplexity,ifd", "--device", "cpu"],
        env=os.environ | {"INSTRUCTMINING_TOKEN": "secret"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        with Client(url, token="secret", retries=Retries(60)) as client:
            for _ in range(100):
                try:
                    assert client.health()["status"] == "ready"
                    break
                except ServiceError:
                    time.sleep(0.1)
            with Client(url, token="wrong") as stranger, pytest.raises(ServiceError, match="401"):
                stranger.health()
            said = httpx2.get(f"{url}/openapi.json", headers={"Authorization": "Bearer secret"}).json()
            assert said["components"]["securitySchemes"].keys() == {"bearer"}
            found: list[int] = []
            working = threading.Thread(target=lambda: found.append(len(client.score(ROWS * 5))))
            working.start()
            wait_for_requests(url, 1, token="secret")
            service.send_signal(signal.SIGTERM)
            working.join(60)
        assert service.wait(60) == 0
        assert found == [500]
    finally:
        service.kill()
        error = service.communicate()[1]
    assert error.startswith("warming up perplexity on cpu")
    assert error.splitlines()[1:] == [f"ready: {url}, all routes: /docs"]


def test_a_port_that_is_in_use_is_found_before_the_bundle_is_opened(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run("serve", "--bundle", "gone", "--port", port) == 1
    assert capsys.readouterr().err == f"error: 127.0.0.1:{port}: address already in use; choose another --port\n"
    assert run("serve", "--bundle", "gone", "--host", "203.0.113.1", "--no-auth") == 1
    assert "203.0.113.1:8000: cannot assign requested address; choose another --host" in capsys.readouterr().err


# As graphs were before completions had log-likelihoods of the likeliest tokens.
EARLIER = """
from instructmining.inference.executor import Executor
Executor.outputs = lambda *_: frozenset({"nll", "best_token"})
"""


def test_a_service_says_what_it_lacks_and_then_where_it_is_ready(small_bundle: Path) -> None:
    with serving(small_bundle, "--indicators", "all", port=0, before=EARLIER) as served:
        assert served.process.stderr is not None
        lines = [served.process.stderr.readline() for _ in range(4)]
        url = lines[-1].removeprefix("ready: ").partition(",")[0]
        with Client(url) as client:
            assert client.health()["status"] == "ready"
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(20) == 0
    assert lines.pop(2).startswith("warming up perplexity, reward on cpu")
    assert lines == [
        "left out: knn_6, which needs rows to compare with (--knn-against)\n",
        "warning: /v1/completions is not served: the perplexity model's graph does not compute best_log_probability; "
        "export the bundle again\n",
        f"ready: {url}, all routes: /docs\n",
    ]
    assert not url.endswith(":0")
    assert served.said == [""]


def ended_by_two(served: Served, number: signal.Signals, apart_s: float) -> int:
    for _ in range(2):
        served.process.send_signal(number)
        time.sleep(apart_s)
    return served.process.wait(2)


def test_a_second_signal_ends_an_idle_service_at_once(small_bundle: Path) -> None:
    with serving(small_bundle, "--indicators", "mtld") as served:
        served.wait_until_ready()
        assert ended_by_two(served, signal.SIGTERM, 0.02) == 143
    assert served.said[0].splitlines()[-2:] == [f"ready: {served.url}, all routes: /docs", "terminated"]


def test_a_second_signal_ends_a_service_at_once_whatever_it_computes(small_bundle: Path) -> None:
    with serving(small_bundle, "--indicators", "perplexity,ifd") as served:
        served.wait_until_ready()
        ends: list[str] = []

        def ask(lines: bool) -> None:
            with served.client() as client:
                try:
                    list(client.score_lines(ROWS * 20)) if lines else client.score(ROWS * 5)
                except ServiceError as error:
                    ends.append(type(error).__name__)
                else:
                    ends.append("answered")

        asking = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(6)]
        for thread in asking:
            thread.start()
        wait_for_requests(served.url, len(asking))
        assert ended_by_two(served, signal.SIGINT, 0.1) == 130
        for thread in asking:
            thread.join(30)
    assert len(ends) == len(asking)
    assert "ServiceError" in ends
    assert served.said[0].splitlines()[-1] == "interrupted"
    assert "Traceback" not in served.said[0]
