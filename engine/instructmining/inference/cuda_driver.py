"""What NVIDIA's driver says of a GPU, through its own interface, which needs no other library."""

from __future__ import annotations

import ctypes
import sys
from typing import NamedTuple

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 256
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


class Memory(NamedTuple):
    """Memory of a GPU, in bytes."""

    free: int
    total: int


class CudaDriver:
    """The driver's view of one GPU; it answers None where it is missing or fails."""

    def __init__(self, index: int) -> None:
        """Load the driver and find the GPU with this number."""
        self._number = ctypes.c_int()
        try:
            self._driver: ctypes.CDLL | None = ctypes.CDLL(DRIVER)
            if self._driver.cuInit(0) or self._driver.cuDeviceGet(ctypes.byref(self._number), index):
                self._driver = None
        except (OSError, AttributeError):  # no driver, or none that knows devices
            self._driver = None

    def name(self) -> str | None:
        """Return the model's name."""
        name = ctypes.create_string_buffer(_NAME_BYTES)
        if self._driver is None or self._driver.cuDeviceGetName(name, _NAME_BYTES, self._number):
            return None
        return name.value.decode(errors="replace")

    def compute_capability(self) -> str | None:
        """Return the generation, such as "9.0" for Hopper."""
        parts = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int()
            driver = self._driver
            if driver is None or driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, self._number):
                return None
            parts.append(value.value)
        return "{}.{}".format(*parts)

    def memory(self) -> Memory | None:
        """Return the memory that no program uses, and all."""
        driver, context = self._driver, ctypes.c_void_p()
        if driver is None or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), self._number):
            return None
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        failed = driver.cuCtxPushCurrent_v2(context)
        if not failed:
            failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
            driver.cuCtxPopCurrent_v2(ctypes.byref(context))
        driver.cuDevicePrimaryCtxRelease_v2(self._number)
        return None if failed else Memory(free.value, total.value)
