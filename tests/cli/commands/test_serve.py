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

import pytest

from instructmining_serving.client import Client, Retries, ServiceError

ROWS = [{"instruction": "Name a colour.", "output": "Green is a colour. " * 30}] * 100


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["--host", "0.0.0.0"], (2, "is not loopback, so requests need a token: put it into INSTRUCTMINING_TOKEN")),
        (["--token-file", "gone"], (1, "error: gone: No such file or directory")),
        (["--token-file", os.devnull], (1, f"error: {os.devnull}: holds no token")),
        (["--indicators", "knn_6"], (1, "knn_6 needs the neighbours of each row")),
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
    assert run("serve", "--bundle", small_bundle, "--indicators", "mtld", *options) == code
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
            found: list[int] = []
            working = threading.Thread(target=lambda: found.append(len(client.score(ROWS))))
            working.start()
            time.sleep(0.05)
            service.send_signal(signal.SIGTERM)
            working.join(60)
        assert service.wait(60) == 0
        assert found == [100]
    finally:
        service.kill()
        error = service.communicate()[1]
    assert error.startswith("warming up perplexity on cpu")
