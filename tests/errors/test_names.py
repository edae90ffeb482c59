from __future__ import annotations

import pytest

from instructmining.errors.names import no_such


@pytest.mark.parametrize(
    ("name", "there", "message"),
    [
        ("perplexty", ["mtld", "perplexity"], "; did you mean 'perplexity'? There are: mtld, perplexity"),
        ("Reward", ["reward"], "; did you mean 'reward'? There are: reward"),
        (
            "chosen.rewrad",
            ["chosen.reward", "rejected.reward"],
            "; did you mean 'chosen.reward'? There are: chosen.reward, rejected.reward",
        ),
        ("sauce", ["mtld"], ". There are: mtld"),
        ("a", [], "; there are none"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_the_nearest_and_all_that_are(
    name: str, there: list[str], message: str
) -> None:
    assert no_such("column", name, there) == f"no column {name!r}{message}"


def test_of_many_names_some_are_listed_and_the_rest_counted() -> None:
    said = no_such("field", "x", (f"field_{number:03}" for number in range(100)))
    assert said.endswith("field_039 and 60 more")


def test_several_names_are_told_together() -> None:
    said = no_such("indicator", ["perplexty", "wit"], ["mtld", "perplexity"], listed="a few")
    assert said == "no indicator 'perplexty', 'wit'; did you mean 'perplexity'? There are: a few"


def test_a_name_too_long_to_be_one_is_cut_in_the_list() -> None:
    said = no_such("field", "topic", ["instruction", "[" * 3000])
    assert said == f"no field 'topic'. There are: instruction, {'[' * 60}…"
