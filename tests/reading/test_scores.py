"""Rows that were scored before, read without their scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from instructmining import Example, read_examples
from instructmining.errors import RowError
from instructmining.reading.scores import ScoreFields, lacking
from instructmining.types import EarlierScores, SourceRow

OWN = {"instruction": "a", "output": "b"}
ADDED = {"reward": 1.5, "mtld": None, "truncated": ["reward"], "score_notes": {"mtld": "no word"}}


def row(fields: dict[str, object]) -> SourceRow:
    return SourceRow("rows.jsonl", 1, 0, orjson.dumps(fields), fields)


def test_a_scored_row_is_parted_from_its_scores() -> None:
    own, scores = ScoreFields("").taken_off(row({**OWN, **ADDED}))
    assert own == row(OWN)
    assert scores == EarlierScores({"reward": 1.5, "mtld": None}, {"mtld": "no word"}, ("reward",))


def test_a_prefix_says_which_fields_are_scores() -> None:
    fields = ScoreFields("s_")
    added = {"s_reward": 1.5, "s_truncated": [], "s_score_notes": {"s_mtld": "no word"}}
    assert not fields.are_in({**OWN, **ADDED})
    assert fields.are_in({**OWN, **added})
    own, scores = fields.taken_off(row({**OWN, "reward": 3, **added}))
    assert own.fields == {**OWN, "reward": 3}
    assert scores == EarlierScores({"reward": 1.5}, {"mtld": "no word"}, ())


def test_a_field_that_only_has_the_name_of_a_column_is_no_score() -> None:
    assert not ScoreFields("").are_in({**OWN, "reward": 1.5})
    assert not ScoreFields("").are_in({**OWN, "reward": 1.5, "truncated": []})


def test_notes_may_be_json_as_text_as_in_some_tables() -> None:
    _, scores = ScoreFields("").taken_off(row({**OWN, **ADDED, "score_notes": '{"mtld":"no word"}'}))
    assert scores.notes == {"mtld": "no word"}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"reward": "high"}, "column 'reward' is 'high', wanted a number"),
        ({"reward": True}, "column 'reward' is 'True', wanted a number"),
        ({"score_notes": [1]}, r"'score_notes' is \[1\], wanted an object"),
        ({"score_notes": "{"}, "'score_notes' is '{', wanted an object"),
        ({"truncated": "reward"}, "'truncated' is 'reward', wanted a list"),
    ],
)
def test_scores_that_are_none_reject_the_row(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        ScoreFields("").taken_off(row({**OWN, **ADDED, **fields}))


def test_a_pair_has_a_column_where_both_sides_have_it() -> None:
    columns = {"chosen.reward": 1.0, "rejected.reward": None, "margin.reward": None, "chosen.mtld": 2.0, "ifd": 1.0}
    fields = {"truncated": [], "score_notes": {}, **columns}
    earlier = EarlierScores(columns, {}, ())
    assert ScoreFields("").columns_of(fields) == {"reward", "ifd"}
    assert ScoreFields("s_").columns_of(fields) == set()
    pair = replace(Example.pair("a", "b", "c"), scores=earlier)
    assert lacking(pair, ["mtld", "reward"]) == ["mtld"]
    plain = replace(Example.of("a", "b"), scores=earlier)
    assert lacking(plain, ["ifd", "reward"]) == ["reward"]
    assert lacking(Example.of("a", "b"), ["mtld"]) == ["mtld"]


def test_examples_of_scored_rows_have_their_scores_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_bytes(orjson.dumps({**OWN, **ADDED}) + b"\n" + orjson.dumps(OWN) + b"\n")
    reader = read_examples(path)
    assert reader.look() == {"reward", "mtld"}
    first, second = reader
    assert first.scores is not None
    assert first.scores.columns == {"reward": 1.5, "mtld": None}
    assert second.scores is None
    assert first.row is not None
    assert first.row.raw == orjson.dumps(OWN)
    assert not reader.unread[str(path)]


def test_a_row_that_lacks_what_is_kept_is_a_reject(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_bytes(orjson.dumps({**OWN, **ADDED}) + b"\n" + orjson.dumps(OWN) + b"\n")
    reader = read_examples(path)
    reader.keep({"reward"})
    with pytest.raises(RowError, match="line 2: the row was not scored with reward, as the first rows were"):
        list(reader)
