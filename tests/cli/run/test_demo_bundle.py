"""The demo bundle is built once, by whoever comes first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from instructmining.bundle.demo import demo_place
from instructmining_cli.run import demo_bundle
from instructmining_export.demo import assemble


def test_of_two_first_runs_one_builds_and_the_other_waits_and_takes_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "cache"))
    waits = threading.Event()
    built: list[Path] = []

    def assemble_demo(path: Path, *, say: Callable[[str], None], overwrite: bool) -> None:  # noqa: ARG001
        assert waits.wait(60)
        path.mkdir()
        (path / "manifest.json").write_text("{}")
        built.append(path)

    monkeypatch.setattr(assemble, "assemble_demo", assemble_demo)
    found: list[Path] = []

    def say(text: str) -> None:
        if "waiting" in text:
            waits.set()

    runs = [threading.Thread(target=lambda: found.append(demo_bundle.demo_bundle(say))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert built == [demo_place()]
    assert found == [demo_place(), demo_place()]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [demo_place().name]
