from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructmining_serving.http.lines import Line, lines_of


async def _async(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def divided(parts: Iterable[bytes], max_bytes: int = 100) -> list[list[Line]]:
    async def groups() -> list[list[Line]]:
        return [group async for group in lines_of(_async(parts), max_bytes)]

    return asyncio.run(groups())


@given(
    text=st.lists(st.sampled_from(b"ab \n\r"), max_size=60).map(bytes), cuts=st.lists(st.integers(0, 60), max_size=8)
)
def test_lines_are_those_of_the_text_wherever_it_is_divided(text: bytes, cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(text)]
    parts = [text[begin:end] for begin, end in pairwise(ends)]
    found = [(line.number, (line.content or b"").strip()) for group in divided(parts) for line in group]
    assert found == [(number, line.strip()) for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]


@pytest.mark.parametrize("parts", [[b"a\n", b"b" * 60, b"b" * 60, b"\nc"], [b"a\n" + b"b" * 120 + b"\nc"]])
def test_a_line_that_is_too_long_is_known_by_its_number_alone(parts: list[bytes]) -> None:
    assert [line for group in divided(parts) for line in group] == [Line(1, b"a"), Line(2, None), Line(3, b"c")]


def test_lines_come_in_groups_of_what_is_there() -> None:
    assert [len(group) for group in divided([b"a\nb\n", b"c", b"\n", b"d\n" * 100, b"e"])] == [2, 1, 64, 36, 1]


def test_memory_does_not_grow_with_the_text() -> None:
    async def count(parts: Iterable[bytes]) -> int:
        return sum([len(group) async for group in lines_of(_async(parts), 1000)])

    tracemalloc.start()
    try:
        assert asyncio.run(count(b"ab\n" * 20_000 for _ in range(5))) == 100_000
        assert asyncio.run(count(b"a" * 100_000 for _ in range(100))) == 1
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
