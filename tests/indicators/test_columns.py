"""Columns to rows: nulls with their reasons, integers as integers, rows with bad outputs left out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from instructmining import Example, Rule
from instructmining.indicators import INDICATORS
from instructmining.indicators.base import LikelihoodSums, Measurements
from instructmining.indicators.columns import part, predict, row_columns, rows_of
from instructmining.types import Column, EarlierScores, Reject, ScoredWindow

EXAMPLES = [Example.of(f"question {number}", "an answer") for number in range(3)]


def window(**columns: Column) -> ScoredWindow:
    return ScoredWindow(list(EXAMPLES), [(), ("reward",), ()], columns)


def values(*numbers: float) -> NDArray[np.float64]:
    return np.array(numbers, dtype=np.float64)


def test_rows_have_the_columns_in_the_order_asked_for() -> None:
    scored = window(mtld=Column(values(1.5, 2.5, 3.5)), output_length=Column(values(4, 5, 6), whole=True))
    rows = list(rows_of(scored, ["output_length", "mtld"]))
    assert [list(row.columns.items()) for row in rows] == [
        [("output_length", 4), ("mtld", 1.5)],
        [("output_length", 5), ("mtld", 2.5)],
        [("output_length", 6), ("mtld", 3.5)],
    ]
    assert all(isinstance(row.columns["output_length"], int) for row in rows)
    assert [row.truncated for row in rows] == [(), ("reward",), ()]
    assert [row.example for row in rows] == EXAMPLES


def test_an_undefined_value_is_none_with_its_reason() -> None:
    scored = window(
        mtld=Column(values(1.0, np.nan, np.inf), {1: "no word"}), knn_6=Column(values(np.nan, 1, 1), {0: "few rows"})
    )
    rows = list(rows_of(scored, ["mtld", "knn_6"]))
    assert [row.columns["mtld"] for row in rows] == [1.0, None, None]
    assert [row.notes for row in rows] == [{"knn_6": "few rows"}, {"mtld": "no word"}, {"mtld": "not a finite number"}]


def test_a_prediction_is_undefined_where_a_term_is_and_says_which() -> None:
    rule = Rule("r", 1.0, {"mtld": 2.0, "reward": 1.0})
    scored = window(mtld=Column(values(1, np.nan, np.inf)), reward=Column(values(1, 2, np.nan)))
    predict(scored, rule)
    rows = list(rows_of(scored, ["predicted_log_loss"]))
    assert [row.columns["predicted_log_loss"] for row in rows] == [4.0, None, None]
    assert [row.notes for row in rows] == [
        {},
        {"predicted_log_loss": "undefined: mtld"},
        {"predicted_log_loss": "undefined: mtld, reward"},
    ]


def test_a_row_with_an_output_that_is_not_finite_is_rejected_and_its_embedding_with_it() -> None:
    early, late = (Reject("rows.jsonl", line, 0, "why", b"[") for line in (2, 4))
    measured = Measurements(
        list(EXAMPLES),
        conversation_nll=LikelihoodSums(values(1, np.nan, 3), np.array([1, 1, 1])),
        embedding=np.arange(6, dtype=np.float32).reshape(3, 2),
        truncated=[[], [], ["reward"]],
        places=[0, 2, 4],
        rejects=[(1, early), (3, late)],
    )
    scored, embedding = row_columns(measured, [INDICATORS["perplexity"]])
    refused = Reject.of(EXAMPLES[1], "a model output is not a finite number")
    assert scored.rejects == [early, refused, late]
    assert scored.examples == [EXAMPLES[0], EXAMPLES[2]]
    assert scored.truncated == [(), ("reward",)]
    assert embedding is not None
    assert embedding.tolist() == [[0, 1], [4, 5]]
    np.testing.assert_allclose(scored.columns["perplexity"].values, np.exp([1, 3]))


def test_a_part_of_a_column_keeps_the_reasons_of_its_rows() -> None:
    column = Column(values(0, 1, 2, 3), {1: "one", 3: "three"})
    found = part(column, 1, 3)
    assert found.values.tolist() == [1, 2]
    assert found.notes == {0: "one"}


BAD = [
    {"conversation_nll": LikelihoodSums(values(1, -np.inf, 3), np.array([1, 1, 1]))},
    {"response_nll": LikelihoodSums(values(1, np.nan, 3), np.array([1, 1, 1]))},
    {"reward": values(0, np.inf, 0)},
    {"embedding": np.array([[1, 0], [0, np.nan], [0, 1]], dtype=np.float32)},
    {"answers": {"naturalness": values(0, 1, 0), "coherence": values(0, np.nan, 0)}},
]


@pytest.mark.parametrize("outputs", BAD, ids=lambda outputs: next(iter(outputs)))
def test_a_row_is_rejected_whichever_output_is_not_finite(outputs: dict[str, object]) -> None:
    measured = Measurements(list(EXAMPLES), truncated=[[], [], []], places=[0, 1, 2], **outputs)  # type: ignore[arg-type]
    scored, _ = row_columns(measured, [])
    assert scored.examples == [EXAMPLES[0], EXAMPLES[2]]
    assert [reject.example for reject in scored.rejects] == [EXAMPLES[1]]


def test_a_row_without_a_token_to_score_is_not_rejected() -> None:
    nothing = LikelihoodSums(values(0, 0, 0), np.array([0, 0, 0]))
    measured = Measurements(list(EXAMPLES), truncated=[[], [], []], places=[0, 1, 2], response_nll=nothing)
    scored, embedding = row_columns(measured, [])
    assert (len(scored), scored.rejects, embedding) == (3, [], None)


def test_rows_without_columns_are_still_rows() -> None:
    assert [(row.example, row.columns) for row in rows_of(window(), [])] == [(example, {}) for example in EXAMPLES]


# Pairs

PAIR = Example.pair("question", "yes", "no")


def test_a_pair_is_one_row_with_both_sides_and_their_margin() -> None:
    examples = [EXAMPLES[0], *PAIR.sides, EXAMPLES[1]]
    columns = {
        "output_length": Column(values(4, 5, 3, 9), whole=True),
        "mtld": Column(values(1, 2, np.nan, 4), {2: "no word"}),
    }
    scored = ScoredWindow(examples, [(), ("reward",), ("embedding", "reward"), ()], columns)
    assert (len(scored), scored.rows) == (4, 3)
    first, pair, last = rows_of(scored, ["output_length", "mtld"])
    assert (first.columns, last.columns) == ({"output_length": 4, "mtld": 1.0}, {"output_length": 9, "mtld": 4.0})
    assert list(pair.columns.items()) == [
        ("chosen.output_length", 5),
        ("rejected.output_length", 3),
        ("margin.output_length", 2),
        ("chosen.mtld", 2.0),
        ("rejected.mtld", None),
        ("margin.mtld", None),
    ]
    assert isinstance(pair.columns["margin.output_length"], int)
    assert pair.notes == {"rejected.mtld": "no word", "margin.mtld": "rejected.mtld is null"}
    assert pair.truncated == ("reward", "embedding")
    assert pair.example == PAIR


def test_each_side_has_its_prediction() -> None:
    scored = ScoredWindow(list(PAIR.sides), [(), ()], {"reward": Column(values(1.0, 3.0))})
    predict(scored, Rule("mine", 1.0, {"reward": 2.0}))
    (pair,) = rows_of(scored, ["reward", "predicted_log_loss"])
    assert [pair.columns[f"{part}.predicted_log_loss"] for part in ("chosen", "rejected", "margin")] == [3.0, 7.0, -4.0]


@pytest.mark.parametrize("side", [0, 1])
def test_a_pair_with_a_bad_output_on_one_side_is_one_reject(side: int) -> None:
    reward = values(0.5, 1.0, 2.0, 0.25)
    reward[1 + side] = np.nan
    measured = Measurements(
        [EXAMPLES[0], *PAIR.sides, EXAMPLES[1]],
        reward=reward,
        truncated=[[], [], [], []],
        places=[0, 1, 1, 2],
    )
    scored, _ = row_columns(measured, [INDICATORS["reward"]])
    assert scored.examples == EXAMPLES[:2]
    assert scored.columns["reward"].values.tolist() == [0.5, 0.25]
    (reject,) = scored.rejects
    assert reject.example == PAIR


# Scores that were there before


def test_a_row_keeps_the_columns_that_it_had_in_the_order_of_all_columns() -> None:
    earlier = EarlierScores({"reward": 1.5, "mtld": None, "ifd": 2.0}, {"mtld": "no word"}, ("reward",))
    example = Example(EXAMPLES[0].turns, scores=earlier)
    columns = {"perplexity": Column(values(3.0)), "ifd": Column(values(np.nan), {0: "one token"})}
    (row,) = rows_of(ScoredWindow([example], [("embedding",)], columns), ["perplexity", "ifd"])
    assert list(row.columns.items()) == [("reward", 1.5), ("perplexity", 3.0), ("mtld", None), ("ifd", None)]
    assert row.notes == {"mtld": "no word", "ifd": "one token"}
    assert row.truncated == ("reward", "embedding")


def test_a_rule_reads_the_columns_that_a_row_had() -> None:
    earlier = EarlierScores({"chosen.mtld": 1.0, "rejected.mtld": None}, {}, ())
    sides = Example(PAIR.turns, rejected=PAIR.rejected, scores=earlier).sides
    scored = ScoredWindow(list(sides), [(), ()], {"reward": Column(values(1.0, 3.0))})
    predict(scored, Rule("mine", 0.0, {"reward": 1.0, "mtld": 1.0}))
    assert scored.columns["predicted_log_loss"].values[0] == 2.0
    assert np.isnan(scored.columns["predicted_log_loss"].values[1])
