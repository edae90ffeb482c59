from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from instructmining import compare, describe, rescore
from instructmining.errors import InputError, RuleError, SelectionError
from instructmining.reading.options import MAX_ROW_BYTES
from instructmining.rules import Rule
from instructmining.scored import scored_file as scored
from instructmining.scored.scored_file import ScoredRows
from instructmining.scored.selection import select

Write = Callable[..., Path]


def test_the_columns_are_those_that_score_adds_and_the_rest_is_the_rows_own(write_rows: Write) -> None:
    source = ScoredRows(write_rows({"a": 1, "mtld": 2.5, "knn_3": 0.5, "knn_x": 1, "truncated": [], "score_notes": {}}))
    assert source.columns == ("mtld", "knn_3")
    assert [source.own_fields(row) for row in source.rows()] == [{"a": 1, "knn_x": 1}]


def test_with_a_prefix_a_field_of_the_same_name_stays_the_rows_own(write_rows: Write) -> None:
    source = ScoredRows(write_rows({"reward": 5, "im_reward": 0.5, "im_truncated": []}), prefix="im_")
    assert source.columns == ("reward",)
    assert [source.own_fields(row) for row in source.rows()] == [{"reward": 5}]


def test_blocks_hold_all_rows_in_order_and_nan_for_null(write_rows: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored, "BLOCK_ROWS", 2)
    path = write_rows({"mtld": 1}, {"mtld": None}, {"mtld": 0.1})
    blocks = list(ScoredRows(path).blocks(["mtld"]))
    assert [len(block.rows) for block in blocks] == [2, 1]
    np.testing.assert_array_equal(np.concatenate([block.columns["mtld"] for block in blocks]), [1, np.nan, 0.1])


@pytest.mark.parametrize("value", [True, "1.5", [1], {"a": 1}])
def test_what_is_no_number_is_an_error_with_its_line(write_rows: Write, value: object) -> None:
    source = ScoredRows(write_rows({"mtld": 1}, {"mtld": value}))
    with pytest.raises(SelectionError, match=r"line 2: column 'mtld' is .*, wanted a number"):
        list(source.blocks(["mtld"]))


def test_a_rules_missing_columns_are_named_with_how_to_get_them(write_rows: Write) -> None:
    source = ScoredRows(write_rows({"mtld": 1}))
    with pytest.raises(RuleError, match=r"needs ifd, reward; columns there: mtld.*--indicators ifd,reward"):
        source.check_terms(Rule("r", 0.0, {"mtld": 1.0, "ifd": 1.0, "reward": 1.0}))


def test_standard_input_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be read twice"):
        ScoredRows("-")


@pytest.mark.parametrize(("prefix", "names"), [("", ("category", "mtld", "truncated")), ("im_", ("category", "mtld"))])
def test_names_are_those_that_are_typed(write_rows: Write, prefix: str, names: tuple[str, ...]) -> None:
    row = {"category": 1, f"{prefix}mtld": 1} | ({} if prefix else {"truncated": []})
    assert ScoredRows(write_rows(row), prefix=prefix).names == names


def test_a_term_that_is_no_indicator_is_named_with_the_nearest_column(write_rows: Write) -> None:
    source = ScoredRows(write_rows({"mtld": 1, "my_column": 2}))
    with pytest.raises(RuleError, match=r"rule 'r': no column 'my_colunm'; did you mean 'my_column'\? There are: mtld"):
        source.check_terms(Rule("r", 0.0, {"my_colunm": 1.0}))


def test_a_bundle_that_gives_what_is_missing_is_named(write_rows: Write, small_bundle: Path, tmp_path: Path) -> None:
    path = write_rows({"mtld": 1})
    rule = Rule("r", 0.0, {"reward": 1.0})
    with pytest.raises(RuleError, match=r"No bundle here has the role reward for it; export one: .* --reward MODEL"):
        ScoredRows(path).check_terms(rule)
    with pytest.raises(RuleError, match=f"--indicators reward --bundle {small_bundle}"):
        ScoredRows(path).check_terms(rule, bundles=[tmp_path / "gone", small_bundle])
    Path(f"{path}.run.json").write_text(f'{{"bundle": {{"path": "{small_bundle}"}}}}', encoding="utf-8")
    with pytest.raises(RuleError, match=f"--indicators reward --bundle {small_bundle}"):
        ScoredRows(path).check_terms(rule)
    with pytest.raises(RuleError, match="No bundle here has the role unieval for it"):
        ScoredRows(path).check_terms(Rule("r", 0.0, {"coherence": 1.0}), bundles=[small_bundle])


def test_a_block_ends_at_its_bytes_too(write_rows: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored, "BLOCK_BYTES", 50)
    source = ScoredRows(write_rows(*[{"mtld": number, "text": "x" * 20} for number in range(5)]))
    assert [len(block) for block in source.row_blocks()] == [2, 2, 1]


def test_a_row_at_the_limit_of_score_is_read_with_its_columns(tmp_path: Path) -> None:
    own = b'{"output":"%s"' % (b"x" * (MAX_ROW_BYTES - 13))
    row = own + b',"mtld":1.5,"truncated":[],"score_notes":{}}'
    assert len(own) + 1 == MAX_ROW_BYTES
    path = tmp_path / "scored.jsonl"
    path.write_bytes(row)
    assert describe(path).rows == 1
    assert rescore(path, tmp_path / "again.jsonl", Rule("r", 1.0, {"mtld": 2.0})).rows == 1
    assert compare(path, tmp_path / "again.jsonl").common == 1
    select(path, tmp_path / "kept.jsonl", top=1, by="mtld")
    assert (tmp_path / "kept.jsonl").read_bytes() == own + b"}\n"
