"""Makes the C library return large blocks of memory to the system when they are freed."""

from __future__ import annotations

import ctypes
import os
import sys

_BLOCK = 4 << 20  # bytes; blocks of this size are mapped separately
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h


def return_large_blocks() -> None:
    """Make glibc map blocks of 4 MiB and more separately.

    By default it raises that threshold up to 32 MiB as such blocks are freed, and texts of megabytes then fragment its
    heaps. ``MALLOC_MMAP_THRESHOLD_``, if set, takes precedence.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries lack it
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _BLOCK)
        set_option(_TRIM_THRESHOLD, 2 * _BLOCK)
