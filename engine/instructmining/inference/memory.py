"""Returns memory that the process has freed to the system."""

from __future__ import annotations

import ctypes
import sys


def trim() -> None:
    """Return the free pages of glibc's heaps; other C libraries return them by themselves, or not at all."""
    if sys.platform == "linux" and (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        malloc_trim(0)
