from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest

from instructmining.inference.devices import Device
from instructmining_cli.machine import hardware
from instructmining_cli.machine.hardware import device_memory_bytes, device_name, peak_memory_bytes

CPU, GPU = Device("cpu"), Device("cuda", 1)


class Driver:
    """The calls of NVIDIA's driver that are made, for a machine with two devices; 0 says that a call worked."""

    def __init__(self, *, failing: str = "") -> None:
        self.failing = failing
        self.retained = 0

    def __getattr__(self, name: str) -> object:
        return lambda *arguments: 1 if name == self.failing else self._answer(name, *arguments)

    def _answer(self, name: str, *arguments: object) -> int:
        match name, arguments:
            case "cuDeviceGet", (number, int(index)):
                number._obj.value = index  # type: ignore[attr-defined]
                return int(index > 1)
            case "cuDeviceGetName", (ctypes.Array() as buffer, int(), ctypes.c_int(value=1)):
                buffer.value = b"A device of ours"
            case "cuDevicePrimaryCtxRetain", _:
                self.retained += 1
            case "cuDevicePrimaryCtxRelease_v2", _:
                self.retained -= 1
            case "cuMemGetInfo_v2", (free, total):
                free._obj.value, total._obj.value = 30, 100  # type: ignore[attr-defined]
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda _: made)
    return made


def test_the_process_has_had_at_least_what_it_just_took() -> None:
    before = peak_memory_bytes()
    assert before is not None
    held = np.ones(before // 8 + 4_000_000)
    after = peak_memory_bytes()
    assert after is not None
    assert after > held.nbytes


def test_a_cpu_has_a_name_and_no_memory_of_its_own() -> None:
    assert device_name(CPU)
    assert device_memory_bytes(CPU) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own files")
def test_where_the_system_names_no_model_the_architecture_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hardware, "Path", lambda _: tmp_path / "absent")
    assert device_name(CPU) in {hardware.platform.processor(), hardware.platform.machine()}
    assert peak_memory_bytes()  # by the other way


def test_where_the_system_does_not_tell_the_memory_taken_it_is_not_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hardware, "Path", lambda _: tmp_path / "absent")
    monkeypatch.setattr(hardware.sys, "platform", "win32")
    assert peak_memory_bytes() is None


def test_a_gpu_is_asked_for_its_name_and_memory(driver: Driver) -> None:
    assert device_name(GPU) == "A device of ours"
    assert device_memory_bytes(GPU) == 70
    assert driver.retained == 0


@pytest.mark.parametrize("call", ["cuInit", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuMemGetInfo_v2"])
def test_where_the_driver_does_not_answer_the_memory_is_not_known(driver: Driver, call: str) -> None:
    driver.failing = call
    assert device_memory_bytes(GPU) is None
    assert driver.retained == 0


def test_without_a_driver_nothing_is_known_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_DRIVER", "libno-such-driver.so")
    assert device_memory_bytes(GPU) is None
    assert device_name(GPU) == "unknown"
