"""Waits that a thread can be called out of: for bytes that do not arrive, or for another thread's result."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LOOK_S: Final = 0.05  # how often a waiting thread checks whether it is still wanted
_mine = threading.local()


class CalledOff(BaseException):
    """Nobody reads what this thread makes. Not an Exception: only the end of the thread may catch it."""


@contextmanager
def called_off_by(event: threading.Event) -> Iterator[None]:
    """Within the block, waits in this thread end with :class:`CalledOff` once the event is set."""
    _mine.event = event
    try:
        yield
    finally:
        del _mine.event


def check_wanted() -> None:
    """Raise CalledOff where this thread was called off."""
    event: threading.Event | None = getattr(_mine, "event", None)
    if event is not None and event.is_set():
        raise CalledOff


def wait_for_bytes(file: int) -> None:
    """Wait until a pipe or a terminal has bytes; returns at once for files on disk.

    Also returns at once where the system cannot tell, as on Windows.

    Args:
        file: file descriptor.

    Raises:
        CalledOff: the thread was called off while it waited.
    """
    check_wanted()
    if not hasattr(select, "poll"):
        return
    waiting = select.poll()
    waiting.register(file, select.POLLIN)
    while not waiting.poll(LOOK_S * 1000):
        check_wanted()
