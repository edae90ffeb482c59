"""What the machine says of itself: names of its processors, and the memory that was taken."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

from instructmining.inference.devices import Device

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 256


def device_name(device: Device) -> str:
    """The model of the CPU or the GPU, as it names itself; its architecture where that is not told."""
    if device.kind == "cuda":
        return _Cuda.open(device.index).name() or "unknown"
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_bytes() -> int | None:
    """Most memory that this process has had in RAM so far; None where the system does not tell."""
    for line in _lines(Path("/proc/self/status")):
        # Not getrusage: its figure starts from the memory of whatever program started this one.
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_memory_bytes(device: Device) -> int | None:
    """Memory of a GPU in use now, by all programs; None on a CPU, and where the driver does not tell.

    onnxruntime keeps what it has taken until its sessions are closed, so after a run this holds the run's peak.
    """
    return _Cuda.open(device.index).memory_in_use() if device.kind == "cuda" else None


class _Cuda:
    """One GPU by the driver's own interface, which needs no library beside the driver."""

    def __init__(self, driver: ctypes.CDLL | None, index: int) -> None:
        self._driver = driver
        self._number = ctypes.c_int()
        if driver is not None and (driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(self._number), index)):
            self._driver = None

    @classmethod
    def open(cls, index: int) -> _Cuda:
        try:
            return cls(ctypes.CDLL(_DRIVER), index)
        except OSError:
            return cls(None, index)

    def name(self) -> str | None:
        name = ctypes.create_string_buffer(_NAME_BYTES)
        if self._driver is None or self._driver.cuDeviceGetName(name, _NAME_BYTES, self._number):
            return None
        return name.value.decode(errors="replace")

    def memory_in_use(self) -> int | None:
        driver, context = self._driver, ctypes.c_void_p()
        if driver is None or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), self._number):
            return None
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        failed = driver.cuCtxPushCurrent_v2(context)
        if not failed:
            failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
            driver.cuCtxPopCurrent_v2(ctypes.byref(context))
        driver.cuDevicePrimaryCtxRelease_v2(self._number)
        return None if failed else total.value - free.value


def _lines(file: Path) -> list[str]:
    """Of a file of the system; none where there is no such file."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
