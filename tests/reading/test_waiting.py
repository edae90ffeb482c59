"""Threads that wait for bytes are called off."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from instructmining.inference.threads import ahead
from instructmining.reading.waiting import wait_for_bytes


@pytest.mark.skipif(os.name != "posix", reason="pipes that can be waited for")
@pytest.mark.timeout(20)
def test_leaving_ends_threads_that_wait_for_bytes_and_those_that_wait_for_them(
    new_threads: Callable[[], list[str]],
) -> None:
    reader, writer = os.pipe()

    def read() -> Iterator[int]:
        yield 1
        wait_for_bytes(reader)
        yield 2

    def doubled() -> Iterator[int]:
        with ahead(read(), name="inner") as inner:
            for item in inner:
                yield 2 * item

    with ahead(doubled(), name="outer") as items:
        assert next(items) == 2
    assert not new_threads()
    os.close(writer)
    os.close(reader)


@pytest.mark.skipif(os.name != "posix", reason="pipes that can be waited for")
def test_bytes_that_are_there_and_the_end_are_not_waited_for() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x")
    wait_for_bytes(reader)
    os.read(reader, 1)
    os.close(writer)
    wait_for_bytes(reader)
    os.close(reader)
