"""Servers, of which one runs at a time: the others are stopped (SIGSTOP), so that no idle thread takes a core."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import ROOT

_START_S = 300.0
_END_S = 20.0
# A stopped server must not outlive a killed benchmark.
_ENDS_WITH_US = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


class ServerError(Exception):
    """A server did not start; the message is the last of what it wrote."""


class Server:
    """A server in a process of its own, stopped until it is asked for."""

    def __init__(self, command: Sequence[str], health: str, environment: Mapping[str, str], folder: Path) -> None:
        """Start it and wait until it is healthy.

        Args:
            command: with ``{port}`` where the port belongs.
            health: path that answers 200 when it is ready.
            environment: variables beside ours.
            folder: that it is started in.

        Raises:
            ServerError: it ended, or was not ready in five minutes.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        self._process = subprocess.Popen(
            [*_ENDS_WITH_US, *(part.format(port=port) for part in command)],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **environment},
            cwd=folder,
            start_new_session=True,
        )
        try:
            self._wait(health)
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Let it run; gives its address."""
        self._signal(signal.SIGCONT)
        try:
            yield self.url
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it and all its processes."""
        if self._process.poll() is None:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
        self._log.close()

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def _wait(self, health: str) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.url + health, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        raise ServerError(lines[-1] if lines else f"not ready after {_START_S:.0f} s")


def own_server(bundle: Path, *options: str) -> Server:
    """``instructmining serve`` of this environment."""
    program = str(Path(sys.executable).with_name("instructmining"))
    command = [program, "serve", "--bundle", str(bundle), "--device", "cpu", "--port", "{port}", *options]
    return Server(command, "/health/ready", {}, ROOT)


def infinity(python: Path, model: Path) -> Server:
    """infinity-emb on onnxruntime, at its defaults but for what would change the weights or the graph's numbers.

    Args:
        python: of its environment.
        model: folder with the checkpoint's tokenizer and configuration, and the graph that optimum exported.
    """
    program = str(python.with_name("infinity_emb"))
    command = [program, "v2", "--model-id", ".", "--engine", "optimum", "--device", "cpu", "--port", "{port}"]
    return Server(
        [*command, "--pooling-method", "mean", "--no-bettertransformer", "--onnx-do-not-prefer-quantized"],
        "/health",
        {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"},
        model,  # optimum takes the path of the graph for one within the model's folder
    )
