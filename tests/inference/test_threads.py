"""Iterators that run ahead in a thread: order, bounds, errors, and an end without leftovers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from instructmining.inference.threads import ahead


def test_items_come_in_order_from_another_thread(new_threads: Callable[[], list[str]]) -> None:
    def numbers() -> Iterator[tuple[int, str]]:
        for number in range(100):
            yield number, threading.current_thread().name

    with ahead(numbers(), name="numbers") as items:
        assert list(items) == [(number, "instructmining-numbers") for number in range(100)]
    assert not new_threads()


def test_a_heavy_item_is_taken_before_the_next_is_made() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    with ahead(numbers(), name="numbers", depth=4, weight=lambda number: 4 if number >= 10 else 1) as items:
        for number in items:
            if number >= 10:
                assert made[-1] <= number + 2
    assert made == list(range(20))


@pytest.mark.parametrize("depth", [1, 3])
def test_the_source_is_never_further_ahead_than_asked(depth: int) -> None:
    made, taken = 0, 0
    furthest = 0

    def numbers() -> Iterator[int]:
        nonlocal made, furthest
        for number in range(50):
            made += 1
            furthest = max(furthest, made - taken)
            yield number

    with ahead(numbers(), name="numbers", depth=depth) as items:
        for _ in items:
            taken += 1
    assert made == 50
    # One is in the hands of who takes, one is being made.
    assert furthest <= depth + 1


def test_the_source_runs_while_the_taker_is_at_work() -> None:
    second_made = threading.Event()

    def numbers() -> Iterator[int]:
        yield 1
        second_made.set()
        yield 2

    with ahead(numbers(), name="numbers") as items:
        assert next(items) == 1
        assert second_made.wait(10)
        assert list(items) == [2]


def test_an_error_is_raised_behind_the_items_before_it(new_threads: Callable[[], list[str]]) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("no second")

    with ahead(numbers(), name="numbers") as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="no second"):
            next(items)
    assert not new_threads()


def test_leaving_early_stops_the_thread_and_closes_the_source_in_it(new_threads: Callable[[], list[str]]) -> None:
    closed_in: list[str] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed_in.append(threading.current_thread().name)

    with ahead(endless(), name="endless") as items:
        next(items)
    assert closed_in == ["instructmining-endless"]
    assert not new_threads()


def test_one_may_run_ahead_of_another(new_threads: Callable[[], list[str]]) -> None:
    def doubled() -> Iterator[int]:
        with ahead(iter(range(20)), name="inner") as inner:
            for item in inner:
                yield 2 * item

    with ahead(doubled(), name="outer") as items:
        assert [next(items) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert not new_threads()


def test_an_empty_source_ends_at_once() -> None:
    with ahead(iter(()), name="nothing") as items:
        assert list(items) == []
