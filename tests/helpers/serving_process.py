"""A real ``instructmining serve`` process."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from instructmining_serving.client import Client, Retries, ServiceError


@dataclass(slots=True)
class Served:
    """A running service."""

    process: subprocess.Popen[str]
    port: int
    said: list[str] = field(default_factory=list)  # on standard error, once it ended

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, tries: int = 1) -> Client:
        """Return a client."""
        return Client(self.url, retries=Retries(tries))

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Return once it takes requests."""
        end = time.monotonic() + seconds
        with self.client() as client:
            while time.monotonic() < end and self.process.poll() is None:
                try:
                    client.health()
                except ServiceError:
                    time.sleep(0.05)
                else:
                    return
        raise AssertionError(f"not ready after {seconds} s; exit code {self.process.poll()}")


def wait_for_requests(url: str, count: int, token: str = "none", seconds: float = 60) -> None:
    """Return once so many requests are being answered, without the one that asks."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        metrics = httpx2.get(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"}).text
        (begun,) = re.findall(r"^instructmining_requests_in_flight (.+)$", metrics, re.MULTILINE)
        if float(begun) > count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{count} requests were not begun in {seconds} s")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(
    bundle: Path, *options: str, port: int | None = None, before: str = "", environment: Sequence[tuple[str, str]] = ()
) -> Iterator[Served]:
    """Run a service; what it said is known after the block.

    Args:
        bundle: that it opens.
        options: of ``serve``.
        port: by default a free one.
        before: Python that runs first in the process, such as a stand-in for a part.
        environment: further variables.
    """
    number = free_port() if port is None else port
    code = f"{before}\nfrom instructmining_cli.main import main\nmain()"
    command = [sys.executable, "-c", code, "serve", "--bundle", str(bundle), "--port", str(number), "--device", "cpu"]
    process = subprocess.Popen(
        [*command, *options], env=os.environ | dict(environment), stderr=subprocess.PIPE, text=True
    )
    served = Served(process, number)
    try:
        yield served
    finally:
        process.kill()
        served.said.append(process.communicate()[1])
