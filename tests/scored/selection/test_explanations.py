from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from paths import EXAMPLES

from instructmining.errors import OutputError, RuleError, SelectionError
from instructmining.rules import Rule
from instructmining.scored.selection import Selection, select
from instructmining.scored.selection.explanations import rule_of_run
from instructmining.scored.selection.options import Extras, SelectionOptions

RULE = Rule("mine", 1.0, {"mtld": -0.5, "output_length": 0.25})


def scored_row(n: int, mtld: float | None, output_length: int, **more: object) -> dict[str, object]:
    loss = None if mtld is None else 1 - 0.5 * mtld + 0.25 * output_length
    notes = {} if mtld is not None else {"mtld": "the response has no word", "predicted_log_loss": "undefined: mtld"}
    columns = {"output_length": output_length, "input_length": 1, "mtld": mtld, "predicted_log_loss": loss}
    return {"n": n, **more, **columns, "truncated": [], "score_notes": notes}


def lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def explained(tmp_path: Path, write_rows: Callable[..., Path]) -> Callable[..., list[dict[str, object]]]:
    """The explanations of a choice among some rows."""

    def explain(
        rows: list[dict[str, object]], choice: SelectionOptions, rule: Rule | None = RULE, prefix: str = ""
    ) -> list[dict[str, object]]:
        extras = Extras(explain=tmp_path / "why.jsonl", rule=rule)
        select(write_rows(*rows), tmp_path / "best.jsonl", choice, prefix=prefix, extras=extras, overwrite=True)
        return lines(tmp_path / "why.jsonl")

    return explain


def test_each_row_has_its_rank_its_place_and_its_terms(explained: Callable[..., list[dict[str, object]]]) -> None:
    rows = [scored_row(0, 2.0, 4), scored_row(1, 4.0, 2), scored_row(2, None, 1), scored_row(3, 3.0, 2)]
    assert explained(rows, SelectionOptions(top=2)) == [
        {
            "row": 1,
            "kept": False,
            "rank": 3,
            "place": None,
            "reason": "rank 3, 2 were wanted",
            "intercept": 1.0,
            "contributions": {"mtld": -1.0, "output_length": 1.0},
            "predicted_log_loss": 1.0,
        },
        {
            "row": 2,
            "kept": True,
            "rank": 1,
            "place": 1,
            "reason": None,
            "intercept": 1.0,
            "contributions": {"mtld": -2.0, "output_length": 0.5},
            "predicted_log_loss": -0.5,
        },
        {
            "row": 3,
            "kept": False,
            "rank": None,
            "place": None,
            "reason": "predicted_log_loss is null: undefined: mtld",
            "intercept": 1.0,
            "contributions": {"mtld": None, "output_length": 0.25},
            "predicted_log_loss": None,
        },
        {
            "row": 4,
            "kept": True,
            "rank": 2,
            "place": 2,
            "reason": None,
            "intercept": 1.0,
            "contributions": {"mtld": -1.5, "output_length": 0.5},
            "predicted_log_loss": 0.0,
        },
    ]


def test_every_reason_says_what_was_found_and_what_was_wanted(
    explained: Callable[..., list[dict[str, object]]],
) -> None:
    rows = [scored_row(n, 2.0, n, source="ab"[n % 2], rating=n / 2) for n in range(5)]
    rows[1]["rating"] = None
    del rows[2]["rating"]
    rows[4]["input_length"] = None

    def reasons(choice: SelectionOptions) -> list[object]:
        return [line["reason"] for line in explained(rows, choice)]

    assert reasons(SelectionOptions(where=["rating<=1", "output_length<9"]))[:4] == [
        None,
        "rating is null",
        "rating is missing",
        "rating 1.5 fails rating<=1",
    ]
    assert reasons(SelectionOptions(max_loss=0.3))[1:3] == [None, "predicted_log_loss 0.5 is more than 0.3"]
    assert reasons(SelectionOptions(tokens=3)) == [
        None,
        None,
        "rank 3, beyond the budget of 3 tokens",
        "rank 4, beyond the budget of 3 tokens",
        "input_length is null",
    ]
    assert reasons(SelectionOptions(group_by="source", quotas={"a": 2})) == [
        None,
        "group 'b' has no quota",
        None,
        "group 'b' has no quota",
        "rank 3, group 'a' is full with the 2 wanted",
    ]
    assert [line["group"] for line in explained(rows, SelectionOptions(top=9, group_by="source"))] == list("ababa")


def test_columns_with_a_prefix_are_explained(explained: Callable[..., list[dict[str, object]]]) -> None:
    plain = [scored_row(0, None, 1), scored_row(1, 2.0, 1)]
    own = {"n"}
    rows = [{name if name in own else f"im_{name}": value for name, value in row.items()} for row in plain]
    rows[0]["im_score_notes"] = {"im_mtld": "the response has no word", "im_predicted_log_loss": "undefined: im_mtld"}
    found = explained(rows, SelectionOptions(where=["mtld>=1"]), prefix="im_")
    assert found[0]["reason"] == "im_predicted_log_loss is null: undefined: im_mtld"
    assert found[1]["contributions"] == {"mtld": -1.0, "output_length": 0.25}


def test_another_rule_than_the_files_own_is_refused(
    explained: Callable[..., list[dict[str, object]]], tmp_path: Path
) -> None:
    other = Rule("other", 0.5, {"mtld": -0.5, "output_length": 0.25})
    with pytest.raises(SelectionError, match=r"line 1: rule 'other' predicts -0.25, the file says 0.25: .* rescore"):
        explained([scored_row(0, 2.0, 1)], SelectionOptions(top=1), other)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_term_that_the_rows_lack_is_named(explained: Callable[..., list[dict[str, object]]]) -> None:
    with pytest.raises(RuleError, match="rule 'other' needs reward; columns there: output_length"):
        explained([scored_row(0, 2.0, 1)], SelectionOptions(top=1), Rule("other", 0.5, {"reward": 1.0}))


# The rule of the run


def with_run_file(scored: Path, run: object) -> Path:
    Path(f"{scored}.run.json").write_bytes(orjson.dumps(run))
    return scored


def test_the_rule_is_the_one_that_the_run_file_names(tmp_path: Path) -> None:
    preset = Rule.load("paper-v1")
    named = {"id": "paper-v1", "digest": preset.digest}
    for asked in (None, "paper-v1"):
        scored = with_run_file(tmp_path / "scored.jsonl", {"rule": named, "settings": {"rule": asked}})
        assert rule_of_run(scored) == (preset, "")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (None, "is not a run file of score"),
        ({"rule": None, "settings": {}}, "names no rule"),
        ({"rule": {"id": "gone"}, "settings": {"rule": "gone.json"}}, r"names a rule that is not there .*gone\.json"),
        ({"rule": {"id": "paper-v1", "digest": "0"}, "settings": {"rule": None}}, "as it was before its file changed"),
    ],
)
def test_where_the_rule_is_not_known_the_reason_is_said_and_the_terms_are_left_out(
    tmp_path: Path, write_rows: Callable[..., Path], run: object, message: str
) -> None:
    scored = with_run_file(write_rows(scored_row(0, 2.0, 1)), run)
    why = tmp_path / "why.jsonl"
    found = select(scored, tmp_path / "best.jsonl", SelectionOptions(top=1), extras=Extras(explain=why))
    (remark,) = found.remarks
    assert re.search(message, remark)
    assert remark.endswith("explanations lack the terms' contributions; give rule (--rule)")
    assert lines(why) == [{"row": 1, "kept": True, "rank": 1, "place": 1, "reason": None}]


def test_a_rule_that_is_asked_for_and_not_there_is_an_error(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    extras = Extras(explain=tmp_path / "why.jsonl", rule="gone.json")
    with pytest.raises(RuleError, match=r"'gone\.json'"):
        select(write_rows(scored_row(0, 2.0, 1)), tmp_path / "best.jsonl", SelectionOptions(top=1), extras=extras)


def test_explanations_that_exist_are_kept_unless_overwrite_is_given(
    tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    why = tmp_path / "why.jsonl"
    why.write_text("mine")
    with pytest.raises(OutputError, match=r"why\.jsonl: exists; give --overwrite"):
        select(
            write_rows(scored_row(0, 2.0, 1)),
            tmp_path / "best.jsonl",
            SelectionOptions(top=1),
            extras=Extras(explain=why),
        )
    assert why.read_text() == "mine"
    assert not (tmp_path / "best.jsonl").exists()


def test_no_choice_says_nothing_of_terms(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    found = select(write_rows(scored_row(0, 2.0, 1)), tmp_path / "best.jsonl", SelectionOptions(top=1))
    assert found == Selection(1, 0, 1, 0.25)


def test_the_terms_of_a_scored_file_sum_to_its_predictions(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path
) -> None:
    scored, why = tmp_path / "scored.jsonl", tmp_path / "why.jsonl"
    assert run("score", EXAMPLES / "alpaca.json", "-o", scored, "--bundle", small_bundle, "--device", "cpu") == 0
    assert run("select", scored, "-o", tmp_path / "best.jsonl", "--top", 3, "--explain", why) == 0
    said = lines(why)
    assert len(said) == 8
    assert sum(bool(line["kept"]) for line in said) == 3
    for line, row in zip(said, lines(scored), strict=True):
        parts = line["contributions"]
        assert isinstance(parts, dict)
        assert list(parts) == ["reward", "output_length", "knn_6"]
        assert line["predicted_log_loss"] == row["predicted_log_loss"]
        assert line["intercept"] + sum(parts.values()) == pytest.approx(row["predicted_log_loss"], abs=1e-12)  # type: ignore[operator]
    selection = orjson.loads((tmp_path / "best.jsonl.selection.json").read_bytes())
    assert selection["explained"] == {"rule": "paper-v1", "digest": Rule.load("paper-v1").digest}
