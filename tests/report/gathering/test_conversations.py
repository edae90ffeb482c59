from __future__ import annotations

from instructmining.types import Example, Turn
from instructmining_report.gathering.conversations import conversation


def test_a_conversation_keeps_its_turns_in_order() -> None:
    turns = (Turn("system", "s"), Turn("user", "u"), Turn("assistant", "a"), Turn("tool", "t"), Turn("assistant", "b"))
    found = conversation(Example(turns), {}, most_chars=1000)
    assert [(part.label, part.text, part.hidden) for part in found.turns] == [
        ("system", "s", 0),
        ("user", "u", 0),
        ("assistant", "a", 0),
        ("tool", "t", 0),
        ("assistant", "b", 0),
    ]


def test_long_texts_are_cut_and_short_ones_beside_them_are_not() -> None:
    found = conversation(Example.of("short", "x" * 1_000_000), {}, most_chars=1000)
    assert (found.turns[0].text, found.turns[0].hidden) == ("short", 0)
    assert (len(found.turns[1].text), found.turns[1].hidden) == (995, 999_005)


def test_of_a_pair_what_both_sides_have_in_common_stands_once() -> None:
    found = conversation(Example.pair("p", "good", "bad"), {}, most_chars=1000)
    assert [part.text for part in found.turns] == ["p"]
    assert [part.text for part in found.chosen] == ["good"]
    assert [part.text for part in found.rejected] == ["bad"]


def test_of_a_very_long_conversation_the_beginning_and_the_end_are_shown() -> None:
    turns = tuple(Turn("user" if place % 2 else "assistant", str(place)) for place in range(1000))
    found = conversation(Example(turns), {}, most_chars=10_000)
    assert len(found.turns) + found.hidden_turns == 1000
    assert (found.turns[0].text, found.turns[-1].text) == ("0", "999")


def test_a_row_in_no_format_is_shown_by_its_fields() -> None:
    found = conversation(
        None, {"a": "text", "b": [1, {"c": None}], **{f"f{place}": 1 for place in range(40)}}, most_chars=900
    )
    assert [(part.label, part.text) for part in found.turns][:2] == [("a", "text"), ("b", '[1,{"c":null}]')]
    assert found.hidden_turns == 22
    assert found.why_fields is not None
