from __future__ import annotations

from collections.abc import Sequence

import pytest

from instructmining.errors import SelectionError
from instructmining.scored.selection.conditions import Condition
from instructmining.types import SourceRow


def rows(values: Sequence[object], name: str) -> list[SourceRow]:
    return [SourceRow("x.jsonl", number, 0, b"", {name: value}) for number, value in enumerate(values, 1)]


def passed(text: str, values: Sequence[object]) -> list[bool]:
    condition = Condition.parse(text)
    found: list[bool] = condition.passes(rows(values, condition.column), condition.column).tolist()
    return found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("perplexity<=30", [True, True, False, False]),
        ("perplexity < 30", [True, False, False, False]),
        (" perplexity>=3e1", [False, True, True, False]),
        ("perplexity>30.0", [False, False, True, False]),
        ("perplexity==30", [False, True, False, False]),
        ("perplexity!=30", [True, False, True, False]),
        ("chosen.perplexity>-1", [True, True, True, False]),
    ],
)
def test_a_condition_compares_a_column_and_null_never_passes(text: str, wanted: list[bool]) -> None:
    assert passed(text, [29.5, 30, 31, None]) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("category==science", [True, False, False, False]),
        ("category != science", [False, True, True, False]),
        ('category=="open qa"', [False, True, False, False]),
        ("category==open qa", [False, True, False, False]),
        ("category=='science'", [True, False, False, False]),
        ("category==Science", [False, False, False, False]),
    ],
)
def test_text_is_compared_by_its_exact_characters(text: str, wanted: list[bool]) -> None:
    assert passed(text, ["science", "open qa", "", None]) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("zip==7", [True, True, False, False, False, False]),  # the number 7, the text "7"
        ("zip==007", [True, False, True, False, False, False]),
        ('zip=="7"', [False, True, False, False, False, False]),
        ("zip!=7", [False, False, True, True, True, False]),
        ("zip==true", [False, False, False, False, True, False]),
        ("zip!=x", [True, True, True, False, True, False]),
    ],
)
def test_in_a_field_of_several_types_each_row_is_compared_by_its_own(text: str, wanted: list[bool]) -> None:
    assert passed(text, [7, "7", "007", "x", True, None]) == wanted


@pytest.mark.parametrize("text", ["", "perplexity", "perplexity<=", "<=3", "a=3", "a<>3", "a=== 3"])
def test_what_is_no_condition_is_a_selection_error_with_the_form_wanted(text: str) -> None:
    with pytest.raises(SelectionError, match="wanted NAME OP VALUE with OP one of <, <=, >, >=, ==, !="):
        Condition.parse(text)


@pytest.mark.parametrize("text", [100_000 * " ", "a" + 100_000 * " ", "a<" + 100_000 * " " + "b", 100_000 * "a "])
def test_a_long_text_is_refused_at_once_in_a_short_message(text: str) -> None:
    with pytest.raises(SelectionError) as found:
        Condition.parse(text)
    assert len(str(found.value)) < 1000


def test_a_condition_may_hold_many_spaces() -> None:
    assert Condition.parse("  a  ==  1" + 100_000 * " " + "2  ").text == "1" + 100_000 * " " + "2"


@pytest.mark.parametrize("text", ["a<=b", "a>science", 'a<"3"', "a<inf", "a<=nan"])
def test_text_has_no_size(text: str) -> None:
    with pytest.raises(SelectionError, match=r"compares numbers, .* is none; text is compared only with == and !="):
        Condition.parse(text)


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("a<3", "b", "line 1: column 'a' is 'b', wanted a number: text is compared only with == and !="),
        ("a==b", [1], r"line 1: column 'a' is '\[1\]', wanted a number or text"),
    ],
)
def test_a_row_that_cannot_be_compared_is_named(text: str, value: object, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        passed(text, [value])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("my field >= 0.30", "my field>=0.3"),
        ("a<30.0", "a<30"),
        ("a!=-2", "a!=-2"),
        ("a== 'open qa'", "a==open qa"),
        ('a=="3"', 'a=="3"'),
        ("a==' b'", 'a==" b"'),
        ('a==""', 'a==""'),
        ("a=='\"'", 'a=="""'),
    ],
)
def test_a_condition_is_written_in_one_way(text: str, wanted: str) -> None:
    assert str(Condition.parse(text)) == wanted
    assert Condition.parse(wanted) == Condition.parse(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("id==9007199254740993", [False, True, False, False]),
        ("id!=9007199254740993", [True, False, True, True]),
        ("id>9007199254740992", [False, True, True, True]),
        (f"id=={2**70}", [False, False, True, False]),
        (f"id<{2**70 + 1}", [True, True, True, False]),
        (f"id<={10**400}", [True, True, True, True]),
        ("id>1.5", [True, True, True, True]),
    ],
)
def test_integers_that_no_float_holds_are_told_apart(text: str, wanted: list[bool]) -> None:
    assert passed(text, [2**53, 2**53 + 1, 2**70, 2**70 + 1]) == wanted
    assert str(Condition.parse(text)) == text
