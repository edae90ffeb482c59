from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.scored.matching import match

ROWS = st.lists(st.integers(0, 6), max_size=14)


@settings(max_examples=200, deadline=None)
@given(first=ROWS, second=ROWS)
def test_what_is_left_and_entered_is_the_difference_of_the_multisets(first: list[int], second: list[int]) -> None:
    found = match(np.array(first, dtype=np.uint64), np.array(second, dtype=np.uint64))
    left = [row for row, alone in zip(first, found.left, strict=True) if alone]
    entered = [row for row, alone in zip(second, found.entered, strict=True) if alone]
    assert Counter(left) == Counter(first) - Counter(second)
    assert Counter(entered) == Counter(second) - Counter(first)


@settings(max_examples=200, deadline=None)
@given(first=ROWS, second=ROWS)
def test_a_partner_is_an_equal_row_and_the_kth_copy_has_the_kth(first: list[int], second: list[int]) -> None:
    found = match(np.array(first, dtype=np.uint64), np.array(second, dtype=np.uint64))
    for rows, others, partners in (
        (first, second, found.second_of_first),
        (second, first, found.first_of_second),
    ):
        for place, (row, partner) in enumerate(zip(rows, partners.tolist(), strict=True)):
            equal = [other for other, value in enumerate(others) if value == row]
            number = rows[:place].count(row)
            assert partner == (equal[min(number, len(equal) - 1)] if equal else -1)
