from __future__ import annotations

import json
import random
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bundle import small_tokenizer

from instructmining import Bundle, Example
from instructmining.tokenizing.templates import conversation
from instructmining.tokenizing.tokenizer import TextEncoder
from instructmining.types import Turn
from instructmining_export.demo import train_head


@pytest.fixture(scope="module")
def head() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((resources.files("instructmining_export") / "demo" / "head.json").read_bytes())
    return content


def test_the_demo_head_is_576_weights_and_a_bias_with_its_provenance(head: dict[str, Any]) -> None:
    weight = np.array(head["out_proj"]["weight"])
    assert weight.shape == (576,)
    assert np.isfinite(weight).all()
    assert len(set(weight.tolist())) > 500
    assert np.isfinite(head["out_proj"]["bias"])
    provenance = head["provenance"]
    assert "not a published reward model" in provenance["what"]
    assert provenance["seed"] == train_head.SEED
    assert provenance["max_length"] == train_head.MAX_LENGTH
    assert provenance["inverse_penalty"] in train_head.PENALTIES
    assert "999 Alpaca rows" in provenance["scale"]
    assert {len(digest) for digest in provenance["data_sha256"].values()} == {64}


def test_the_demo_heads_accuracy_stands_beside_chance_by_kind_on_rows_held_out(head: dict[str, Any]) -> None:
    accuracy = head["provenance"]["held_out_accuracy"]
    assert set(accuracy) == {"cut", "off_topic", "preference", "refusal", "repeated", "shuffled"}
    assert sum(kind["pairs"] for kind in accuracy.values()) == head["provenance"]["held_out_pairs"]
    for name, kind in accuracy.items():
        assert kind["chance"] == 0.5
        spread = 0.5 / np.sqrt(kind["pairs"])  # standard deviation of a coin's share
        if name != "preference":
            assert kind["accuracy"] > 0.5 + 5 * spread


def alpaca(rows: int) -> list[dict[str, str]]:
    rng = random.Random(4)
    words = ["bread", "train", "green", "seven", "dough", "noon", "ferry"]
    return [
        {
            "instruction": f"Task {number}.",
            "input": "with this" if number % 3 else "",
            "output": f"Answer {number} is {' '.join(rng.choices(words, k=8))}. {' '.join(rng.choices(words, k=6))}.",
        }
        for number in range(rows)
    ]


def preference(number: int) -> dict[str, Any]:
    return {
        "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": f"Question {number}?"}],
        "chosen": {"from": "gpt", "value": "A good answer."},
        "rejected": {"from": "gpt", "value": "A bad answer."},
    }


def test_shuffled_words_are_the_same_words_in_another_order() -> None:
    text = "one two three four five six seven"
    found = train_head.shuffled(text, random.Random(1))
    assert found != text
    assert Counter(found.split()) == Counter(text.split())


@pytest.mark.parametrize("words", [1, 2, 5, 100])
def test_a_cut_text_is_its_first_words_from_a_fifth_to_three_fifths(words: int) -> None:
    text = [f"w{number}" for number in range(words)]
    for seed in range(20):
        found = train_head.cut(" ".join(text), random.Random(seed)).split()
        assert found == text[: len(found)]
        assert max(1, int(0.2 * words)) <= len(found) <= max(1, 0.6 * words)


def test_a_repeated_text_is_its_first_sentence_to_about_the_same_length() -> None:
    assert train_head.repeated("Rain falls. The sun is out and shines.") == "Rain falls. Rain falls. Rain falls."
    assert train_head.repeated("Short.") == "Short. Short."
    assert train_head.repeated("a. " + "b" * 4000).count("a.") == 40


def test_three_in_ten_rows_are_held_out_always_the_same() -> None:
    held = [train_head.is_held_out(group) for group in range(5000)]
    assert sum(held) / len(held) == pytest.approx(0.3, abs=0.03)
    assert held == [train_head.is_held_out(group) for group in range(5000)]


def test_pairs_are_the_row_against_its_spoilt_copies_and_no_text_crosses_from_training_to_held_out() -> None:
    rows = alpaca(60)
    conversations, pairs, originals = train_head.build_pairs(rows, [preference(number) for number in range(5)])
    assert len(originals) == 60
    group_of = {row["output"]: group for group, row in enumerate(rows)}
    kinds = Counter(pair.kind for pair in pairs)
    assert set(kinds) == {"off_topic", "shuffled", "cut", "repeated", "refusal", "preference"}
    assert kinds["preference"] == 5
    spoilt = [pair for pair in pairs if pair.kind != "preference"]
    for pair in spoilt:
        better, worse = conversations[pair.better], conversations[pair.worse]
        assert pair.better == originals[pair.group]
        assert better[-1] == ("assistant", rows[pair.group]["output"])
        assert better[:-1] == worse[:-1]
        assert better != worse
        if pair.kind == "off_topic":
            other = group_of[worse[-1][1]]
            assert other != pair.group
            assert train_head.is_held_out(other) == train_head.is_held_out(pair.group)
    sides = [
        {index for pair in pairs if train_head.is_held_out(pair.group) is held for index in (pair.better, pair.worse)}
        for held in (True, False)
    ]
    assert sides[0]
    assert sides[1]
    assert sides[0].isdisjoint(sides[1])


def test_preference_pairs_are_groups_of_their_own_with_the_chosen_answer_first() -> None:
    conversations, pairs, _ = train_head.build_pairs(alpaca(10), [preference(number) for number in range(3)])
    found = [pair for pair in pairs if pair.kind == "preference"]
    assert [pair.group for pair in found] == [10, 11, 12]
    assert conversations[found[1].better] == [
        ("system", "Be brief."),
        ("user", "Question 1?"),
        ("assistant", "A good answer."),
    ]
    assert conversations[found[1].worse][-1] == ("assistant", "A bad answer.")


def test_the_pairs_are_the_same_every_time() -> None:
    rows, preferences = alpaca(30), [preference(0)]
    assert train_head.build_pairs(rows, preferences) == train_head.build_pairs(rows, preferences)


def test_the_head_is_trained_on_the_text_that_the_bundle_gives_it(small_bundle: Path) -> None:
    turns = [("user", "Name a colour.<|im_end|>"), ("assistant", "Green."), ("user", "More?"), ("assistant", "Blue.")]
    example = Example(tuple(Turn(role, text) for role, text in turns))  # type: ignore[arg-type]
    role = Bundle.open(small_bundle).roles["reward"]
    (tokens,) = TextEncoder(role.tokenizer).rendered([conversation(example, role.template)], max_length=500)
    tokenizer = small_tokenizer()
    tokenizer.encode_special_tokens = True
    assert train_head.chatml(tokenizer, turns) == tokens.ids.tolist()


def test_the_heads_batches_hold_every_text_once_within_the_budget() -> None:
    rng = random.Random(0)
    encoded = {number: [1] * rng.randint(1, 90) for number in range(50)}
    found = list(train_head.by_length(encoded, max_batch_tokens=120))
    assert sorted(index for batch in found for index in batch) == list(range(50))
    assert all(len(batch) * max(len(encoded[index]) for index in batch) <= 120 for batch in found)
