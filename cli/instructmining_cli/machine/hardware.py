"""Names of processors and memory in use, as the system and the driver report them."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

from instructmining.inference.devices import Device

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 256


def device_name(device: Device) -> str:
    """Return the model name of the CPU or GPU; the architecture of a CPU without one."""
    if device.kind == "cuda":
        return _Cuda.open(device.index).name() or "unknown"
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_bytes() -> int | None:
    """Return the peak memory of this process in RAM so far; None if the system does not report it."""
    for line in _lines(Path("/proc/self/status")):
        # Not getrusage: its figure starts from the memory of the program that started this one.
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_memory_bytes(device: Device) -> int | None:
    """Return the memory of a GPU in use by all programs; None for a CPU, or if the driver does not report it.

    onnxruntime keeps its memory until its sessions are closed, so after a run this includes the run's peak.
    """
    return _Cuda.open(device.index).memory_in_use() if device.kind == "cuda" else None


class _Cuda:
    """One GPU, through the driver's own interface, which needs no other library."""

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
    """Return the lines of a system file; empty if it does not exist."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
