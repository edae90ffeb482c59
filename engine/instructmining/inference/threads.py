"""Stages beside each other: an iterator that runs ahead of its consumer in a thread of its own, a bounded way."""

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
    """Run an iterator in a thread, at most ``depth`` items ahead of who takes them.

    Leaving the block stops the thread once its item is done, or at once where it waits for bytes or for a thread of its
    own, and closes the source there.

    Args:
        source: taken in the thread alone; what it raises is raised where the item is taken.
        name: of the thread.
        depth: items that may wait.
        weight: as how many of them an item counts.
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
        self._stopped = Event()  # nobody takes any more
        self._ended = False  # nothing more comes
        self._error: BaseException | None = None

    def fill(self) -> None:
        """The thread's work."""
        error: BaseException | None = None
        try:
            with called_off_by(self._stopped):
                self._fill()
        except BaseException as problem:  # whatever it is, it belongs to who takes the items
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
