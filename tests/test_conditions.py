from __future__ import annotations

import math

import numpy as np
import pytest

from instructmining.errors import SelectionError
from instructmining.selection.conditions import Condition


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("perplexity<=30", [True, True, False, False]),
        ("perplexity < 30", [True, False, False, False]),
        (" perplexity>=3e1", [False, True, True, False]),
        ("perplexity>30.0", [False, False, True, False]),
        ("perplexity==30", [False, True, False, False]),
        ("perplexity!=30", [True, False, True, False]),
        ("perplexity>-1", [True, True, True, False]),
    ],
)
def test_a_condition_compares_a_column_and_null_never_passes(text: str, wanted: list[bool]) -> None:
    condition = Condition.parse(text)
    assert condition.column == "perplexity"
    assert condition.passes(np.array([29.5, 30, 31, math.nan])).tolist() == wanted


@pytest.mark.parametrize("text", ["", "perplexity", "perplexity<=", "<=3", "a=3", "a<=b", "a<>3", "a<=nan", "a<inf"])
def test_what_is_no_condition_is_a_selection_error_with_the_form_wanted(text: str) -> None:
    with pytest.raises(SelectionError, match="wanted NAME OP NUMBER with OP one of <, <=, >, >=, ==, !="):
        Condition.parse(text)


@pytest.mark.parametrize(
    ("text", "wanted"), [("my field >= 0.30", "my field>=0.3"), ("a<30.0", "a<30"), ("a!=-2", "a!=-2")]
)
def test_a_condition_is_written_in_one_way(text: str, wanted: str) -> None:
    assert str(Condition.parse(text)) == wanted
    assert Condition.parse(wanted) == Condition.parse(text)
