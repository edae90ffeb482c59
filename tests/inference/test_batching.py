from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windows_by_hand import role

from instructmining.inference.batching import Batch, Batching, batches
from instructmining.tokenizing.truncation import Tokens


def text(ids: Sequence[int], scored: Sequence[int] = ()) -> Tokens:
    return Tokens(np.array(ids, dtype=np.int64), np.array(scored, dtype=np.int64))


def of_lengths(*lengths: int) -> list[Tokens]:
    return [text(range(1, length + 1)) for length in lengths]


def members(found: Sequence[Batch]) -> list[list[int]]:
    return [batch.members.tolist() for batch in found]


def test_a_batch_is_padded_on_the_right_to_its_longest_text() -> None:
    (batch,) = batches([text([5, 6], [1]), text([7, 8, 9], [1, 2]), text([4], [])], max_batch_tokens=100)
    assert batch.members.tolist() == [1, 0, 2]
    assert batch.ids.tolist() == [[7, 8, 9], [5, 6, 0], [4, 0, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2], [0, 1, 0], [0, 0, 0]]
    assert batch.scored.tolist() == [[0, 1], [0, 2], [1, 1]]


def test_the_longest_text_comes_first_and_equal_ones_keep_their_order() -> None:
    assert members(list(batches(of_lengths(2, 5, 2, 7, 5), max_batch_tokens=10))) == [[3], [1, 4], [0, 2]]


def test_many_texts_of_few_lengths_keep_their_order_too() -> None:
    lengths = [3, 1, 2, 3, 2, 1, 1] * 60
    in_order = [
        member for batch in batches(of_lengths(*lengths), max_batch_tokens=50) for member in batch.members.tolist()
    ]
    assert in_order == sorted(range(len(lengths)), key=lambda member: -lengths[member])


def test_texts_of_one_token_or_none_fill_a_batch_like_others() -> None:
    assert members(list(batches(of_lengths(1, 1, 1, 1), max_batch_tokens=3))) == [[0, 1, 2], [3]]
    assert members(list(batches(of_lengths(1, 0, 0), max_batch_tokens=9, enough_tokens=2))) == [[0, 1], [2]]
    assert members(list(batches(of_lengths(0, 0), max_batch_tokens=9, enough_tokens=2))) == [[0, 1]]


def test_a_batch_that_just_reaches_the_budget_is_not_split() -> None:
    assert members(list(batches(of_lengths(4, 4, 4), max_batch_tokens=12))) == [[0, 1, 2]]
    assert members(list(batches(of_lengths(4, 4, 4), max_batch_tokens=11))) == [[0, 1], [2]]


def test_padding_counts_against_the_budget() -> None:
    assert members(list(batches(of_lengths(6, 1, 1), max_batch_tokens=12))) == [[0, 1], [2]]


def test_a_row_over_the_budget_goes_alone() -> None:
    assert members(list(batches(of_lengths(3, 50, 3), max_batch_tokens=10))) == [[1], [0, 2]]


def test_no_texts_make_no_batch() -> None:
    assert list(batches([], max_batch_tokens=10)) == []


def test_a_batch_without_scored_tokens_has_an_empty_table_of_them() -> None:
    (batch,) = batches(of_lengths(3, 2), max_batch_tokens=10)
    assert batch.scored.shape == (0, 2)


@pytest.mark.parametrize("name", ["members", "ids", "positions", "mask", "scored"])
def test_every_array_of_a_batch_is_int64(name: str) -> None:
    (batch,) = batches([text([5, 6], [1]), text([7], [])], max_batch_tokens=100)
    assert getattr(batch, name).dtype == np.int64


@st.composite
def texts(draw: st.DrawFn) -> Tokens:
    ids = draw(st.lists(st.integers(1, 99), max_size=12))
    positions = st.sets(st.integers(1, len(ids) - 1)) if len(ids) > 1 else st.just(set())
    return text(ids, sorted(draw(positions)))


@settings(max_examples=100, deadline=None)
@given(window=st.lists(texts(), max_size=25), budget=st.integers(1, 60))
def test_every_text_is_in_one_batch_with_its_ids_and_scored_positions(window: list[Tokens], budget: int) -> None:
    found = list(batches(window, max_batch_tokens=budget))
    assert sorted(member for batch in found for member in batch.members.tolist()) == list(range(len(window)))
    for batch in found:
        for row, member in enumerate(batch.members):
            tokens = window[member]
            size = len(tokens.ids)
            assert batch.ids[row].tolist() == [*tokens.ids, *[0] * (batch.ids.shape[1] - size)]
            assert batch.mask[row].tolist() == [1] * size + [0] * (batch.ids.shape[1] - size)
            assert batch.positions[row].tolist() == [*range(size), *[0] * (batch.ids.shape[1] - size)]
            assert batch.scored[batch.scored[:, 0] == row, 1].tolist() == tokens.scored.tolist()
        assert (np.diff(batch.scored[:, 0]) >= 0).all()


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), max_size=40), budget=st.integers(1, 120))
def test_no_batch_is_over_the_budget_but_for_one_long_row(lengths: list[int], budget: int) -> None:
    found = list(batches(of_lengths(*lengths), max_batch_tokens=budget))
    assert all(batch.ids.size <= budget or len(batch.members) == 1 for batch in found)
    widths = [batch.ids.shape[1] for batch in found]
    assert widths == sorted(widths, reverse=True)
    assert [batch.ids.shape[1] for batch in found] == [lengths[batch.members[0]] for batch in found]


@settings(max_examples=40, deadline=None)
@given(window=st.lists(texts(), max_size=15), budget=st.integers(1, 60))
def test_batches_are_a_function_of_the_texts_and_the_budget(window: list[Tokens], budget: int) -> None:
    first, second = (list(batches(window, max_batch_tokens=budget)) for _ in range(2))
    assert members(first) == members(second)
    assert [batch.ids.tolist() for batch in first] == [batch.ids.tolist() for batch in second]


def test_a_batch_that_is_large_enough_takes_no_much_shorter_text() -> None:
    texts = of_lengths(100, 95, 50, 45, 20, 19, 18, 10, 5)
    whole = list(batches(texts, max_batch_tokens=1000))
    assert members(whole) == [[0, 1, 2, 3, 4, 5, 6, 7, 8]]
    parted = list(batches(texts, max_batch_tokens=1000, enough_tokens=90))
    # Until there are 90 tokens shorter ones are taken as well.
    assert members(parted) == [[0, 1], [2, 3], [4, 5, 6, 7, 8]]


def test_a_text_just_a_tenth_shorter_is_taken_and_a_shorter_one_is_not() -> None:
    assert members(list(batches(of_lengths(100, 90, 89), max_batch_tokens=1000, enough_tokens=100))) == [[0, 1], [2]]


def test_a_batch_that_just_has_enough_takes_no_more() -> None:
    assert members(list(batches(of_lengths(50, 40, 30), max_batch_tokens=1000, enough_tokens=100))) == [[0, 1], [2]]
    assert members(list(batches(of_lengths(50, 40, 30), max_batch_tokens=1000, enough_tokens=101))) == [[0, 1, 2]]


def test_widths_are_rounded_up_to_the_multiple_and_count_so_against_the_budget() -> None:
    found = list(batches(of_lengths(17, 16, 16, 3), max_batch_tokens=64, width_multiple=16))
    assert [batch.ids.shape for batch in found] == [(2, 32), (2, 16)]
    assert [batch.mask.sum() for batch in found] == [33, 19]


def test_a_batch_scores_no_more_positions_than_its_logits_may_take_but_for_one_text() -> None:
    window = [text(range(9), range(1, 9)), text(range(8), [5, 6, 7]), text(range(7), [5, 6]), text(range(6), [3])]
    found = [list(batches(window, max_batch_tokens=100, max_scored=most)) for most in (14, 13, 8, 5, 1)]
    assert [members(each) for each in found] == [
        [[0, 1, 2, 3]],
        [[0, 1, 2], [3]],
        [[0], [1, 2, 3]],
        [[0], [1, 2], [3]],
        [[0], [1], [2], [3]],
    ]
    assert members(list(Batching(9, {"reward": 100}, max_scored=13).of(role("reward"), window))) == [[0, 1, 2], [3]]


def test_a_width_is_never_rounded_up_beyond_the_models_limit_whose_tables_end_there() -> None:
    limited = replace(role("perplexity"), max_length=500)
    batching = Batching(512, {"perplexity": 2000}, width_multiple=16)
    found = list(batching.of(limited, of_lengths(499, 497, 500, 481, 479, 3)))
    assert [batch.ids.shape for batch in found] == [(4, 500), (2, 480)]
    assert [batch.mask.sum() for batch in found] == [1977, 482]
    assert [batch.ids.shape for batch in batching.of(role("perplexity"), of_lengths(500))] == [(1, 512)]


def test_what_is_usual_is_what_was_measured_and_a_budget_given_is_filled() -> None:
    assert Batching.usual("cpu", ["reward"]) == Batching(512, {"reward": 512}, 1, 128)
    assert Batching.usual("cpu", ["reward"], max_batch_tokens=77) == Batching(512, {"reward": 77}, 1, None)
    assert Batching.usual("cuda", ["reward"]) == Batching(4096, {"reward": 16384}, 16, None, 16384)
    assert Batching.usual("cuda", ["reward"], max_batch_tokens=77) == Batching(4096, {"reward": 77}, 16, None, 16384)


def test_what_is_usual_on_a_cpu_pads_a_few_short_rows_little() -> None:
    texts = of_lengths(60, 52, 40, 39, 33, 25, 21, 12)
    padded = sum(batch.ids.size for batch in Batching.usual("cpu", ["reward"]).of(role("reward"), texts))
    assert padded < 1.25 * sum(len(one.ids) for one in texts)
    assert sum(batch.ids.size for batch in Batching.usual("cuda", ["reward"]).of(role("reward"), texts)) == 8 * 64
