"""Runs an iterator in a thread of its own, a bounded number of items ahead of its consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Condition, Event, Thread
from typing import Generic, TypeVar

from instructmining.reading.waiting import LOOK_S, called_off_by, check_wanted

Item = TypeVar("Item")


def _one(_: object) -> int:
    return 1


@contextmanager
def ahead(
    source: Iterable[Item], *, name: str, depth: int = 1, weight: Callable[[Item], int] = _one
) -> Iterator[Iterator[Item]]:
    """Run an iterator in a thread, at most ``depth`` items ahead of its consumer.

    Leaving the block stops the thread after its current item, or at once where it waits for bytes or for its own
    thread, and closes the source there.

    Args:
        source: read only in that thread; its errors are raised where the item would be read.
        name: name of the thread.
        depth: items that may wait.
        weight: how many items an item counts as.
    """
    queue = _Queue(iter(source), depth, weight)
    thread = Thread(target=queue.fill, name=f"instructmining-{name}", daemon=True)
    thread.start()
    try:
        yield queue.items()
    finally:
        queue.stop()
        thread.join()


class _Queue(Generic[Item]):
    def __init__(self, source: Iterator[Item], depth: int, weight: Callable[[Item], int]) -> None:
        self._source = source
        self._depth = depth
        self._weight = weight
        self._waiting: deque[Item] = deque()
        self._changed = Condition()
        self._stopped = Event()  # nobody reads any more
        self._ended = False  # nothing more comes
        self._error: BaseException | None = None

    def fill(self) -> None:
        """Run in the thread: read the source until it ends."""
        error: BaseException | None = None
        try:
            with called_off_by(self._stopped):
                self._fill()
        except BaseException as problem:  # whatever it is, it is raised in the consumer
            error = problem
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

    def _fill(self) -> None:
        for item in self._source:
            with self._changed:
                self._waiting.append(item)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._stopped.is_set() or self._has_room)
                if self._stopped.is_set():
                    break
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    @property
    def _has_room(self) -> bool:
        return sum(map(self._weight, self._waiting)) < self._depth

    def items(self) -> Iterator[Item]:
        while True:
            with self._changed:
                while not self._changed.wait_for(lambda: self._waiting or self._ended, LOOK_S):
                    check_wanted()
                if not self._waiting:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._waiting.popleft()
                self._changed.notify_all()
            yield item

    def stop(self) -> None:
        with self._changed:
            self._stopped.set()
            self._changed.notify_all()
