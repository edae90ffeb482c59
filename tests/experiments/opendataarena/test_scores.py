from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from instructmining import Rule, rescore, select
from instructmining.errors import InputError, OutputError, SelectionError
from instructmining_experiments.opendataarena.scores import Exported, export_scores, import_scores

Write = Callable[..., Path]
NO_NOTES: dict[str, object] = {"truncated": [], "score_notes": {}}


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def row(number: int, **fields: object) -> dict[str, object]:
    return {"instruction": f"Name {number}.", "output": "Green."} | fields


@pytest.fixture
def scored(write_rows: Write) -> Path:
    columns = {"input_length": 4, "output_length": 2, "mtld": 7.5, "ifd": 0.5} | NO_NOTES
    return write_rows(
        row(0, scores={"PPL": 3.5}, **columns), row(1, id="b", **columns | {"ifd": None}), name="scored.jsonl"
    )


def test_columns_are_written_under_their_names_where_the_quantity_is_the_same(scored: Path, tmp_path: Path) -> None:
    done = export_scores(str(scored), str(tmp_path / "oda.jsonl"))
    lengths = {"input_length": 4, "output_length": 2, "mtld": 7.5}
    assert lines(tmp_path / "oda.jsonl") == [
        {"id": 0, "scores": {**lengths, "IFD": 0.5, "Token_Length": 6}},
        {"id": "b", "scores": {**lengths, "IFD": None, "Token_Length": 6}},
    ]
    names = ("input_length", "output_length", "mtld", "IFD", "Token_Length")
    assert done == Exported(rows=2, names=names, null={"IFD": 1})


def test_with_their_rows_they_are_a_pool_with_the_scores_that_were_there(scored: Path, tmp_path: Path) -> None:
    export_scores(str(scored), str(tmp_path / "pool.jsonl"), with_rows=True)
    first, second = lines(tmp_path / "pool.jsonl")
    assert list(first) == ["instruction", "output", "scores", "id"]
    assert first["scores"] == {"PPL": 3.5, "input_length": 4, "output_length": 2, "mtld": 7.5, "IFD": 0.5,
                               "Token_Length": 6}  # fmt: skip
    assert (second["id"], "mtld" in second, "score_notes" in second) == ("b", False, False)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0, mtld=1.0), row(1, id=0, mtld=1.0)], "line 2: has the id '0' of an earlier row"),
        ([row(0, id=1.5, mtld=1.0)], "line 1: id is .*1.5.*, wanted text or a whole number"),
        ([row(0, scores={"mtld": 1}, mtld=1.0)], "line 1: field 'scores' has 'mtld' already"),
        ([row(0, scores=[1], mtld=1.0)], "line 1: field 'scores' is .*, wanted an object"),
        ([row(0, mtld="high")], "line 1: column 'mtld' is .*high.*, wanted a number"),
        ([row(0)], "has no column of score"),
    ],
)
def test_rows_that_cannot_be_exported_are_one_clear_error(
    write_rows: Write, tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    file = write_rows(*rows)
    with pytest.raises((InputError, SelectionError), match=message):
        export_scores(str(file), str(tmp_path / "out.jsonl"), with_rows=True)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_scores_of_each_of_their_forms_become_fields_of_the_row_with_the_id(write_rows: Write, tmp_path: Path) -> None:
    rows = write_rows(row(0), row(1, id="b"), name="rows.jsonl")
    merged = {"PPLScorer": {"score": 12.5}, "IFDScorer": {"score": -1}, "InstagScorer": {"score": 2, "tags": ["a"]}}
    pointwise = write_rows(
        {"id": "b", "scores": merged},
        {"id": 0, "scores": merged | {"PPLScorer": {"score": 0, "error": "too long"}, "IFDScorer": {"score": 0.5}}},
        name="pointwise_scores.jsonl",
    )
    single = write_rows({"id": 0, "score": 9}, {"id": "b", "score": float("nan")}, name="MtldScorer.jsonl")
    judged = write_rows(
        *({"id": one, "scores": {"QA": {"All": {"Clarity": 8}}}} for one in (0, "b")), name="judged.jsonl"
    )
    done = import_scores(str(rows), [str(pointwise), str(single), str(judged)], str(tmp_path / "out.jsonl"))
    first, second = lines(tmp_path / "out.jsonl")
    assert first == row(0) | {
        "oda.PPLScorer": None,
        "oda.IFDScorer": 0.5,
        "oda.InstagScorer": 2,
        "oda.MtldScorer": 9,
        "oda.QA.All.Clarity": 8,
    }
    assert (second["oda.PPLScorer"], second["oda.IFDScorer"], second["oda.MtldScorer"]) == (12.5, None, None)
    assert done.null == {"oda.PPLScorer": 1, "oda.IFDScorer": 1, "oda.MtldScorer": 1}
    assert done.left_out == ("InstagScorer.tags",)
    assert (tmp_path / "out.jsonl").read_bytes().startswith(rows.read_bytes()[:30])


@pytest.mark.parametrize("name", ["IFD", "IFDScorer", "MTLD", "MtldScorer"])
def test_a_score_without_a_value_is_null(write_rows: Write, tmp_path: Path, name: str) -> None:
    rows = write_rows(row(0), row(1), name="rows.jsonl")
    scores = write_rows(*({"id": at, "scores": {name: score}} for at, score in enumerate((-1, 2))), name="scores.jsonl")
    assert import_scores(str(rows), [str(scores)], str(tmp_path / "out.jsonl")).null == {f"oda.{name}": 1}
    assert [line[f"oda.{name}"] for line in lines(tmp_path / "out.jsonl")] == [None, 2]


def test_select_and_rescore_read_imported_scores_by_their_names(
    write_rows: Write, scored: Path, tmp_path: Path
) -> None:
    scores = write_rows(
        {"id": 0, "scores": {"Deita_Quality": 1}}, {"id": "b", "scores": {"Deita_Quality": 5}}, name="oda.jsonl"
    )
    joined, best, again = (tmp_path / name for name in ("joined.jsonl", "best.jsonl", "again.jsonl"))
    import_scores(str(scored), [str(scores)], str(joined))
    select(joined, best, by="oda.Deita_Quality", descending=True, top=1)
    assert lines(best) == [row(1, id="b", **{"oda.Deita_Quality": 5})]
    rescore(joined, again, Rule("mine", 1.0, {"oda.Deita_Quality": 2.0, "mtld": 1.0}))
    assert [one["predicted_log_loss"] for one in lines(again)] == [10.5, 18.5]


SCORES = ({"id": 0, "scores": {"PPL": 1}}, {"id": 1, "scores": {"PPL": 2}})


@pytest.mark.parametrize(
    ("rows", "scores", "message"),
    [
        ([row(0), row(1)], SCORES[:1], "rows.jsonl, line 2: .*oda.jsonl has no scores for its id '1'"),
        ([row(0)], SCORES, "oda.jsonl: has scores for the id '1', which no row of .*rows.jsonl has"),
        ([row(0), row(1)], [*SCORES, SCORES[0]], "oda.jsonl, line 3: has the id '0' of an earlier line"),
        ([row(0), row(1, id="0")], SCORES, "rows.jsonl, line 2: has the id '0' of an earlier row"),
        ([row(0), row(1)], [{"scores": {"PPL": 1}}], "oda.jsonl, line 1: has no 'id'; wanted lines such as"),
        ([row(0), row(1)], [{"id": 0, "scores": 1}], "oda.jsonl, line 1: 'scores' is .*, wanted an object"),
        ([row(0)], [{"id": 0, "scores": {"PPL": "low"}}], "oda.jsonl: has no score that is a number"),
        ([row(0, **{"oda.PPL": 1}), row(1)], SCORES, "rows.jsonl, line 1: has a field 'oda.PPL' already"),
    ],
)
def test_an_id_that_is_missing_unknown_or_there_twice_is_one_clear_error(
    write_rows: Write,
    tmp_path: Path,
    rows: list[dict[str, object]],
    scores: list[dict[str, object]],
    message: str,
) -> None:
    given, found = write_rows(*rows), write_rows(*scores, name="oda.jsonl")
    with pytest.raises(InputError, match=message):
        import_scores(str(given), [str(found)], str(tmp_path / "out.jsonl"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["oda.jsonl", "rows.jsonl"]


def test_the_same_score_in_two_files_a_line_that_is_not_json_and_an_output_that_is_read_are_refused(
    write_rows: Write, tmp_path: Path
) -> None:
    rows, one, other = write_rows(row(0), row(1)), *(write_rows(*SCORES, name=name) for name in ("a.jsonl", "b.jsonl"))
    out = str(tmp_path / "out.jsonl")
    with pytest.raises(InputError, match=r"b.jsonl: has the score 'PPL', as .*a.jsonl does; give one of both"):
        import_scores(str(rows), [str(one), str(other)], out)
    with pytest.raises(OutputError, match=r"would replace .*rows.jsonl"):
        import_scores(str(rows), [str(one)], str(rows), overwrite=True)
    one.write_text('{"id": 0, "scores"')
    with pytest.raises(InputError, match=r"a.jsonl, line 1: is not JSON"):
        import_scores(str(rows), [str(one)], out)
    with pytest.raises(InputError, match=r"none.jsonl: No such file"):
        import_scores(str(rows), [str(tmp_path / "none.jsonl")], out)


def test_memory_holds_the_ids_and_not_the_rows(tmp_path: Path) -> None:
    rows, scores = tmp_path / "rows.jsonl", tmp_path / "oda.jsonl"
    text = "x" * 2000
    rows.write_text("".join(json.dumps(row(at, input=text)) + "\n" for at in range(4000)))
    many = {f"score_{name}": 1.5 for name in range(50)}
    scores.write_text("".join(json.dumps({"id": at, "scores": many}) + "\n" for at in range(4000)))
    tracemalloc.start()
    try:
        import_scores(str(rows), [str(scores)], str(tmp_path / "out.jsonl"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows.stat().st_size > 8e6
    assert peak < 4e6
