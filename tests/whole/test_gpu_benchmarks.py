"""The GPU benchmarks' own machinery: calls that continue, and a library thinned to one GPU generation."""

from __future__ import annotations

import struct
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import orjson
import pytest

from benchmarks.gpu import carry, parts
from benchmarks.gpu.parts import Part, Place
from instructmining.inference.devices import Device


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "choose_devices", lambda _: (Device("cpu"),))


def run(tmp_path: Path, *measures: Callable[[Place], Iterator[Mapping[str, object]]], minutes: float = 1) -> list[str]:
    made = [Part("step", measure.__name__, measure, about_s=0) for measure in measures]
    return [part.name for part in parts.run(made, out=tmp_path, models=tmp_path, minutes=minutes)]


def works(_: Place) -> Iterator[Mapping[str, object]]:
    yield {"value": 1}
    yield {"value": 2}


def fails(_: Place) -> Iterator[Mapping[str, object]]:
    yield {"value": 3}
    raise ValueError("no kernel for it")


def lasts(_: Place) -> Iterator[Mapping[str, object]]:
    yield {"value": 4}
    time.sleep(60)


def test_a_part_that_was_measured_is_skipped_and_one_that_failed_is_left(tmp_path: Path) -> None:
    assert run(tmp_path, works, fails) == ["fails"]
    first = (tmp_path / "step.works.json").read_bytes()
    assert orjson.loads(first)["value"] == 2
    failed = orjson.loads((tmp_path / "step.fails.json").read_bytes())
    assert failed == {"value": 3, "failed": "no kernel for it"}
    assert run(tmp_path, works, fails) == ["fails"]
    assert (tmp_path / "step.works.json").read_bytes() == first


def test_a_part_is_cut_when_the_minutes_are_used_up_and_keeps_what_it_measured(tmp_path: Path) -> None:
    begin = time.monotonic()
    assert run(tmp_path, lasts, works, minutes=11.5 / 60) == ["lasts", "works"]
    assert time.monotonic() - begin < 12
    found = orjson.loads((tmp_path / "step.lasts.json").read_bytes())
    assert found["value"] == 4
    assert "complete" not in found


def container(*entries: tuple[int, bytes]) -> bytes:
    made = b"".join(
        struct.pack("<HHIQ", 2, 257, 64, len(code)) + bytes(12) + struct.pack("<I", generation) + bytes(32) + code
        for generation, code in entries
    )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(made)) + made


def test_a_thinned_library_has_the_code_of_one_generation_at_the_same_addresses() -> None:
    both, other = container((80, b"a" * 16), (90, b"b" * 24)), container((120, b"c" * 8))
    library = b"\x7fELF" + struct.pack("<I", 0xBA55ED50) + bytes(24) + both + other + b"the end"
    thinned, freed = carry.thinned(library, 90)
    only = container((90, b"b" * 24))
    assert thinned == library[:32] + only + bytes(len(both) - len(only)) + other + b"the end"
    assert freed == 64 + 16


def test_what_was_packed_is_joined_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carry, "_PART_BYTES", 100)
    provider = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
    library = container((80, b"a" * 16), (90, b"b" * 24))
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as wheel:
        wheel.writestr(provider, library)
        wheel.writestr("onnxruntime/__init__.py", "version = 1")
    carry.pack(tmp_path / "wheel.whl", tmp_path / "carried", 90)
    assert len(list((tmp_path / "carried").glob("*.[0-9][0-9]"))) > 1
    carry.join(tmp_path / "carried", tmp_path / "site")
    assert (tmp_path / "site" / provider).read_bytes() == carry.thinned(library, 90)[0]
    assert (tmp_path / "site" / "onnxruntime" / "__init__.py").read_text() == "version = 1"
    (tmp_path / "carried" / "onnxruntime.tar.xz.01").unlink()
    with pytest.raises(SystemExit, match="is one missing"):
        carry.join(tmp_path / "carried", tmp_path / "site")
