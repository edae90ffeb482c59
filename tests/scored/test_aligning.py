from __future__ import annotations

import pytest

from instructmining.scored.aligning import aligned, shortened, wrapped

ROWS = [["", "first", "second", "third"], ["a", "1", "22", "333"], ["bb", "4", "5", "6"]]


def test_without_a_width_all_columns_stand_in_one_block() -> None:
    assert aligned(ROWS).splitlines() == [
        "    first  second  third",
        "a       1      22    333",
        "bb      4       5      6",
    ]


def test_columns_that_do_not_fit_stand_below_with_the_first_column_again() -> None:
    blocks = [block.splitlines() for block in aligned(ROWS, 18).split("\n\n")]
    assert blocks == [
        ["    first  second", "a       1      22", "bb      4       5"],
        ["    third", "a     333", "bb      6"],
    ]


def test_a_width_that_takes_no_column_has_one_a_block() -> None:
    assert len(aligned(ROWS, 1).split("\n\n")) == 3


def test_a_line_is_broken_between_words_alone() -> None:
    assert wrapped("one two three", 9) == "one two\n  three"
    assert wrapped("a-word-that-is-longer and more", 9) == "a-word-that-is-longer\n  and\n  more"
    assert wrapped("one two three") == "one two three"


@pytest.mark.parametrize(
    ("names", "most", "wanted"),
    [
        (["a/long/one.jsonl", "b.jsonl"], 10, ["…one.jsonl", "b.jsonl"]),
        (["a/long/one.jsonl", "b/long/one.jsonl"], 12, ["1: …ne.jsonl", "2: …ne.jsonl"]),
        (["a/long/one.jsonl"], None, ["a/long/one.jsonl"]),
        ([], 12, []),
    ],
)
def test_names_keep_their_ends_and_are_told_apart(names: list[str], most: int | None, wanted: list[str]) -> None:
    assert shortened(names, most) == wanted
