"""The C library's memory: large blocks go back to the system when they are let go."""

from __future__ import annotations

import ctypes
import os
import sys

_BLOCK = 4 << 20  # bytes of a block that is mapped by itself
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def return_large_blocks() -> None:
    """Let glibc map blocks of 4 MiB and more by themselves, whatever was freed before.

    By default it raises that size up to 32 MiB with each such block that is freed, and texts of megabytes then leave
    holes in its heaps. What the user set in ``MALLOC_MMAP_THRESHOLD_`` holds.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _BLOCK)
        set_option(_TRIM_THRESHOLD, 2 * _BLOCK)
