"""Whole pages: what they say of every kind of file, that they are safe, small and the same each time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from page_parser import Page
from scored_rows import CAUTION, pair_rows, scored_rows, write_run, write_scored

from instructmining import Extras, select
from instructmining.errors import InputError, OutputError, RuleError, SelectionError
from instructmining_report import ReportOptions, report

SECTIONS = ["sets", "columns", "cut", "terms", "groups", "length", "together", "repeats", "missing", "examples"]
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "<img src=x onerror=alert(3)>",
    '"><svg onload=alert(4)>',
    "{{ 7 * 7 }}{% raw %}",
    "\u202eevil\u2066\u0000\u001b[31m\u2028\ufeff\U000e0041",
    "</textarea></title></style><!-- <plaintext>",
    "javascript:alert(5) &lt;b&gt; &amp;amp; ' \" `",
]


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    path = write_scored(tmp_path / "scored.jsonl", scored_rows())
    write_run(path)
    return path


def page_of(*args: object, **options: object) -> Page:
    page = Page(report(*args, None, ReportOptions(**options)).html)  # type: ignore[arg-type]
    page.check()
    return page


def sections(page: Page) -> list[str]:
    return [str(attributes["id"]) for tag, attributes in page.elements if tag == "section"]


# What it says


def test_a_page_has_every_section_and_names_rows_rule_and_cautions(scored: Path) -> None:
    page = page_of(scored)
    assert sections(page) == SECTIONS
    assert "60 rows" in page.text
    assert CAUTION in page.text
    assert "paper-v1" in page.text
    assert "org/reward (fp32)" in page.text
    assert "no word in the response" in page.text
    assert "6 rows were truncated" in page.text


def test_selections_without_scores_take_those_of_the_whole_set(scored: Path, tmp_path: Path) -> None:
    half, drawn = tmp_path / "half.jsonl", tmp_path / "drawn.jsonl"
    select(scored, half, fraction=0.5, extras=Extras(random_baseline=drawn, seed=3))
    made = report([scored, half, drawn])
    page = Page(made.html)
    page.check()
    assert made.rows == {"scored": 60, "half": 30, "drawn": 30}
    assert "half: 30 rows in both, 30 in scored alone, 0 in half alone." in " ".join(page.text.split())
    assert "those of equal rows of scored" in page.text
    assert "fraction 0.5" in page.text
    assert page.text.count("Read with care") == 1


def test_groups_are_by_a_usual_field_or_the_one_that_is_named(scored: Path) -> None:
    assert "the first usual one with few values" in page_of(scored).text
    named = page_of(scored, group_by="instruction")
    assert "40 smaller groups with 40 rows are not shown" in " ".join(named.text.split())
    with pytest.raises(SelectionError, match=r"no field 'sauce'.*'source'"):
        page_of(scored, group_by="sauce")


def test_the_rows_are_ordered_by_another_column(scored: Path) -> None:
    page = page_of(scored, by="reward", descending=True)
    assert "by reward, largest first" in page.text
    with pytest.raises(SelectionError, match="no column 'rewrad'"):
        page_of(scored, by="rewrad")


def test_repeats_and_their_beginnings_are_shown(tmp_path: Path) -> None:
    rows = scored_rows(20)
    page = page_of(write_scored(tmp_path / "s.jsonl", [*rows, rows[3], rows[3], rows[4]]))
    text = " ".join(page.text.split())
    assert re.search(r"rows equal to an earlier one ?3\b", text)
    assert "3 times, rows 4, 21, 22" in text
    assert "2 times, rows 5, 23" in text


def test_rejected_rows_are_counted_by_reason_with_the_first_of_each(scored: Path) -> None:
    rejects = [
        {
            "source": "a",
            "line": 3,
            "offset": 0,
            "reason": "not UTF-8: byte 0xe9 at byte 43 of the row",
            "row_base64": "",
        },
        {
            "source": "a",
            "line": 4,
            "offset": 9,
            "reason": "not UTF-8: byte 0xe8 at byte 7 of the row",
            "row_base64": "",
        },
        {"source": "a", "line": 9, "offset": 90, "reason": "the response is empty", "row": '{"output": ""}'},
    ]
    Path(f"{scored}.rejects.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in rejects))
    text = " ".join(page_of(scored).text.split())
    assert "not UTF-8: byte … at byte … of the row" in text
    assert re.search(r"2 ?line 3: not UTF-8", text)
    assert 'line 9: {"output": ""}' in text


def test_examples_show_turns_of_every_role_and_their_terms(tmp_path: Path) -> None:
    rows = scored_rows(4)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "weather", "arguments": "{}"}]},
        {"role": "tool", "content": '{"sky": "clear"}'},
        {"role": "assistant", "content": "Clear."},
    ]
    for row in rows:
        for name in ("instruction", "input", "output"):
            del row[name]
        row["messages"] = messages
    path = write_scored(tmp_path / "chat.jsonl", rows)
    write_run(path)
    page = page_of(path)
    for role in ("system", "user", "assistant", "tool"):
        assert any(f"turn {role}" in str(found.get("class")) for _, found in page.elements)
    assert '"name":"weather"' in page.text


def test_without_examples_no_text_of_a_row_is_in_the_page(scored: Path) -> None:
    rejects = {"source": "a", "line": 9, "reason": "turn has the unknown role 'SECRET'", "row": "Answer SECRET"}
    Path(f"{scored}.rejects.jsonl").write_bytes(orjson.dumps(rejects))
    rows = scored_rows()
    write_scored(scored, [*rows, rows[0]])
    made = report(scored, None, ReportOptions(texts=False)).html.decode()
    assert not re.search(r"Question \d|Answer \d|SECRET", made)
    assert "unknown role" in made
    assert "books" in made
    assert "Question 1" in report(scored).html.decode()


# Every kind of file


def test_a_file_without_rows_has_a_page_that_says_so(tmp_path: Path) -> None:
    page = page_of(write_scored(tmp_path / "none.jsonl", []))
    assert "none has no rows." in page.text
    assert sections(page) == ["sets", "repeats", "missing"]


def test_one_row_has_a_page(tmp_path: Path) -> None:
    path = write_scored(tmp_path / "one.jsonl", scored_rows(1))
    write_run(path)
    page = page_of(path)
    assert "1 row with" in page.text
    assert sum(tag == "details" and found.get("class") == "talk" for tag, found in page.elements) == 1


def test_columns_that_are_null_or_constant_are_shown_as_they_are(tmp_path: Path) -> None:
    rows = [row | {"mtld": None, "reward": 2.0, "perplexity": 7} for row in scored_rows(12)]
    for row in rows:
        del row["predicted_log_loss"]
    page = page_of(write_scored(tmp_path / "s.jsonl", rows))
    assert "No row has a value." in page.text
    assert "since the file has no prediction" in page.text


def test_all_predictions_null_is_said(tmp_path: Path) -> None:
    page = page_of(write_scored(tmp_path / "s.jsonl", [row | {"predicted_log_loss": None} for row in scored_rows(9)]))
    assert "no row has a value of predicted_log_loss" in page.text
    assert "cut" not in sections(page)
    assert "examples" not in sections(page)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz"])
def test_other_kinds_of_files_give_the_same_figures(scored: Path, tmp_path: Path, suffix: str) -> None:
    other = tmp_path / "other" / f"scored{suffix}"
    other.parent.mkdir()
    select(scored, other, top=60, by="mtld", keep_scores=True) if suffix != ".parquet" else pq.write_table(
        pa.Table.from_pylist([row | {"score_notes": json.dumps(row["score_notes"])} for row in scored_rows()]),
        other,
    )
    page = page_of(other, rule="paper-v1")
    assert "examples" in sections(page)
    assert "terms" in sections(page)


def test_a_prefix_is_taken_off(tmp_path: Path) -> None:
    own = {"instruction", "input", "output", "source"}
    rows = [{name if name in own else f"im_{name}": value for name, value in row.items()} for row in scored_rows(20)]
    page = page_of(write_scored(tmp_path / "s.jsonl", rows), prefix="im_", rule="paper-v1")
    assert sections(page) == SECTIONS
    assert "im_reward" not in page.text
    with pytest.raises(SelectionError, match="--prefix"):
        page_of(tmp_path / "s.jsonl")


def test_preference_pairs_show_both_sides_and_their_margin(tmp_path: Path) -> None:
    page = page_of(write_scored(tmp_path / "pairs.jsonl", pair_rows()), rule="paper-v1")
    assert "Chosen minus rejected" in page.text
    assert "chosen.predicted_log_loss" in page.text
    assert any("turn assistant rejected" in str(found.get("class")) for _, found in page.elements)
    assert "computed for this page by the rule" in page.text


def test_rows_in_no_format_are_shown_by_their_fields(tmp_path: Path) -> None:
    rows = [{"alpha": f"a{row}", "beta": [row], "reward": float(row)} for row in range(9)]
    page = page_of(write_scored(tmp_path / "s.jsonl", rows))
    assert "in no known format" in page.text
    assert "a8" in page.text


def test_rows_in_memory_have_a_page() -> None:
    made = report(scored_rows(10))
    Page(made.html).check()
    assert list(made.rows.values()) == [10]


def test_a_rule_predicts_rows_without_predictions_and_must_be_the_files_own(scored: Path, tmp_path: Path) -> None:
    rows = scored_rows(10)
    for row in rows:
        del row["predicted_log_loss"]
    page = page_of(write_scored(tmp_path / "s.jsonl", rows), rule="paper-v1")
    assert "computed for this page by the rule" in page.text
    with pytest.raises(SelectionError, match="was scored with another rule"):
        page_of(
            write_scored(tmp_path / "t.jsonl", [row | {"predicted_log_loss": 9.0} for row in rows]), rule="paper-v1"
        )
    with pytest.raises(RuleError, match="needs"):
        page_of(scored, rule="paper-v3")


def test_predictions_that_are_not_the_rules_of_the_run_file_have_no_terms(tmp_path: Path) -> None:
    rows = scored_rows(10)
    rows[3]["predicted_log_loss"] = 5.0
    path = write_scored(tmp_path / "s.jsonl", rows)
    write_run(path)
    made = report(path)
    assert "terms" not in sections(Page(made.html))
    (remark,) = made.remarks
    said = f"1 of the predictions in {path} are not those of rule 'paper-v1'; rescore it first"
    assert remark == f"the terms of the rule are not shown: {said}"
    assert "1 of the predictions in s.jsonl are not those of rule" in Page(made.html).text


def test_rows_without_predictions_warn_of_no_rule_that_nobody_asked_for(tmp_path: Path) -> None:
    path = write_scored(tmp_path / "s.jsonl", [{"output": "a", "reward": float(row)} for row in range(5)])
    path.with_name("s.jsonl.run.json").write_bytes(b"{}")
    assert report(path).remarks == ()


def test_a_page_of_few_rows_speaks_of_no_line_of_medians(tmp_path: Path) -> None:
    text = page_of(write_scored(tmp_path / "s.jsonl", scored_rows(12))).text
    assert "too few for medians" in text
    assert "Medians as a table" not in text


def test_pairs_say_that_margins_are_left_out_of_the_planes(tmp_path: Path) -> None:
    assert "without margins" in page_of(write_scored(tmp_path / "s.jsonl", pair_rows())).text


def test_no_folder_of_a_path_is_in_the_page(scored: Path, tmp_path: Path) -> None:
    alone = write_scored(tmp_path / "alone.jsonl", scored_rows(10))
    for one in (scored, alone):
        assert str(tmp_path) not in report(one).html.decode()


def test_columns_that_lack_a_term_of_the_run_files_rule_have_no_terms(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "knn_6"} for row in scored_rows(10)]
    path = write_scored(tmp_path / "s.jsonl", rows)
    write_run(path)
    made = report(path)
    assert "terms" not in sections(Page(made.html))
    assert "lacks a term of rule 'paper-v1'" in made.remarks[0]


def test_what_cannot_be_reported_is_one_clear_error(scored: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match=r"no column that score adds\. Score it first: "):
        report(write_scored(tmp_path / "plain.jsonl", [{"instruction": "a", "output": "b"}]))
    with pytest.raises(InputError, match=r"gone\.jsonl"):
        report(tmp_path / "gone.jsonl")
    with pytest.raises(SelectionError, match="at most 8"):
        report([scored] * 9)
    with pytest.raises(SelectionError, match="names no file"):
        report([])
    with pytest.raises(SelectionError, match="examples is 0"):
        ReportOptions(examples=0)


# Where it goes


def test_the_page_is_put_in_place_whole_and_replaces_nothing_unasked(scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    made = report(scored, out)
    assert out.read_bytes() == made.html
    assert made.size == len(made.html)
    with pytest.raises(OutputError, match="exists"):
        report(scored, out)
    report(scored, out, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "scored.jsonl", "scored.jsonl.run.json"]


def test_no_input_is_replaced(tmp_path: Path) -> None:
    scored = write_scored(tmp_path / "scored.html", scored_rows(5))
    before = scored.read_bytes()
    with pytest.raises(OutputError, match="would replace"):
        report(scored, scored, overwrite=True)
    assert scored.read_bytes() == before


def test_the_same_files_and_options_give_the_same_bytes(scored: Path) -> None:
    assert report([scored, scored]).html == report([scored, scored]).html


# Safety


def test_text_of_rows_is_text_whatever_it_holds(tmp_path: Path) -> None:
    def made(texts: list[str]) -> Page:
        rows = scored_rows(len(texts))
        for row, text in zip(rows, texts, strict=True):
            row |= {"instruction": text, "output": f"x {text}", "source": text}
            row["score_notes"] = {"mtld": text}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        path = write_scored(folder / "s.jsonl", [*rows, *rows])
        write_run(path, caution=texts[0], device=texts[2])
        rejects = [{"line": at, "reason": text, "source": text, "row": text} for at, text in enumerate(texts)]
        Path(f"{path}.rejects.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in rejects))
        Path(f"{path}.selection.json").write_bytes(orjson.dumps({"by": texts[1], "choice": {"where": texts}}))
        page = Page(report(path, None, ReportOptions(examples=len(texts))).html)
        page.check()
        return page

    hostile, plain = made(HOSTILE), made([f"text {number}" for number in range(len(HOSTILE))])
    assert hostile.tags == plain.tags
    assert [tag for tag, _ in hostile.raw] == [tag for tag, _ in plain.raw]
    for text in HOSTILE:
        if text.isprintable():
            assert text in hostile.text
    assert not re.search("[\u202e\u2066\u0000\u001b\u2028\ufeff\U000e0041]", hostile.text)
    assert "U+202E" in hostile.text
    assert "49" not in re.findall(r"x (\d+)", hostile.text)


def test_names_of_groups_in_every_script_are_drawn_as_they_are(tmp_path: Path) -> None:
    names = ["$x^2$ $\\frac{$", "漢字かな" * 20, "مرحبا", "🙂🙂", "a\uffffb", "<b>&", "_" * 60, "%s {0} \\n"]
    rows = scored_rows(32)
    for place, row in enumerate(rows):
        row["source"] = names[place % len(names)]
    page = page_of(write_scored(tmp_path / "s.jsonl", rows))
    for name in names:
        if "\uffff" not in name:
            assert name in page.text
    assert "aU+FFFFb" in page.text
    assert page.text.count("$x^2$ $\\frac{$") >= 3  # two tables and the plot


def test_a_file_name_is_text_too(tmp_path: Path) -> None:
    path = tmp_path / '<b onmouseover=alert(1)>"x.jsonl'
    page = page_of(write_scored(path, scored_rows(5)))
    assert "b" not in page.tags
    assert '<b onmouseover=alert(1)>"x' in page.text


def test_halves_of_surrogate_pairs_are_refused_as_json_refuses_them() -> None:
    with pytest.raises(SelectionError, match="surrogates not allowed"):
        report([row | {"output": "a\ud800b"} for row in scored_rows(3)])


def test_a_row_of_a_megabyte_is_cut_and_says_so(tmp_path: Path) -> None:
    rows = scored_rows(6)
    texts = ["<" * 1_000_000, "é" * 1_000_000, "\x00" * 1_000_000, "a b " * 250_000, "", "x"]
    for row, text in zip(rows, texts, strict=True):
        row["output"] = f"{text}."
    made = report(write_scored(tmp_path / "s.jsonl", rows))
    Page(made.html).check()
    assert made.size < 400_000
    assert Page(made.html).text.count("more characters not shown") == 4


def test_many_long_examples_stay_under_the_size_of_a_page(tmp_path: Path) -> None:
    rows = scored_rows(200)
    for row in rows:
        row["output"] = "&" * 100_000
    made = report(write_scored(tmp_path / "s.jsonl", rows), None, ReportOptions(examples=50))
    assert made.size < 3_000_000


def test_the_figures_for_the_script_hold_no_text(scored: Path) -> None:
    page = page_of(scored)
    (data,) = (json.loads(text) for tag, text in page.raw if tag == "script" and text.startswith("{"))
    assert data["rows"][49] == 30
    assert data["rows"][99] == 60
    assert not re.search(
        "[a-zA-Z]", json.dumps([value for key, value in data.items()]).replace("null", "").replace("e-", "")
    )


def test_a_hundred_columns_of_neighbours_fit(tmp_path: Path) -> None:
    rows = [
        row | {f"knn_{k}": 0.9 + k / 1000 + number / 100 for k in range(1, 101)}
        for number, row in enumerate(scored_rows(20))
    ]
    made = report(write_scored(tmp_path / "s.jsonl", rows))
    assert made.size < 1_000_000
    assert "columns of further neighbours are not shown" in made.html.decode()


def test_a_user_sees_a_page_of_a_selection_alone(run: Callable[..., int], scored: Path, tmp_path: Path) -> None:
    assert run("select", scored, "-o", tmp_path / "best.jsonl", "--top", "5", "--keep-scores") == 0
    assert run("report", tmp_path / "best.jsonl", "-o", tmp_path / "best.html") == 0
    assert "selected by" in (tmp_path / "best.html").read_text(encoding="utf-8")
