"""Waits that a thread can be called out of: for bytes that do not come, for what another thread makes."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LOOK_S: Final = 0.05  # how often a thread that waits looks whether it is still wanted
_mine = threading.local()


class CalledOff(BaseException):
    """Nobody takes what this thread makes. No Exception: nothing but the thread's end may catch it."""


@contextmanager
def called_off_by(event: threading.Event) -> Iterator[None]:
    """Within, waits in this thread end with :class:`CalledOff` once the event is set."""
    _mine.event = event
    try:
        yield
    finally:
        del _mine.event


def check_wanted() -> None:
    """Raises CalledOff where this thread was called off."""
    event: threading.Event | None = getattr(_mine, "event", None)
    if event is not None and event.is_set():
        raise CalledOff


def wait_for_bytes(file: int) -> None:
    """Wait until a pipe or a terminal can be read without waiting; no time at all for files of a disk.

    Where the system cannot tell, as on Windows, returns at once.

    Args:
        file: its descriptor.

    Raises:
        CalledOff: the thread was called off meanwhile.
    """
    check_wanted()
    if not hasattr(select, "poll"):
        return
    waiting = select.poll()
    waiting.register(file, select.POLLIN)
    while not waiting.poll(LOOK_S * 1000):
        check_wanted()
