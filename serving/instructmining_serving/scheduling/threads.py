"""Threads for what a request needs before and after its batches: small requests first."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from threading import Lock
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_DELAY_S = 1e-5  # by which a task is served later, for each byte: tokenizing takes about a tenth of it
LARGEST = 1_000_000  # bytes; larger tasks count as this large, so that none is passed for ever


@dataclass(slots=True, order=True)
class _Task:
    due: float  # seconds, monotonic
    number: int
    call: Callable[[], Any] | None = field(compare=False)
    future: Future[Any] = field(compare=False)


class SmallFirst:
    """A few threads that take the task that arrived first, where a large one counts as arrived later."""

    def __init__(self, threads: int, name: str) -> None:
        """Start no thread yet.

        Args:
            threads: most of them.
            name: begins theirs.
        """
        self._pool = ThreadPoolExecutor(threads, name)
        self._waiting: list[_Task] = []
        self._numbers = count()
        self._changing = Lock()

    def submit(self, call: Callable[[], _Result], size: int) -> Future[_Result]:
        """Run a task in a thread.

        Args:
            call: the task.
            size: bytes that it reads, about.
        """
        future: Future[_Result] = Future()
        due = time.monotonic() + min(size, LARGEST) * _DELAY_S
        task = _Task(due, next(self._numbers), call, future)
        future.add_done_callback(lambda _: setattr(task, "call", None))  # a cancelled one holds no rows
        with self._changing:
            heappush(self._waiting, task)
        self._pool.submit(self._run_next)
        return future

    def shutdown(self) -> None:
        """Run what waits, and end the threads."""
        self._pool.shutdown()

    def _run_next(self) -> None:
        with self._changing:
            task = heappop(self._waiting)
        call = task.call
        if call is None or not task.future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:  # whatever it is, who waits gets it
            task.future.set_exception(error)
        else:
            task.future.set_result(result)
