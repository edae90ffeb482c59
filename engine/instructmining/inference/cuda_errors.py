"""Explains what CUDA and onnxruntime say where a GPU does not work: what is missing, and what to do."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

import onnxruntime as ort

from instructmining.inference.cuda_driver import DRIVER, CudaDriver

_INSTALL = "pip install 'instructmining[cuda]'"
# "CUDA failure 100: no CUDA-capable device is detected", without the C++ types before it and the host after it.
_FAILURE = re.compile(r"(?:CUDA|CUBLAS|CUDNN) failure \d+: .*?(?= ;|$)")
_NO_CODE = re.compile(r"no kernel image|invalid device function|unsupported toolchain|PTX .*unsupported", re.IGNORECASE)
_NO_LIBRARY = re.compile(r"cannot open shared object|cannot load|dlopen failed|cuDNN is unavailable", re.IGNORECASE)
_OLD_DRIVER = re.compile(r"driver version is insufficient|system not yet initialized|forward compatib", re.IGNORECASE)


def explained(error: Exception, index: int) -> str:
    """Return one line: what was said, and what to do about it where that is known.

    Args:
        error: what onnxruntime raised.
        index: number of the GPU.
    """
    said = (str(error).strip() or type(error).__name__).splitlines()[-1]
    failure = _FAILURE.search(said)
    said = failure.group() if failure is not None else said
    if _NO_CODE.search(said):
        driver = CudaDriver(index)
        return (
            f"{said}: onnxruntime {ort.__version__} has no code for this GPU ({driver.name() or 'unknown'}, compute "
            f"capability {driver.compute_capability() or 'unknown'}); install a version of onnxruntime-gpu that has, "
            "or give --device cpu"
        )
    if _NO_LIBRARY.search(said):
        return f"{said}; {_INSTALL}"
    if _OLD_DRIVER.search(said):
        return f"{said}; install a newer NVIDIA driver"
    return said


def missing_driver() -> str | None:
    """Return that there is no NVIDIA driver, without which no session need be tried; None if there is one."""
    return None if _loading(DRIVER) is None else f"cannot load {DRIVER}; install the NVIDIA driver"


def why_not_opened() -> str:
    """Return why onnxruntime could not load its CUDA provider; it opens sessions on the CPU then, without an error.

    Only for use after a session did: the provider must not be loaded before onnxruntime itself loads it.
    """
    form = "lib{}.so" if os.name == "posix" else "{}.dll"
    for library in ("onnxruntime_providers_shared", "onnxruntime_providers_cuda"):
        problem = _loading(str(Path(ort.__file__).parent / "capi" / form.format(library)))
        if problem is not None:
            return f"{problem}; {_INSTALL}"
    return "onnxruntime opened the session on the CPU instead; see its messages above"


def _loading(library: str) -> str | None:
    """Return the loader's error, which names the library that is missing; None if it loads."""
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    return None
