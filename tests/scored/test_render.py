from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import orjson
import pytest
from balanced_html import read_html

from instructmining.rules import OutOfRange
from instructmining.scored.compare import ColumnDifference, Comparison, SetCounts
from instructmining.scored.describe import ColumnSummary, Description, PredictedLoss
from instructmining.scored.render import comparison_text, descriptions_csv, descriptions_json, descriptions_text


def description(name: str, **means: float | None) -> Description:
    columns = {column: ColumnSummary(1, mean, 0.5, 1, 2, 3, 4, 5, 6, 7) for column, mean in means.items()}
    square = {column: dict.fromkeys(means, 0.25) for column in means}
    predicted = PredictedLoss("mine", 0.5, 0.75, 9, (OutOfRange("mtld", 3.0, 1.0, 2.0),))
    inflation = dict.fromkeys(means, math.inf)
    return Description(name, 10, columns, 3, {"reward": 3}, square, square, inflation, predicted)


def test_the_table_for_fit_has_each_mean_to_the_last_digit_and_gaps_where_a_set_has_none() -> None:
    sets = [description("a,b", mtld=1 / 3, predicted_log_loss=1.0), description("c", reward=None, mtld=2.0, ifd=1e-9)]
    rows = list(csv.reader(io.StringIO(descriptions_csv(sets))))
    assert rows[0] == ["name", "mtld", "reward", "ifd"]
    assert rows[1] == ["a,b", repr(1 / 3), "", ""]
    assert rows[2] == ["c", "2.0", "", "1e-09"]


def test_several_sets_stand_side_by_side_and_nothing_is_cut() -> None:
    name = "a-name-that-is-longer-than-any-terminal-" * 6
    columns = {f"knn_{k}": k / 7 for k in range(1, 30)}
    text = descriptions_text([description(name, **columns), description("short", knn_1=9.5)])
    assert text.count(name) == 3
    first, medians = (block.splitlines() for block in text.split("\n\n")[:2])
    assert (first[0], medians[0]) == ("means", "medians")
    assert medians[3].split() == ["short", "10", "4", *["-"] * 28]
    assert first[1].split() == ["set", "rows", *columns]
    assert first[3].split() == ["short", "10", "9.5", *["-"] * 28]
    assert len({len(line) for line in first[1:]}) == 1


def test_a_set_is_told_with_what_is_cut_and_where_its_rule_extrapolates() -> None:
    lines = descriptions_text([description("one", mtld=3.0, ifd=1.0)]).splitlines()
    assert lines[:4] == [
        "one: 10 rows",
        "truncated: 3 (reward 3)",
        "predicted log loss by rule mine: 0.5 at the set's means, 0.75 as the mean of 9 rows' predictions",
        "outside of what the rule was fitted on: mtld is 3, the rule's runs had 1 to 2",
    ]
    assert lines[6].split() == ["mtld", "3", "4", "0.5", "1", "2", "3", "5", "6", "7", "1", "inf"]


def test_pearson_stands_above_the_diagonal_and_spearman_below() -> None:
    one = Description(
        "one",
        2,
        {"a": ColumnSummary(0), "b": ColumnSummary(0)},
        0,
        {},
        {"a": {"a": 1.0, "b": 0.125}, "b": {"a": 0.125, "b": 1.0}},
        {"a": {"a": 1.0, "b": -0.5}, "b": {"a": -0.5, "b": 1.0}},
        {},
        None,
    )
    assert [line.split() for line in descriptions_text([one]).splitlines()[-3:]] == [
        ["a", "b"],
        ["a", "1", "0.125"],
        ["b", "-0.500", "1"],
    ]


def test_what_is_infinite_or_missing_is_null_in_json() -> None:
    (found,) = orjson.loads(descriptions_json([description("one", mtld=None)]))["sets"]
    assert found["inflation"] == {"mtld": None}
    assert found["columns"]["mtld"]["mean"] is None
    assert found["predicted"]["extrapolated"] == [{"column": "mtld", "mean": 3.0, "least": 1.0, "most": 2.0}]


@pytest.mark.parametrize(("borrows", "words"), [(True, "has no scores, uses those of the other set"), (False, "")])
def test_a_comparison_says_whose_values_they_are(*, borrows: bool, words: str) -> None:
    sides = [SetCounts(name, 1000, {"output_length": 12345}, borrows, 2 * borrows) for name in ("x.jsonl", "y.jsonl")]
    column = ColumnDifference(1.0, 2.0, 0.5, None, 0, 7, 1.0, None, 0.25, 1.0)
    text = comparison_text(Comparison(sides[0], sides[1], 900, 100, 100, {"mtld": column}))
    assert text.startswith("A: x.jsonl: 1,000 rows, output length 12,345 tokens")
    assert words in text
    assert ("lacks 2 of its rows" in text) is borrows
    assert text.splitlines()[-1].split() == ["mtld", "1", "2", "1", "-", "0.5", "-", "0.25", "1", "0", "7"]


def test_tables_fit_a_width_and_no_number_is_cut() -> None:
    columns = dict.fromkeys(("input_length", "chosen.understandability", *(f"knn_{k}" for k in range(9))), 12345.678901)
    names = [f"a/rather/deep/folder/of/runs/with-a-long-name-{run}/scored.jsonl" for run in range(4)]
    sets = [description(name, **columns) for name in names]
    wide, narrow = descriptions_text(sets), descriptions_text(sets, width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.count("12346") == wide.count("12346")
    assert all(f"{name}: 10 rows" in narrow for name in names)  # in full above its table
    assert "…" in narrow.split("rows")[1]
    side = SetCounts(names[0], 1000, {"input_length": 1, "output_length": 12345}, True, 2)
    column = ColumnDifference(1234.56, 1234.56, 1234.56, 1234.56, 100, 700, 1234.56, 1234.56, 1234.56, 1234.56)
    compared = comparison_text(Comparison(side, side, 900, 100, 100, dict.fromkeys(columns, column)), width=80)
    assert max(map(len, compared.splitlines())) <= 80
    assert compared.count("1234.6") == 8 * len(columns)


def test_rows_whose_value_rests_on_few_tokens_are_said_beside_the_mean() -> None:
    one = replace(description("one", perplexity=3.0, ifd=1.0), few_tokens={"perplexity": 12, "ifd": 1})
    lines = descriptions_text([one]).splitlines()
    assert lines[2:4] == [
        "perplexity over fewer than 3 tokens: 12 rows; prefer the median",
        "ifd over fewer than 3 tokens: 1 row; prefer the median",
    ]


# In notebooks


def test_a_description_shows_the_numbers_of_its_text_as_html() -> None:
    one = replace(
        description("a/<b>.jsonl", mtld=1234.5678, **{"chosen.perplexity": None}), few_tokens={"chosen.perplexity": 2}
    )
    found = read_html(one._repr_html_())
    text = descriptions_text([one])
    summaries, correlations = found.tables
    assert [row[:1] + row[2:] for row in summaries] == [
        ["column", "mean", "median", "sd", "min", "5%", "25%", "75%", "95%", "max", "null", "VIF"],
        ["mtld words", "1234.6", "4", "0.5", "1", "2", "3", "5", "6", "7", "1", "inf"],
        ["chosen.perplexity", "-", "4", "0.5", "1", "2", "3", "5", "6", "7", "1", "inf"],
    ]
    assert [row[1] for row in summaries] == ["", "", ""]
    assert correlations == [
        ["", "mtld", "chosen.perplexity"],
        ["mtld", "1", "0.250"],
        ["chosen.perplexity", "0.250", "1"],
    ]
    cells = [cell.split(" ")[0] for row in [*summaries, *correlations] for cell in row if cell]
    assert [cell for cell in cells if cell not in text.split()] == []
    said = text.split("\n\n", maxsplit=1)[0].splitlines()
    assert said[0] == "a/<b>.jsonl: 10 rows"
    assert [line for line in said if line not in found.text.splitlines()] == []


def test_a_set_without_rows_or_columns_is_one_line_of_html() -> None:
    empty = Description("none.jsonl", 0, {}, 0, {}, {}, {}, {}, None)
    found = read_html(empty._repr_html_())
    assert found.tables == []
    assert found.text.split("\n") == ["", "none.jsonl: 0 rows", ""]
    without = Description("nulls", 2, {"a": ColumnSummary(2)}, 0, {}, {"a": {"a": None}}, {"a": {"a": None}}, {}, None)
    summary = read_html(without._repr_html_()).tables[0][1]
    assert summary == ["a", "", *["-"] * 9, "2", "-"]


def test_a_comparison_shows_the_numbers_of_its_text_as_html() -> None:
    sides = [
        SetCounts(name, 1000, {"output_length": 12345}, values_from_other=False, unmatched=0)
        for name in ("x&y.jsonl", "z.jsonl")
    ]
    columns = {
        "mtld": ColumnDifference(1.0, 2.0, 0.5, None, 0, 7, 1.0, None, 0.25, 1.0),
        "knn_6": ColumnDifference(math.nan, 2.0, 0.5, 0.5, 0, 1000, math.inf, -0.25, 0.25, 1.0),
    }
    compared = Comparison(sides[0], sides[1], 900, 100, 100, columns)
    html = compared._repr_html_()
    found = read_html(html)
    lines = comparison_text(compared).splitlines()
    (table,) = found.tables
    names = [row[0].split(" ")[0] for row in table[1:]]
    assert [[name, *row[2:]] for name, row in zip(names, table[1:], strict=True)] == [
        line.split() for line in lines[-2:]
    ]
    assert lines[:3] == found.text.splitlines()[1:4]
    assert html.count("<svg") == 1  # of the column that has a standardized difference
    nothing = Comparison(sides[0], sides[1], 0, 0, 0, {})
    assert read_html(nothing._repr_html_()).tables == []
