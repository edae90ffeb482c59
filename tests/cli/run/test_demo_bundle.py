"""The demo bundle is built once, by whoever comes first."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import pytest

from instructmining.bundle.demo import demo_place
from instructmining_cli.run import demo_bundle
from instructmining_export.demo import preset
from instructmining_export.roles import Settings


def test_of_two_first_runs_one_builds_and_the_other_waits_and_takes_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", find_all(importlib.util.find_spec))
    waits = threading.Event()
    built: list[Path] = []

    def export_demo(path: Path, *, settings: Settings, overwrite: bool) -> None:  # noqa: ARG001
        assert waits.wait(60)
        path.mkdir()
        (path / "manifest.json").write_text("{}")
        built.append(path)

    monkeypatch.setattr(preset, "export_demo", export_demo)
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


def find_all(find: object) -> object:
    """The parts of the demo are taken for installed."""

    def found(name: str) -> object:
        return True if name in (*demo_bundle.PARTS, *demo_bundle.EXPORTER) else find(name)  # type: ignore[operator]

    return found
