from __future__ import annotations

import ctypes

import pytest

from instructmining.inference.cuda_driver import CudaDriver, Memory


class Driver:
    """The calls of NVIDIA's driver that are made, for a machine with two GPUs; 0 says that a call worked."""

    failing = ""
    retained = 0

    def __getattr__(self, name: str) -> object:
        return lambda *arguments: 1 if name == self.failing else self._answer(name, *arguments)

    def _answer(self, name: str, *arguments: object) -> int:
        match name, arguments:
            case "cuDeviceGet", (number, int(index)):
                number._obj.value = index  # type: ignore[attr-defined]
                return int(index > 1)
            case "cuDeviceGetName", (ctypes.Array() as buffer, int(), ctypes.c_int(value=1)):
                buffer.value = b"A GPU of ours"
            case "cuDeviceGetAttribute", (value, int(attribute), ctypes.c_int(value=1)):
                value._obj.value = {75: 9, 76: 0}[attribute]  # type: ignore[attr-defined]
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
    monkeypatch.setattr(ctypes, "CDLL", lambda _: made)
    return made


def test_a_gpu_has_a_name_a_generation_and_memory(driver: Driver) -> None:
    gpu = CudaDriver(1)
    assert (gpu.name(), gpu.compute_capability(), gpu.memory()) == ("A GPU of ours", "9.0", Memory(30, 100))
    assert driver.retained == 0


@pytest.mark.parametrize(
    "call", ["cuInit", "cuDeviceGetName", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain", "cuMemGetInfo_v2"]
)
def test_what_the_driver_does_not_answer_is_not_known(driver: Driver, call: str) -> None:
    driver.failing = call
    gpu = CudaDriver(1)
    assert None in {gpu.name(), gpu.compute_capability(), gpu.memory()}
    assert driver.retained == 0


def test_of_a_gpu_that_is_not_there_nothing_is_known(driver: Driver) -> None:  # noqa: ARG001 - it is asked
    gpu = CudaDriver(2)
    assert (gpu.name(), gpu.compute_capability(), gpu.memory()) == (None, None, None)


@pytest.mark.parametrize("problem", [OSError, AttributeError])
def test_without_a_driver_nothing_is_known(monkeypatch: pytest.MonkeyPatch, problem: type[Exception]) -> None:
    def load(_: str) -> None:
        raise problem

    monkeypatch.setattr(ctypes, "CDLL", load)
    gpu = CudaDriver(0)
    assert (gpu.name(), gpu.compute_capability(), gpu.memory()) == (None, None, None)
