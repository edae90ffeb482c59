from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from instructmining.inference.cuda_driver import Memory
from instructmining.inference.devices import Device
from instructmining_cli.machine import hardware
from instructmining_cli.machine.hardware import device_memory_bytes, device_name, peak_memory_bytes

CPU, GPU = Device("cpu"), Device("cuda", 1)


class Driver:
    """NVIDIA's driver, for a machine whose second GPU answers."""

    def __init__(self, index: int) -> None:
        self._answers = index == 1

    def name(self) -> str | None:
        return "A GPU of ours" if self._answers else None

    def memory(self) -> Memory | None:
        return Memory(30, 100) if self._answers else None


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


def test_a_gpu_is_asked_for_its_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "CudaDriver", Driver)
    assert (device_name(GPU), device_memory_bytes(GPU)) == ("A GPU of ours", 70)
    assert (device_name(Device("cuda")), device_memory_bytes(Device("cuda"))) == ("unknown", None)
