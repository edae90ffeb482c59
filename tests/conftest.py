"""Fixtures of all tests."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_stores import S3Server, serving_s3
from small_bundle import write_small_bundle

from instructmining.writing.cache import cache_folder
from instructmining_cli.main import main
from instructmining_cli.run.demo_bundle import demo_bundle
from instructmining_export.demo.data import fetch

os.environ.pop("COLUMNS", None)  # a worker of pytest-xdist is given one; results would be wrapped to it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs; what they start would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with all roles of the demo, of random weights: everything works, nothing means anything."""
    path = tmp_path_factory.mktemp("small") / "bundle"
    write_small_bundle(path)
    return path


@pytest.fixture(scope="session")
def real_bundle() -> Path:
    """The demo bundle with its real weights, cached between runs."""
    return demo_bundle(lambda _: None)


@pytest.fixture(scope="session")
def real_rows() -> list[dict[str, str]]:
    """The 999 Alpaca rows."""
    rows: list[dict[str, str]] = json.loads(fetch("alpaca_en_demo.json", cache_folder() / "data").read_bytes())
    return rows


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server and a proxy before it that breaks requests on demand."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed: run `make test-stores`")
    with serving_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> S3Server:
    """The S3 server with an empty bucket; all requests pass."""
    s3_server.reset()
    return s3_server


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as JSON lines and returns the file."""

    def write(*rows: dict[str, object], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def new_threads() -> Callable[[], list[str]]:
    """Names the engine's threads that began in this test and are alive; fixtures of a session may have some too."""
    before = set(threading.enumerate())

    def names() -> list[str]:
        return sorted(thread.name for thread in {*threading.enumerate()} - before if "instructmining-" in thread.name)

    return names


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command line in this process and returns its exit code."""

    def call(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["instructmining", *map(str, arguments)])
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)
        return int(ended.value.code or 0)

    return call
