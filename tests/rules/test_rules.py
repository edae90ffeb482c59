from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.errors import OutputError, RuleError
from instructmining.rules import PRESETS, OutOfRange, Rule
from instructmining.types import COLUMNS

REASONS = [
    (b"{", "invalid JSON"),
    (b"[]", "wanted an object with 'id', 'intercept' and 'terms'"),
    (
        b'{"intercept": 1, "terms": {"mtld": 1}, "weights": {}, "bias": 2}',
        "unknown field 'bias'; known: id, intercept, provenance, reward_model, terms",
    ),
    (b'{"intercept": 1}', "'terms' is None, wanted an object"),
    (b'{"intercept": 1, "terms": {}}', "'terms' is {}, wanted an object"),
    (b'{"intercept": 1, "terms": ["reward"]}', "wanted an object of column: coefficient"),
    (b'{"terms": {"reward": 1}}', "'intercept' is None, wanted a finite number"),
    (b'{"intercept": true, "terms": {"reward": 1}}', "'intercept' is True, wanted a finite number"),
    (b'{"intercept": 1, "terms": {"reward": "2"}}', "'reward' is '2', wanted a finite number"),
    (b'{"intercept": 1, "terms": {"reward": null}}', "'reward' is None, wanted a finite number"),
    (b'{"intercept": 1, "terms": {"reward": NaN}}', "invalid JSON"),
    (
        b'{"intercept": 1, "terms": {"reward": 1}, "provenance": "a paper"}',
        "'provenance' is 'a paper', wanted an object",
    ),
    (b'{"intercept": 1, "terms": {"reward": 1}, "provenance": ["a"]}', "'provenance' is ['a'], wanted an object, as"),
]


def columns(**values: float) -> dict[str, np.ndarray]:
    return {name: np.array([value], dtype=np.float64) for name, value in values.items()}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_with_its_provenance_and_terms_among_the_columns(name: str) -> None:
    rule = Rule.load(name)
    assert rule.id == name
    assert Rule.load(Path(name)) == rule
    assert set(rule.terms) <= set(COLUMNS)
    assert "2307.06290" in str(rule.provenance["paper"])
    assert rule.reward_model is not None
    assert len(rule.digest) == 64


def test_paper_v1_predicts_what_its_formula_says() -> None:
    # 1.0694 - 0.1498*2 + 8.257e-5*100 - 0.9350*0.8
    (found,) = Rule.load("paper-v1").predict(columns(reward=2.0, output_length=100, knn_6=0.8))
    assert found == pytest.approx(1.0694 - 0.2996 + 0.008257 - 0.748, abs=1e-12)
    assert found == pytest.approx(0.030057, abs=1e-12)


def test_paper_v3_predicts_what_its_formula_says() -> None:
    # 0.0274 - 0.0078*1.5 + 0.4421*0.9 - 0.3212*0.8 - 0.1520*0.7
    (found,) = Rule.load("paper-v3").predict(columns(reward=1.5, understandability=0.9, naturalness=0.8, coherence=0.7))
    assert found == pytest.approx(0.0274 - 0.0117 + 0.39789 - 0.25696 - 0.1064, abs=1e-12)
    assert found == pytest.approx(0.05023, abs=1e-12)


def test_predictions_are_one_float64_a_row_and_other_columns_are_ignored() -> None:
    rule = Rule("mine", 1.0, {"mtld": 2.0})
    found = rule.predict({"mtld": np.array([1, 2, 3]), "reward": np.array([9.0, 9.0, 9.0])})
    assert found.dtype == np.float64
    assert found.tolist() == [3.0, 5.0, 7.0]
    assert rule.contributions({"mtld": np.array([1, 2], dtype=np.float32)})["mtld"].dtype == np.float64
    assert (rule.reward_model, rule.provenance, rule.digest) == (None, {}, "")  # it came from no file


def test_a_missing_value_makes_its_row_undefined_and_no_other() -> None:
    rule = Rule("mine", 1.0, {"mtld": 2.0, "reward": -1.0})
    found = rule.predict({"mtld": np.array([1.0, np.nan, 3.0]), "reward": np.array([0.5, 0.5, np.nan])})
    assert found[0] == 2.5
    assert np.isnan(found).tolist() == [False, True, True]


def test_no_rows_have_no_predictions() -> None:
    assert Rule("mine", 1.0, {"mtld": 2.0}).predict({"mtld": np.array([])}).tolist() == []


NUMBERS = st.floats(-1e3, 1e3)


@settings(max_examples=50, deadline=None)
@given(
    intercept=NUMBERS,
    terms=st.dictionaries(st.sampled_from(COLUMNS[:-1]), NUMBERS, min_size=1),
    data=st.data(),
)
def test_the_contributions_and_the_intercept_sum_to_the_prediction(
    intercept: float, terms: dict[str, float], data: st.DataObject
) -> None:
    rule = Rule("mine", intercept, terms)
    values = {name: np.array(data.draw(st.lists(NUMBERS, min_size=3, max_size=3))) for name in terms}
    parts = rule.contributions(values)
    assert list(parts) == list(terms)
    for name, part in parts.items():
        np.testing.assert_array_equal(part, terms[name] * values[name])
    np.testing.assert_allclose(intercept + np.sum(list(parts.values()), axis=0), rule.predict(values), atol=1e-6)


def test_a_term_without_a_column_is_an_error_that_names_both_sides() -> None:
    rule = Rule.load("paper-v1")
    with pytest.raises(RuleError, match="rule 'paper-v1' needs output_length, knn_6; the columns are reward, mtld"):
        rule.predict(columns(reward=1.0, mtld=50.0))


def test_a_users_own_file_loads_with_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    content = b'{"intercept": 1, "terms": {"mtld": -2.5}, "reward_model": "me/mine"}'
    path.write_bytes(content)
    rule = Rule.load(path)
    assert (rule.id, rule.intercept, rule.terms, rule.reward_model) == ("mine", 1.0, {"mtld": -2.5}, "me/mine")
    assert isinstance(rule.intercept, float)
    assert rule.provenance == {}
    assert rule.digest == hashlib.sha256(content).hexdigest()
    assert Rule.load(str(path)) == rule


def test_the_id_in_the_file_goes_before_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(b'{"id": "ours", "intercept": 1, "terms": {"mtld": 1}}')
    rule = Rule.load(path)
    assert (rule.id, rule.reward_model) == ("ours", None)


def test_names_that_are_numbers_are_taken_as_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(b'{"id": 5, "intercept": 1, "terms": {"mtld": 1}, "reward_model": 7}')
    rule = Rule.load(path)
    assert (rule.id, rule.reward_model) == ("5", "7")


@pytest.mark.parametrize(("content", "reason"), REASONS)
def test_a_broken_file_is_an_error_that_says_where_and_what(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(RuleError) as caught:
        Rule.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


def test_an_unknown_rule_is_an_error_that_lists_the_presets(tmp_path: Path) -> None:
    with pytest.raises(
        RuleError, match=r"^rule 'paper-v2': no preset \(paper-v1, paper-v3\) and no file: No such file"
    ):
        Rule.load("paper-v2")
    with pytest.raises(RuleError, match=f"^rule '{tmp_path}': .*Is a directory"):
        Rule.load(tmp_path)


# Ranges and files

RANGED = Rule("mine", 1.0, {"mtld": 2.0, "reward": -1.0}, provenance={"ranges": {"mtld": [60.0, 80.0], "ifd": [0, 1]}})


def test_means_outside_of_the_fitted_ranges_are_told_and_others_not() -> None:
    assert RANGED.outside_range({"mtld": 60.0, "reward": 99.0, "ifd": 9.0}) == ()
    assert RANGED.outside_range({"mtld": 80.5}) == (OutOfRange("mtld", 80.5, 60.0, 80.0),)
    (told,) = RANGED.outside_range({"mtld": 59.0})
    assert str(told) == "mtld is 59, the rule's runs had 60 to 80"
    assert RANGED.outside_range({"mtld": float("nan")}) == ()
    assert RANGED.outside_range({}) == ()
    assert Rule.load("paper-v3").outside_range({"reward": 1e9}) == ()


@pytest.mark.parametrize("ranges", [[1, 2], {"mtld": [1]}, {"mtld": [2, 1]}, {"mtld": ["a", "b"]}, {"mtld": 3}])
def test_ranges_that_are_none_are_an_error(ranges: object) -> None:
    with pytest.raises(RuleError, match="range"):
        Rule("mine", 1.0, {"mtld": 2.0}, provenance={"ranges": ranges}).outside_range({"mtld": 1.5})


def test_a_saved_rule_loads_as_it_was(tmp_path: Path) -> None:
    RANGED.save(tmp_path / "rule.json")
    found = Rule.load(tmp_path / "rule.json")
    assert found.digest == hashlib.sha256((tmp_path / "rule.json").read_bytes()).hexdigest()
    assert found.as_json() == RANGED.as_json()
    assert [file.name for file in tmp_path.iterdir()] == ["rule.json"]


def test_a_rule_that_exists_is_kept_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "rule.json").write_text("mine")
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        RANGED.save(tmp_path / "rule.json")
    assert (tmp_path / "rule.json").read_text() == "mine"
    RANGED.save(tmp_path / "rule.json", overwrite=True)
    assert Rule.load(tmp_path / "rule.json").id == "mine"


def test_a_prediction_beyond_all_numbers_has_a_reason() -> None:
    rule = Rule("r", 0.0, {"mtld": 1e308, "ifd": -1e308})
    values = columns(mtld=100.0, ifd=100.0)
    assert rule.reasons(values, rule.predict(values)) == {0: "not a finite number"}
