"""Columns that folders named ``name=value`` give to the rows below them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instructmining.errors import InputError
from instructmining.reading.examples import read_examples
from instructmining.reading.formats import FieldOptions
from instructmining.reading.options import ReadOptions
from instructmining.reading.partitions import columns_of, top_of
from instructmining.reading.sources import expand
from instructmining.types import Reject, SourceRow

ROW: dict[str, object] = {"instruction": "a", "output": "b"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, *rows: dict[str, object]) -> None:
    """Write rows as the suffix says."""
    file, every = Path(path), list(rows or (ROW,))
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(every), file)
    elif file.suffix == ".csv":
        lines = [",".join(map(str, row.values())) for row in every]
        file.write_text("\n".join([",".join(every[0]), *lines, ""]))
    else:
        file.write_text("".join(f"{json.dumps(row)}\n" for row in every))


def rows_of(source: str, **fields: object) -> list[SourceRow]:
    reader = read_examples(source, fields=FieldOptions(**fields))  # type: ignore[arg-type]
    return [example.row for example in reader if example.row is not None]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_folders_named_with_a_value_are_columns_after_the_rows_own_fields(suffix: str) -> None:
    write(f"data/year=2024/lang=de/x.{suffix}")
    (row,) = rows_of("data")
    assert dict(row.fields) == {**ROW, "year": "2024", "lang": "de"}
    assert json.loads(row.raw) == row.fields
    assert list(json.loads(row.raw)) == [*ROW, "year", "lang"]


def test_values_are_text_with_their_zeros_null_and_decoded() -> None:
    write("data/month=03/x.jsonl")
    write("data/month=__HIVE_DEFAULT_PARTITION__/x.jsonl")
    write("data/month=a%2Fb%20c=d/x.jsonl")
    write("data/month=/x.jsonl")
    write("data/month=%FF/x.jsonl")  # no UTF-8: as it is
    assert [row.fields["month"] for row in rows_of("data")] == ["%FF", "", "03", None, "a/b c=d"]


def test_pyarrow_finds_the_same_columns() -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    write("data/lang=de/kind=a%2Fb/x.parquet")
    write("data/lang=__HIVE_DEFAULT_PARTITION__/kind=c%25d/y.parquet")
    theirs = dataset.dataset("data", partitioning="hive").to_table().to_pylist()
    assert [dict(row.fields) for row in rows_of("data")] == theirs


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        ("data", {"run": "1", "lr": "3e-5"}),
        ("./data/", {"run": "1", "lr": "3e-5"}),
        ("data/run=1", {"lr": "3e-5"}),
        ("data/run=1/lr=3e-5", {}),
        ("data/run=1/lr=3e-5/x.jsonl", {}),
        ("data/run=1/lr=3e-5/*.jsonl", {}),
        ("data/run=1/*/*.jsonl", {"lr": "3e-5"}),
        ("data/run=*/lr=3e-5/*", {"run": "1", "lr": "3e-5"}),
        ("./data/run=*", {"run": "1", "lr": "3e-5"}),  # matches a folder
        ("**/*.jsonl", {"run": "1", "lr": "3e-5"}),
        (".", {"run": "1", "lr": "3e-5"}),
    ],
)
def test_only_folders_below_what_was_given_count(here: Path, given: str, columns: dict[str, str]) -> None:
    write("data/run=1/lr=3e-5/x.jsonl")
    for source in (given, given if given.startswith(".") else str(here / given)):
        (row,) = rows_of(source)
        assert dict(row.fields) == ROW | columns


def test_a_folder_above_the_input_gives_no_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lr=1").mkdir()
    monkeypatch.chdir(tmp_path / "lr=1")
    write("data/x.jsonl")
    for source in ("data", str(tmp_path / "lr=1" / "data")):
        assert dict(rows_of(source)[0].fields) == ROW
        assert expand([source]).partitioned == ()


def test_addresses_are_read_by_their_text() -> None:
    assert top_of("s3://b/data/", is_pattern=False) == "s3://b/data"
    assert top_of("s3://b/data/year=*/x", is_pattern=True) == "s3://b/data"
    path = "s3://b/data/year=2024/lang=de/x.parquet"
    assert columns_of(path, ["s3://b/data"]) == {"year": "2024", "lang": "de"}
    assert columns_of(path, ["s3://b/data/year=2024"]) == {"lang": "de"}
    assert columns_of(path, ["", "/", "s3://b/dat", "s3://c/data"]) == {}


def test_of_two_folders_that_were_given_the_upper_one_counts() -> None:
    write("data/a=1/b=2/x.jsonl")
    assert [dict(row.fields) for row in _of(["data/a=1", "data"])] == [{**ROW, "a": "1", "b": "2"}] * 2


def _of(sources: list[str]) -> list[SourceRow]:
    return [example.row for example in read_examples(sources) if example.row is not None]


def test_a_row_without_fields_gets_them_too() -> None:
    write("data/a=1/x.jsonl", ROW, {})
    rejects: list[Reject] = []
    assert len(list(read_examples("data", on_reject=rejects.append))) == 1
    assert rejects[0].raw == b'{"a":"1"}'


# A field of the same name


@pytest.mark.parametrize(
    ("own", "folder"),
    [
        ("2024", "2024"),
        (2024, "2024"),
        (3, "03"),
        (2.5, "2.50"),
        (3e-5, "3e-5"),
        (True, "true"),
        (False, "False"),
        (None, "__HIVE_DEFAULT_PARTITION__"),
        ("2024-01-02T03:04:05", "2024-01-02 03%3A04%3A05.000000"),
    ],
)
def test_a_rows_own_field_that_says_the_same_stays_as_it_is(own: object, folder: str) -> None:
    write(f"data/when={folder}/more=1/x.jsonl", {"when": own, **ROW})
    (row,) = rows_of("data")
    assert list(row.fields.items()) == [("when", own), *ROW.items(), ("more", "1")]
    assert json.loads(row.raw) == row.fields


def test_a_row_with_all_columns_keeps_its_bytes() -> None:
    write("data/a=1/x.jsonl", {"a": 1, **ROW})
    assert rows_of("data")[0].raw == json.dumps({"a": 1, **ROW}).encode()


@pytest.mark.parametrize(
    ("own", "folder"),
    [("2023", "2024"), (2023, "2024"), (None, "2024"), ("x", "__HIVE_DEFAULT_PARTITION__"), (2024, "x"), ([1], "1")],
)
def test_a_file_whose_first_row_says_another_is_an_input_error(own: object, folder: str) -> None:
    write(f"data/year={folder}/x.jsonl", {"year": own, **ROW})
    with pytest.raises(
        InputError, match=r"x\.jsonl, line 1: field 'year' is .* the folder of the file says .*; rename"
    ):
        list(read_examples("data"))


def test_a_later_row_that_says_another_is_a_reject() -> None:
    write("data/year=2024/x.jsonl", {"year": 2024, **ROW}, {"year": 2023, **ROW}, ROW)
    rejects: list[Reject] = []
    assert len(list(read_examples("data", on_reject=rejects.append))) == 2
    (reject,) = rejects
    assert (reject.line, json.loads(reject.raw)["year"]) == (2, 2023)
    assert reject.reason.startswith("field 'year' is 2023 (int), the folder of the file says '2024'")


def test_folders_of_one_name_and_two_values_are_an_input_error() -> None:
    write("data/a=1/a=1/x.jsonl")
    assert rows_of("data")[0].fields["a"] == "1"
    write("data/a=1/a=2/x.jsonl")
    with pytest.raises(InputError, match=r"its folders say that 'a' is '1'.* and '2'.*; rename one of them"):
        read_examples("data")


# Roles


def test_a_column_of_a_folder_is_not_reported_as_text_that_is_not_read() -> None:
    write("data/lang=de/x.jsonl", {**ROW, "topic": "t"})
    reader = read_examples("data", fields=FieldOptions(unread="count"))
    assert len(list(reader)) == 1
    assert reader.unread == {"data/lang=de/x.jsonl": {"topic": 1}}
    write("data/lang=de/x.jsonl")
    assert len(rows_of("data", unread="error")) == 1


def test_a_column_of_a_folder_has_a_role_only_if_it_is_named() -> None:
    write("data/system=linux/x.jsonl")
    (example,) = read_examples("data")
    assert [turn.role for turn in example.turns] == ["user", "assistant"]
    mapped = FieldOptions(map={"system": "system", "prompt": "instruction", "response": "output"})
    (example,) = read_examples("data", fields=mapped)
    assert example.turns[0].text == "linux"


def test_a_column_of_score_is_refused() -> None:
    write("data/reward=1/x.jsonl")
    with pytest.raises(InputError, match="field 'reward', which is also a column of score"):
        list(read_examples("data", columns=["reward"]))


# What readers say


def test_reading_begins_in_the_middle_and_is_cut_as_without_columns() -> None:
    write("data/a=1/x.parquet", *({**ROW, "n": number} for number in range(300)))
    whole = rows_of("data")
    reader = read_examples("data")
    window = next(reader.windows(130))
    assert window.end is not None
    again = read_examples("data")
    again.begin_after(window.end)
    assert [example.row for example in again] == whole[130:]


def test_options_keep_the_folders_that_give_columns() -> None:
    write("data/a=1/x.jsonl")
    write("plain/x.jsonl")
    assert expand(["data/", "plain", "data/a=1/x.jsonl"]).partitioned == ("data",)
    options = ReadOptions().below(["data"])
    assert options.below([]) is options
    (example,) = read_examples("data/a=1/x.jsonl", options=options)
    assert example.row is not None
    assert example.row.fields["a"] == "1"
