"""Names of processors and memory in use, as the system and the driver report them."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from instructmining.inference.cuda_driver import CudaDriver
from instructmining.inference.devices import Device


def device_name(device: Device) -> str:
    """Return the model name of the CPU or GPU; the architecture of a CPU without one."""
    if device.kind == "cuda":
        return CudaDriver(device.index).name() or "unknown"
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
    memory = CudaDriver(device.index).memory() if device.kind == "cuda" else None
    return None if memory is None else memory.total - memory.free


def _lines(file: Path) -> list[str]:
    """Return the lines of a system file; empty if it does not exist."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
