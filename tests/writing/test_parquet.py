from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.reading.rows import open_rows
from instructmining.reading.values import dumps
from instructmining.types import SourceRow
from instructmining.writing import parquet
from instructmining.writing.parquet import Kind, schema_of, write_parquet
from instructmining.writing.run_writer import known_kinds
from instructmining.writing.tables import TableLines

TEXT = pa.string()
TURNS = pa.list_(pa.struct([("role", TEXT), ("content", TEXT), ("name", TEXT)]))


def write(path: Path, rows: list[dict[str, object]], known: Mapping[str, Kind] | None = None) -> Path:
    lines = io.BytesIO(b"".join(dumps(row) + b"\n" for row in rows))
    with path.open("wb") as file:
        write_parquet(lines, file, known or {})
    return path


def back(path: Path) -> list[dict[str, object]]:
    rows = list(open_rows(str(path)))
    assert all(isinstance(row, SourceRow) for row in rows)
    return [dict(row.fields) for row in rows if isinstance(row, SourceRow)]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["a", None], pa.string()),
        ([None], pa.string()),
        ([True, False], pa.bool_()),
        ([1, -(2**63)], pa.int64()),
        ([2**64 - 1, 0], pa.uint64()),
        ([1, 2.5], pa.float64()),
        ([[1], [], None], pa.list_(pa.int64())),
        ([[]], pa.list_(pa.string())),
        ([[{"role": "user", "content": "a"}], [{"role": "user", "name": None}]], TURNS),
        ([{"a": {"b": 1}}, {"a": {"b": 2.5}}], pa.struct([("a", pa.struct([("b", pa.float64())]))])),
        ([2**64 - 1, -1], None),
        ([2**53 + 1, 0.5], None),
        ([2**70, 2**70 + 1], None),
        ([-(2**63) - 1], None),
        ([[2**70], [1]], None),
        ([{str(a): {str(b): 1 for b in range(200)} for a in range(6)}], None),
        (["a", 1], None),
        ([True, 1], None),
        ([["a"], "a"], None),
        ([[{"content": "a"}], [{"content": ["a"]}]], None),
        ([{}], None),
        ([{str(number): 1} for number in range(300)], None),
    ],
)  # fmt: skip
def test_a_type_holds_all_values_and_where_none_does_they_are_json(
    tmp_path: Path, values: list[object], wanted: pa.DataType | None
) -> None:
    rows = [{"field": value} for value in values]
    field = schema_of(rows, {}).field("field")
    assert field.type == (pa.string() if wanted is None else wanted)
    assert bool(field.metadata) == (wanted is None)
    found = [row["field"] for row in back(write(tmp_path / "out.parquet", rows))]
    if wanted is None or not any(isinstance(value, list) for value in values):
        assert found == values  # JSON to the last key


def test_lists_that_are_too_deep_for_a_table_are_json(tmp_path: Path) -> None:
    deep: object = "x"
    for _ in range(200):
        deep = [deep]
    assert back(write(tmp_path / "out.parquet", [{"a": deep}])) == [{"a": deep}]


def test_lists_as_deep_as_they_are_read_come_back(tmp_path: Path) -> None:
    deep: list[object] = []
    for _ in range(1000):
        deep = [deep]
    (found,) = back(write(tmp_path / "out.parquet", [{"a": deep}]))
    assert dumps(found) == b'{"a":' + b"[" * 1001 + b"]" * 1001 + b"}"


def test_a_field_that_a_row_lacks_is_null_and_those_of_ours_stand_last(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"a": "x", "mtld": 1.0}, {"b": "y", "mtld": None}]
    found = back(write(tmp_path / "out.parquet", rows, known_kinds()))
    assert found == [{"a": "x", "b": None, "mtld": 1.0}, {"a": None, "b": "y", "mtld": None}]
    assert [list(row) for row in found] == [["a", "b", "mtld"]] * 2


def test_the_columns_of_ours_have_their_types_whatever_the_rows(tmp_path: Path) -> None:
    null = {"reward": None, "output_length": None, "truncated": [], "score_notes": {"reward": "why"}}
    path = write(tmp_path / "out.parquet", [null], known_kinds())
    schema = pq.read_schema(path)
    assert [schema.field(name).type for name in null] == [
        pa.float64(), pa.int64(), pa.list_(pa.string()), pa.string()
    ]  # fmt: skip
    assert back(path) == [null]
    assert pl.read_parquet(path)["score_notes"].to_list() == ['{"reward":"why"}']


def test_a_field_that_only_has_a_name_of_ours_keeps_its_values(tmp_path: Path) -> None:
    rows = [{"reward": "high", "output_length": 1.5, "truncated": "no"}, {"reward": 2**60}]
    found = back(write(tmp_path / "out.parquet", rows, known_kinds()))
    assert found == [rows[0], {"reward": 2**60, "output_length": None, "truncated": None}]


def test_other_tools_read_what_is_written(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}], "mtld": 1.5, "none": None}] * 3
    path = write(tmp_path / "out.parquet", rows)
    assert pl.read_parquet(path).to_dicts() == rows
    frame = pd.read_parquet(path)
    assert list(frame["messages"][2]) == rows[2]["messages"]
    assert frame["mtld"].tolist() == [1.5] * 3


@pytest.mark.parametrize("rows", [[], [{}]])
def test_without_rows_or_fields_the_file_is_still_one(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    path = write(tmp_path / "out.parquet", rows)
    assert back(path) == []
    assert pl.read_parquet(path).shape == (0, 0)


def test_a_row_group_ends_at_its_rows_or_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def groups(path: Path) -> list[int]:
        data = pq.read_metadata(path)
        return [data.row_group(number).num_rows for number in range(data.num_row_groups)]

    rows: list[dict[str, object]] = [{"a": "x" * 100}] * 25
    monkeypatch.setattr(parquet, "GROUP_ROWS", 10)
    assert groups(write(tmp_path / "rows.parquet", rows)) == [10, 10, 5]
    monkeypatch.setattr(parquet, "GROUP_BYTES", 500)
    assert groups(write(tmp_path / "bytes.parquet", rows)) == [5] * 5


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"a": str(number), "b": number / 7} for number in range(500)]
    assert write(tmp_path / "a.parquet", rows).read_bytes() == write(tmp_path / "b.parquet", rows).read_bytes()


def test_fields_too_many_for_a_table_are_together_in_one_behind_the_others(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{str(number): number, "mtld": 1.0} for number in range(4100)]
    rows[2]["more_fields"] = "a name that is taken"
    path = write(tmp_path / "out.parquet", rows, known_kinds())
    names = pq.read_schema(path).names
    assert names[:3] == ["0", "1", "2"]
    assert names[-2:] == ["mtld", "more_fields_2"]
    assert len(names) == 4097
    found = back(path)
    for number, row in enumerate(found):
        more = row.pop("more_fields_2")
        own = {name: value for name, value in row.items() if value is not None}
        assert own | (more if isinstance(more, dict) else {}) == rows[number]


def test_a_stream_of_lines_becomes_a_table_when_it_is_closed(tmp_path: Path) -> None:
    with (tmp_path / "out.parquet").open("wb") as file:
        lines = TableLines(file, "out.parquet", {})
        lines.write(b'{"a":1}\n{"a"')
        lines.write(b":2}\n")
        assert file.tell() == 0
        lines.close()
    assert back(tmp_path / "out.parquet") == [{"a": 1}, {"a": 2}]
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | FLOATS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from("abc"), JSON, min_size=1, max_size=3), max_size=5))
def test_any_rows_come_back_but_for_nulls_in_place_of_what_was_not_there(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
) -> None:
    rows = [row for row in rows if row]
    found = back(write(tmp_path_factory.mktemp("parquet") / "out.parquet", rows))
    without: Callable[[object], object] = lambda value: (  # noqa: E731
        {name: without(inner) for name, inner in value.items() if inner is not None}
        if isinstance(value, dict)
        else [without(inner) for inner in value]
        if isinstance(value, list)
        else value
    )
    assert without(found) == without(rows)
