"""Values of fields to turns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining import Turn
from instructmining.errors import RowError
from instructmining.reading.conversations import TurnKeys, Unread, history, holds_text, transcript, turn_list

KEYS = TurnKeys()


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        ("a", True),
        (" \n\t", False),
        ("", False),
        (3, False),
        (None, False),
        (True, False),
        ([], False),
        ([[["a"]]], True),
        ({"a": {"b": [None, 3, {"c": " "}]}}, False),
        ({"a": {"b": [None, 3, {"c": "d"}]}}, True),
    ],
)
def test_text_is_found_however_deep(value: object, holds: bool) -> None:
    assert holds_text(value) is holds


def test_text_is_found_deeper_than_functions_may_call_each_other() -> None:
    value: object = "a"
    for _ in range(5000):
        value = [value]
    assert holds_text(value)


def test_the_roles_of_turns_are_known_in_any_case() -> None:
    turns = turn_list([{"role": "User", "content": "a"}, {"role": "GPT", "content": "b"}], "messages", KEYS, Unread())
    assert turns == [Turn("user", "a"), Turn("assistant", "b")]


def test_texts_in_turn_begin_with_the_user() -> None:
    assert turn_list(["a", "b", "c"], "data", KEYS, Unread()) == [
        Turn("user", "a"),
        Turn("assistant", "b"),
        Turn("user", "c"),
    ]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no list", "field 'f' is text, wanted a list"),
        ("[1", "field 'f' is text, wanted a list"),
        ({"role": "user"}, "field 'f' is an object, wanted a list"),
        (["a", 3], r"'f'\[1\] is a number, wanted text"),
        ([{"input": "a"}], r"'f'\[0\] has no field 'output'"),
        ([{"input": "a", "output": 3}], r"'f'\[0\] holds a number in 'output', wanted text"),
        ([{"role": ["user"], "content": "a"}], r"'f'\[0\] has the unknown role \['user'\]"),
        ([{"role": "user", "content": [{"type": "image", "text": "a"}]}], r"'f'\[0\] holds a part that is not text"),
    ],
)
def test_what_is_no_list_of_turns_says_why(value: object, problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        turn_list(value, "f", KEYS, Unread())


def test_history_is_pairs_or_turns() -> None:
    assert history([["a", "b"]], "history", KEYS, Unread()) == [Turn("user", "a"), Turn("assistant", "b")]
    assert history([{"role": "user", "content": "a"}], "history", KEYS, Unread()) == [Turn("user", "a")]
    with pytest.raises(RowError, match="is not a pair of texts"):
        history([["a"]], "history", KEYS, Unread())


SPEAKERS = {"user": "Human", "assistant": "Assistant"}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab .\n", max_size=8), min_size=2, max_size=5))
def test_a_transcript_gives_back_what_was_said(texts: list[str]) -> None:
    turns = [Turn(("user", "assistant")[number % 2], text) for number, text in enumerate(texts)]  # type: ignore[arg-type]
    said = "".join(f"\n\n{SPEAKERS[turn.role]}: {turn.text}" for turn in turns)
    assert transcript(said) == turns


@pytest.mark.parametrize("text", ["a", "Human: alone", "He said:\n\nHuman: a\n\nAssistant: b", "### Human: a"])
def test_a_text_that_does_not_open_with_a_speaker_is_no_transcript(text: str) -> None:
    assert transcript(text) is None
