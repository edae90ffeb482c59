from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from instructmining.errors import InputError
from instructmining.types import Example
from instructmining_experiments.designing.held_out import (
    drawn_sets,
    given_sets,
    near_rows,
    parts_of,
    repeats,
    reserved_rows,
)
from instructmining_experiments.state.plan import EvaluationSet, LeftOut, PoolFile

A, B = PoolFile("data/a.jsonl", "", 30), PoolFile("more/b.json.gz", "", 20)


def test_two_sets_are_drawn_from_the_first_and_the_last_file() -> None:
    sets = drawn_sets(parts_of([A, B]), set(range(50)), 5, seed=0)
    assert [(one.name, one.source, len(one.rows)) for one in sets] == [
        ("a", "data/a.jsonl", 5),
        ("b", "more/b.json.gz", 5),
    ]
    assert set(sets[0].rows) <= set(range(30))
    assert set(sets[1].rows) <= set(range(30, 50))


def test_two_sets_of_one_file_share_no_row() -> None:
    sets = drawn_sets(parts_of([A]), set(range(30)), 7, seed=0)
    assert [one.name for one in sets] == ["a-1", "a-2"]
    assert len({*sets[0].rows, *sets[1].rows}) == 14


def test_too_few_rows_for_the_sets_say_how_many_there_may_be() -> None:
    with pytest.raises(InputError, match=r"has 30 rows to draw .*; give 7 or less, or --evaluation FILE"):
        drawn_sets(parts_of([A]), set(range(30)), 8, seed=0)
    with pytest.raises(InputError, match=r"b.json.gz: has 0 rows .*; give --evaluation FILE"):
        drawn_sets(parts_of([A, B]), set(range(30)), 8, seed=0)


def test_each_evaluation_file_is_a_set_of_all_its_rows() -> None:
    sets = given_sets(parts_of([A, B, PoolFile("other/b.csv", "", 2)])[1:])
    assert sets == (
        EvaluationSet("b-1", "more/b.json.gz", tuple(range(30, 50))),
        EvaluationSet("b-2", "other/b.csv", (50, 51)),
    )
    with pytest.raises(InputError, match=r"empty.jsonl: has no row that can be scored"):
        given_sets(parts_of([PoolFile("empty.jsonl", "", 0)]))


def test_rows_near_an_evaluation_row_are_found_by_their_prompt_or_by_their_embedding() -> None:
    examples = [Example.of(text, "Yes.") for text in ("a", "b", "a", "near b", "far")]
    angles = dict(zip("abnf", (0.0, 1.0, 1.05, 2.5), strict=True))

    def embed(given: Sequence[Example]) -> NDArray[np.float32]:
        at = [angles[example.turns[0].text[0]] for example in given]
        return np.stack([np.cos(at), np.sin(at)], axis=1).astype(np.float32)

    sets = [EvaluationSet("one", "", (0,)), EvaluationSet("two", "", (1,))]
    found = near_rows(examples, [2, 3, 4], sets, 0.1, embed)
    assert found == (LeftOut(2, 0, 0.0), LeftOut(3, 1, pytest.approx(0.05, abs=1e-4)))
    assert near_rows(examples, [2, 3, 4], sets, 0.1, None) == (LeftOut(2, 0, 0.0),)
    assert near_rows(examples, [], sets, 0.1, embed) == ()


def test_a_row_with_the_prompt_of_an_evaluation_row_is_near_whatever_its_response() -> None:
    examples = [Example.of("Ask.", "Yes."), Example.of("Ask.", "Never!"), Example.of("Other.", "Yes.")]
    assert near_rows(examples, [1, 2], [EvaluationSet("one", "", (0,))], 0.1, None) == (LeftOut(1, 0, 0.0),)


def test_a_row_that_repeats_an_earlier_one_is_found() -> None:
    assert repeats([Example.of(text, "Yes.") for text in "abac"], range(4)) == {2}


def test_a_share_of_the_rows_is_reserved() -> None:
    rows = list(range(10, 30))
    found = reserved_rows(rows, 0.25, seed=0)
    assert len(found) == len(set(found)) == 5
    assert set(found) <= set(rows)
    assert reserved_rows(rows, 0, seed=0) == ()
