from __future__ import annotations

import io
import json
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest

from instructmining import Description, Rule, describe
from instructmining.errors import OutputError, RuleError, SelectionError
from instructmining.rules import OutOfRange

QUANTILES = [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]
Write = Callable[..., Path]
Run = Callable[..., int]


@pytest.fixture
def table() -> pd.DataFrame:
    """200 rows as score writes them: three indicators, nulls in two of them, a prediction."""
    rng = np.random.default_rng(11)
    table = pd.DataFrame(rng.normal(size=(200, 3)), columns=["reward", "mtld", "ifd"])
    table["mtld"] += table["reward"]
    table.loc[:9, "mtld"] = np.nan
    table.loc[5:30, "ifd"] = np.nan
    table["predicted_log_loss"] = 1 - 0.5 * table["mtld"] + 0.1 * table["ifd"]
    return table


def lines(table: pd.DataFrame, prefix: str = "") -> bytes:
    rows = [
        {"text": "x", **{f"{prefix}{name}": None if np.isnan(value) else value for name, value in row.items()}}
        for row in table.to_dict("records")
    ]
    return b"".join(orjson.dumps(row | {f"{prefix}truncated": [], f"{prefix}score_notes": {}}) + b"\n" for row in rows)


@pytest.fixture
def scored(table: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "scored.jsonl"
    path.write_bytes(lines(table))
    return path


# Numbers


def test_each_column_is_summed_up_as_pandas_does(scored: Path, table: pd.DataFrame) -> None:
    described = describe(scored)
    assert described.rows == 200
    assert list(described.columns) == list(table)
    for name, summary in described.columns.items():
        found = [summary.minimum, summary.percentile_5, summary.percentile_25, summary.median]
        found += [summary.percentile_75, summary.percentile_95, summary.maximum]
        assert found == pytest.approx(table[name].quantile(QUANTILES).tolist(), rel=1e-12)
        assert summary.mean == pytest.approx(table[name].mean(), rel=1e-12)
        assert summary.standard_deviation == pytest.approx(table[name].std(), rel=1e-12)
        assert summary.nulls == table[name].isna().sum()


def test_correlations_and_inflation_are_there_by_name(scored: Path, table: pd.DataFrame) -> None:
    described = describe(scored)
    pd.testing.assert_frame_equal(pd.DataFrame(described.pearson), table.corr(), rtol=0, atol=1e-12)
    pd.testing.assert_frame_equal(pd.DataFrame(described.spearman), table.corr("spearman"), rtol=0, atol=1e-12)
    indicators = table[["reward", "mtld", "ifd"]].dropna()
    wanted = np.diag(np.linalg.inv(indicators.corr()))
    assert described.inflation == pytest.approx(dict(zip(indicators, wanted, strict=True)), rel=1e-9)


def test_columns_with_a_prefix_are_described_under_their_plain_names(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_bytes(lines(table, prefix="im_"))
    assert list(describe(path, prefix="im_").columns) == list(table)
    with pytest.raises(
        SelectionError, match=r"no column that score adds.*Score it first: .*--keep-scores.*give --prefix"
    ):
        describe(path)


def test_truncated_rows_are_counted_and_each_of_their_roles(write_rows: Write) -> None:
    cuts: list[list[str]] = [[], ["embedding"], ["embedding", "reward"], []]
    described = describe(write_rows(*({"mtld": 1, "truncated": cut} for cut in cuts)))
    assert (described.truncated_rows, described.truncated) == (2, {"embedding": 2, "reward": 1})


def test_a_truncated_column_that_is_no_list_is_an_error(write_rows: Write) -> None:
    with pytest.raises(SelectionError, match=r"line 1: column 'truncated' is 'yes' .*, wanted a list of roles"):
        describe(write_rows({"mtld": 1, "truncated": "yes"}))


def test_what_is_not_defined_is_none(write_rows: Write) -> None:
    one = describe(write_rows({"mtld": 3, "ifd": None}))
    assert (one.columns["mtld"].mean, one.columns["mtld"].standard_deviation) == (3, None)
    assert (one.columns["ifd"].mean, one.columns["ifd"].maximum, one.columns["ifd"].nulls) == (None, None, 1)
    assert one.pearson["mtld"]["ifd"] is None
    assert one.inflation == {"mtld": None, "ifd": None}
    assert one.predicted is None


def test_a_file_without_rows_is_described_as_such(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_bytes(b"")
    described = describe(tmp_path / "none.jsonl", rule="paper-v1")
    assert described == Description(str(tmp_path / "none.jsonl"), 0, {}, 0, {}, {}, {}, {}, None)


# The predicted loss of the set


def test_without_a_rule_the_predictions_of_the_file_are_averaged(scored: Path, table: pd.DataFrame) -> None:
    predicted = describe(scored).predicted
    assert predicted is not None
    assert (predicted.rule, predicted.at_means, predicted.rows) == (None, None, 169)
    assert predicted.mean_of_rows == pytest.approx(table["predicted_log_loss"].mean(), rel=1e-12)


def test_a_rule_is_taken_at_the_means_and_over_the_rows(scored: Path, table: pd.DataFrame) -> None:
    predicted = describe(scored, rule=Rule("mine", 2.0, {"reward": 0.5, "mtld": -1.0})).predicted
    assert predicted is not None
    assert predicted.at_means == pytest.approx(2 + 0.5 * table["reward"].mean() - table["mtld"].mean())
    assert predicted.mean_of_rows == pytest.approx((2 + 0.5 * table["reward"] - table["mtld"]).mean())
    assert predicted.rows == 190


def test_without_nulls_both_predictions_are_equal(scored: Path) -> None:
    predicted = describe(scored, rule=Rule("mine", 2.0, {"reward": 0.5})).predicted
    assert predicted is not None
    assert predicted.at_means == pytest.approx(predicted.mean_of_rows, rel=1e-12)


def test_a_rule_whose_column_is_missing_is_an_error(scored: Path) -> None:
    with pytest.raises(RuleError, match="needs output_length, knn_6; columns there: reward, mtld"):
        describe(scored, rule="paper-v1")


def test_a_mean_outside_of_the_fitted_range_is_named(write_rows: Write) -> None:
    ranges = {"mtld": [0, 1], "ifd": [0.5, 3], "reward": [5, 6]}
    rule = Rule("mine", 0.0, {"mtld": 1.0, "ifd": 1.0}, provenance={"ranges": ranges})
    predicted = describe(write_rows({"mtld": 1, "ifd": 1}, {"mtld": 2, "ifd": 2}), rule=rule).predicted
    assert predicted is not None
    assert predicted.extrapolated == (OutOfRange("mtld", 1.5, 0.0, 1.0),)


@pytest.mark.parametrize("provenance", [{}, {"ranges": {}}, {"ranges": {"ifd": [0, 1]}}])
def test_a_rule_that_states_no_range_warns_of_none(write_rows: Write, provenance: dict[str, object]) -> None:
    predicted = describe(write_rows({"mtld": 9}), rule=Rule("r", 0, {"mtld": 1.0}, provenance=provenance)).predicted
    assert predicted is not None
    assert predicted.extrapolated == ()


# Memory


def test_memory_grows_by_numbers_of_a_column_not_by_rows(tmp_path: Path) -> None:
    line = b'{"text":"%s","mtld":%r,"reward":%r,"ifd":%r,"truncated":[],"score_notes":{}}\n'
    peaks = []
    for rows in (5_000, 25_000):
        path = tmp_path / "scored.jsonl"
        path.write_bytes(b"".join(line % (b"x" * 500, n / 7, math.sin(n), n * 0.3) for n in range(rows)))
        tracemalloc.start()
        describe(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 20_000 * 100


# The command


def test_the_command_shows_text_json_and_the_table_for_fit(
    run: Run, scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = describe(scored)
    assert run("describe", scored) == 0
    assert f"{scored}: 200 rows" in capsys.readouterr().out
    assert run("describe", scored, "--format", "json") == 0
    (found,) = json.loads(capsys.readouterr().out)["sets"]
    assert found["columns"]["mtld"]["median"] == described.columns["mtld"].median
    assert run("describe", scored, scored, "--format", "csv") == 0
    read = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(read) == ["name", "reward", "mtld", "ifd"]
    assert read["mtld"].tolist() == [described.means["mtld"]] * 2


def test_an_extrapolation_is_said_on_standard_error(
    run: Run, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = {"id": "mine", "intercept": 0, "terms": {"mtld": 1}, "provenance": {"ranges": {"mtld": [50, 60]}}}
    (tmp_path / "rule.json").write_bytes(orjson.dumps(rule))
    assert run("describe", scored, "--rule", tmp_path / "rule.json", "--format", "csv") == 0
    shown = capsys.readouterr()
    assert "caution" in shown.err
    assert "the rule's runs had 50 to 60: the prediction extrapolates" in shown.err
    assert "caution" not in shown.out


def test_a_text_goes_to_a_file_that_is_not_there_yet(
    run: Run, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sets.csv"
    assert run("describe", scored, "--format", "csv", "-o", out) == 0
    assert capsys.readouterr().out == ""
    assert out.read_text().startswith("name,reward,mtld,ifd\n")
    assert run("describe", scored, "-o", out) == 1
    assert "exists; give --overwrite" in capsys.readouterr().err
    assert run("describe", scored, "-o", scored, "--overwrite") == 1
    assert "which this command reads; name another output" in capsys.readouterr().err
    assert run("describe", scored, "--format", "json", "-o", out, "--overwrite") == 0
    assert json.loads(out.read_text())["sets"]


def test_a_temporary_folder_that_is_gone_is_an_error_of_ours(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="gone: No such file or directory; TMPDIR names another"):
        describe(scored)


def test_values_over_few_tokens_are_counted(run: Run, write_rows: Write, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"output_length": n, "perplexity": 10.0**n, "truncated": [], "score_notes": {}} for n in (1, 2, 9)]
    assert describe(write_rows(*rows)).few_tokens == {"perplexity": 2}
    assert run("describe", write_rows(*rows), "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["sets"][0]["few_tokens"] == {"perplexity": 2}


def test_the_tables_fit_the_terminal(
    run: Run, scored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(scored.parent)
    name = f"{'a-long-folder-name/' * 3}scored-again.jsonl"
    Path(name).parent.mkdir(parents=True)
    Path(name).write_bytes(scored.read_bytes())
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (("describe", scored.name, name, name), ("compare", name, scored.name)):
        assert run(*arguments) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    monkeypatch.delenv("COLUMNS")
    assert run("describe", scored.name) == 0  # no terminal: lines are as long as they are
    assert max(map(len, capsys.readouterr().out.splitlines())) > 80


def test_a_truncated_column_of_other_names_than_roles_is_an_error_in_a_short_message(write_rows: Write) -> None:
    with pytest.raises(SelectionError, match="'truncated' is a list, wanted a list of roles, reward") as found:
        describe(write_rows({"mtld": 1, "truncated": [1_000_000 * "x"]}))
    assert len(str(found.value)) < 1000


def test_many_fields_are_not_all_named_in_an_error(write_rows: Write) -> None:
    with pytest.raises(SelectionError, match="field_39 and 99,960 more") as found:
        describe(write_rows({f"field_{number}": 1 for number in range(100_000)}))
    assert len(str(found.value)) < 2000


@pytest.mark.parametrize("value", [1e101, -1e308])
def test_a_number_whose_square_is_none_is_an_error(write_rows: Write, value: float) -> None:
    with pytest.raises(
        SelectionError, match=r"line 2: column 'mtld' is .*, wanted a number between -1e\+100 and 1e\+100"
    ):
        describe(write_rows({"mtld": 1}, {"mtld": value}))


def test_a_rule_beyond_all_numbers_predicts_nothing(write_rows: Write) -> None:
    described = describe(write_rows({"mtld": 100}, {"mtld": 1}), rule=Rule("r", 0.0, {"mtld": 1e308}))
    assert described.predicted is not None
    assert (described.predicted.at_means, described.predicted.rows) == (None, 1)
