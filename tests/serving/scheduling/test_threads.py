from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from threading import Event

import pytest

from instructmining_serving.scheduling.threads import SmallFirst


class Rows(list[int]):
    """A list that can be referred to weakly."""


@pytest.fixture
def threads() -> Iterator[SmallFirst]:
    made = SmallFirst(1, "test")
    yield made
    made.shutdown()


@pytest.fixture
def hold(threads: SmallFirst) -> Iterator[Callable[[], None]]:
    """Occupies the one thread until it is called."""
    began, let = Event(), Event()

    def wait() -> None:
        began.set()
        assert let.wait(10)

    threads.submit(wait, 0)
    assert began.wait(10)
    yield let.set
    let.set()


def test_small_tasks_go_before_large_ones_that_wait(threads: SmallFirst, hold: Callable[[], None]) -> None:
    order: list[int] = []
    futures = [threads.submit(lambda size=size: order.append(size), size) for size in (10**6, 10**7, 10, 10**5)]  # type: ignore[misc]
    hold()
    for future in futures:
        future.result(10)
    assert order == [10, 10**5, 10**6, 10**7]


def test_a_task_returns_its_result_or_raises_its_error(threads: SmallFirst) -> None:
    assert threads.submit(lambda: 5, 0).result(10) == 5
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0, 0).result(10)
    assert threads.submit(lambda: 6, 0).result(10) == 6


def test_a_cancelled_task_does_not_run_and_holds_nothing(threads: SmallFirst, hold: Callable[[], None]) -> None:
    rows = Rows([1])
    seen = weakref.ref(rows)
    future = threads.submit(rows.copy, 10**6)
    del rows
    assert future.cancel()
    gc.collect()
    assert seen() is None
    hold()
    assert threads.submit(lambda: 5, 0).result(10) == 5
