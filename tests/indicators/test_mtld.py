from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lexicalrichness import LexicalRichness

import instructmining.indicators.mtld as mtld_module
from instructmining.indicators import INDICATORS, RowIndicator
from instructmining.indicators.base import Measurements
from instructmining.indicators.mtld import mtld
from instructmining.types import Example, Turn

TEXTS = [
    "The cat sat on the mat. The dog sat on the log. The cat saw the dog, and the dog saw the cat.",
    "one two three four five six seven eight nine ten",
    "again and again and again and again and again",
    "a a",
    "word",
    "Don't — well-known co-operation \u2013 it's 3 times 42, e.g. 10% (or more)!",
    "MIXED case Mixed CASE mixed case",
    "Ünïcödé façade naïve 漢字 漢字 Ünïcödé ÜNÏCÖDÉ",
    "x1 x2 x3 x 1 2 3",
    "Line one\nline two\tline three\r\nline four",
    " ".join(f"w{chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(200)),
    " ".join(["to be or not to be that is the question"] * 20),
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_the_value_is_that_of_the_reference_implementation(text: str) -> None:
    assert mtld(text) == pytest.approx(LexicalRichness(text).mtld(), abs=1e-9)


def test_distinct_words_count_as_one_factor() -> None:
    assert mtld("one two three four five") == 5.0


def test_a_factor_ends_where_the_share_of_distinct_words_falls_to_the_threshold() -> None:
    # forward: "a a" has 1/2 <= 0.72, one factor; then "b" alone leaves no remainder: 3 words / 1.
    # backward: "b a a" has 2/3 <= 0.72 at its third word, one factor: 3 words / 1.
    assert mtld("a a b") == 3.0


def test_the_remainder_counts_in_part() -> None:
    # both ways: four distinct words, then a repeated one; 4/5 > 0.72, so (1 - 0.8) / (1 - 0.72) of a factor
    assert mtld("a b c d a") == pytest.approx(5 / ((1 - 4 / 5) / (1 - 0.72)), abs=1e-12)


def test_case_digits_dashes_and_punctuation_make_no_new_words() -> None:
    assert mtld("Well-known, WELLKNOWN; wellknown7") == mtld("wellknown wellknown wellknown")


@pytest.mark.parametrize("text", ["", " \n\t", "123 456", "?!... -- —"])
def test_a_text_without_a_word_has_no_value(text: str) -> None:
    assert math.isnan(mtld(text))


@settings(max_examples=100, deadline=None)
@given(
    words=st.lists(st.sampled_from(["a", "B", "b", "the", "The", "x-y", "3", "4z", "don't", "é", "漢", "\u2013", "?"])),
    between=st.sampled_from([" ", "\n", ", ", "—"]),
)
def test_any_words_give_the_value_of_the_reference_implementation(words: list[str], between: str) -> None:
    text = between.join(words)
    reference = LexicalRichness(text)
    if reference.words:
        assert mtld(text) == pytest.approx(reference.mtld(), abs=1e-9)
    else:
        assert math.isnan(mtld(text))


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_gives_the_value_of_the_reference_implementation(text: str) -> None:
    reference = LexicalRichness(text)
    if reference.words:
        assert mtld(text) == pytest.approx(reference.mtld(), abs=1e-9)
    else:
        assert math.isnan(mtld(text))


def test_the_column_reads_the_responses_joined_by_newlines_and_notes_those_without_words() -> None:
    several = Example((Turn("user", "q q q q"), Turn("assistant", "a a"), Turn("user", "r"), Turn("assistant", "b")))
    indicator = INDICATORS["mtld"]
    assert isinstance(indicator, RowIndicator)
    column = indicator.compute(Measurements([several, Example.of("Count.", "1 2 3"), Example.of("x", "one two")]))
    assert column.values[0] == 3.0
    assert math.isnan(column.values[1])
    assert column.values[2] == 2.0
    assert column.notes == {1: "the response has no word"}


def test_a_long_text_has_the_value_that_its_words_have(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    words = rng.choice(["Cat", "dog", "3", "ΟΔΟΣ"], 900)
    text = " ".join(f"{word}{'.,-!'[number % 4]}" for number, word in enumerate(words))
    whole = mtld(text)
    monkeypatch.setattr(mtld_module, "_LONG", 100)
    monkeypatch.setattr(mtld_module, "_PART", 30)
    assert mtld(text) == whole
