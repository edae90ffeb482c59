from __future__ import annotations

import datetime as dt
import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather

from instructmining.errors import InputError, SelectionError
from instructmining.reading.arrow import TableRows
from instructmining.reading.examples import read_examples
from instructmining.reading.options import ReadOptions
from instructmining.reading.rows import Source, open_rows
from instructmining.scored.scored_file import ScoredRows
from instructmining.types import Reject, RowOrReject, SourceRow

ALPACA = pa.table({"instruction": ["a", "b", "c"], "input": ["", "x", ""], "output": ["d", "e", "f"]})
VIEWS = pa.struct([("a", pa.list_view(pa.int8())), ("t", pa.timestamp("ns"))])
MAP = pa.map_(pa.string(), pa.int8())
SUFFIXES = [".parquet", ".arrow", ".feather", ".stream.arrow"]


def write(table: pa.Table, path: Path) -> str:
    """The table in the format that the suffix says."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=100)
    elif path.suffix == ".feather":
        feather.write_feather(table, str(path), chunksize=100)
    elif path.name.endswith(".stream.arrow"):  # as datasets keeps them
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table, max_chunksize=100)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=100)
    return str(path)


def numbered(rows: int) -> pa.Table:
    return pa.table(
        {"instruction": [f"{number:08}" for number in range(rows)], "output": [f"answer {n}" for n in range(rows)]}
    )


def fields(rows: Iterator[RowOrReject] | list[RowOrReject]) -> list[dict[str, object]]:
    found = []
    for row in rows:
        assert isinstance(row, SourceRow), row
        assert orjson.loads(row.raw) == row.fields
        found.append(dict(row.fields))
    return found


def one(array: pa.Array | pa.ChunkedArray) -> list[object]:
    """The values of a column, read as rows."""
    return [row["column"] for row in fields(list(open_rows(pa.table({"column": array}))))]


# Rows


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_come_with_their_numbers_and_as_json(tmp_path: Path, suffix: str) -> None:
    path = write(ALPACA, tmp_path / f"rows{suffix}")
    rows = list(open_rows(path))
    second = {"instruction": "b", "input": "x", "output": "e"}
    assert rows[1] == SourceRow(path, 2, 1, b'{"instruction":"b","input":"x","output":"e"}', second)
    assert [(row.line, row.offset) for row in rows] == [(1, 0), (2, 1), (3, 2)]


class Consumer:
    """A table of another library, known by its Arrow interface alone."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return ALPACA.__arrow_c_stream__(requested_schema)


class Dataset:
    """As ``datasets.Dataset`` 5.2: no Arrow interface, rows chosen over a table that stays whole."""

    def __init__(self, chosen: list[int], type: str | None = None) -> None:  # noqa: A002
        self.data = ALPACA
        self.chosen, self.type = chosen, type

    def with_format(self, type: str | None) -> Dataset:  # noqa: A002
        return Dataset(self.chosen, type)

    def iter(self, batch_size: int) -> Iterator[pa.Table]:
        assert self.type == "arrow"
        for begin in range(0, len(self.chosen), batch_size):
            yield self.data.take(self.chosen[begin : begin + batch_size])


@pytest.mark.parametrize(
    "source",
    [
        ALPACA,
        ALPACA.to_batches()[0],
        ALPACA.to_reader(),
        ALPACA.to_pandas(),
        pl.from_arrow(ALPACA),
        pl.from_arrow(ALPACA).cast(pl.Categorical),  # type: ignore[arg-type, union-attr]
        Consumer(),
        Dataset([0, 1, 2]),
    ],
    ids=["table", "batch", "reader", "pandas", "polars", "polars categorical", "interface alone", "datasets"],
)
def test_a_table_in_memory_is_read_whatever_it_is_of(source: Source) -> None:
    examples = list(read_examples(source))
    assert [example.prompt_texts[0] for example in examples] == ["a", "b\nx", "c"]
    assert [example.row and (example.row.source, example.row.line) for example in examples] == [
        ("table", number) for number in (1, 2, 3)
    ]


def test_tables_and_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    path = write(ALPACA, tmp_path / "rows.parquet")
    assert len(list(read_examples([path, ALPACA, Path(path)]))) == 9


def test_of_a_data_set_the_chosen_rows_come_in_the_chosen_order() -> None:
    assert [row["output"] for row in fields(list(open_rows(Dataset([2, 0]))))] == ["f", "d"]
    assert list(open_rows(Dataset([]))) == []


def test_a_pandas_index_of_names_is_a_column() -> None:
    frame = pd.DataFrame({"prompt": ["a"], "response": ["b"]}, index=pd.Index(["x"], name="id"))
    assert fields(list(open_rows(frame))) == [{"prompt": "a", "response": "b", "id": "x"}]


@pytest.mark.parametrize(
    "source", [5, None, {"a": [1]}, pl.LazyFrame({"a": [1]}), pd.Series([1]), pa.chunked_array([[1]])]
)
def test_what_is_no_table_is_said(source: object) -> None:
    with pytest.raises(InputError, match=r"neither a path nor a table|table: cannot be read"):
        list(open_rows(source))  # type: ignore[arg-type]


def test_scored_rows_are_read_from_tables_as_often_as_wanted_but_from_no_stream() -> None:
    table = pa.table({"output": ["a", "b"], "mtld": [1.5, None], "score_notes": ["{}", '{"mtld":"why"}']})
    rows = ScoredRows(table)
    assert (rows.name, rows.columns) == ("table", ("mtld",))
    for _ in range(2):
        (block,) = rows.blocks(["mtld"])
        assert block.columns["mtld"][0] == 1.5
    with pytest.raises(SelectionError, match="can be read only once"):
        ScoredRows(table.to_reader())


def test_conversations_nested_in_large_types_are_examples() -> None:
    turn = pa.struct([("from", pa.dictionary(pa.int8(), pa.large_string())), ("value", pa.large_string())])
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    table = pa.table({"conversations": pa.array([turns, None, turns], pa.large_list(turn))})
    rejects: list[Reject] = []
    examples = list(read_examples(table, on_reject=rejects.append))
    assert [example.response_texts for example in examples] == [["b"], ["b"]]
    assert [(reject.line, reject.reason) for reject in rejects] == [(2, "field 'conversations' is null, wanted a list")]


# Types


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (pa.array(["a", None, "é"]).dictionary_encode(), ["a", None, "é"]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array([2.5, None]).dictionary_encode(), [2.5, None]),
        (pa.nulls(2), [None, None]),
        (pa.array([True, None]), [True, None]),
        (pa.array([-(2**63), 2**63 - 1]), [-(2**63), 2**63 - 1]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([0.1, float("nan"), float("-inf"), None]), [0.1, None, None, None]),
        (pa.array([[float("nan"), 1.0], None]), [[None, 1.0], None]),
        (pa.array([1.5, None], pa.float16()), [1.5, None]),
        (pa.array([Decimal("1.50"), None]), [1.5, None]),
        (pa.array([dt.date(1582, 10, 15), None]), ["1582-10-15", None]),
        (pa.array([dt.datetime(2024, 1, 2, 3, 4, 5, 600)]), ["2024-01-02T03:04:05.000600"]),
        (pa.array([1704164645123456789], pa.timestamp("ns")), ["2024-01-02T03:04:05.123456"]),
        (pa.array([1704164645], pa.timestamp("s", "Europe/Berlin")), ["2024-01-02T04:04:05+01:00"]),
        (pa.array([[1704164645123456789]], pa.list_(pa.timestamp("ns"))), [["2024-01-02T03:04:05.123456"]]),
        (pa.array([dt.time(1, 2, 3)]), ["01:02:03"]),
        (pa.array([61_500_000_000, -1_500_000_000, 0], pa.duration("ns")), ["PT61.5S", "-PT1.5S", "PT0S"]),
        (pa.array([b"caf\xc3\xa9", b"\xff\xfe", None]), ["café", {"base64": "//4="}, None]),
        (pa.array([[("k", b"v")], None], pa.map_(pa.string(), pa.binary())), [{"k": "v"}, None]),
        (pa.array([[(1, 2.5)]], pa.map_(pa.int8(), pa.float64())), [[{"key": 1, "value": 2.5}]]),
        (pa.array([[{"m": [("k", 1)]}]], pa.list_(pa.struct([("m", MAP)]))), [[{"m": {"k": 1}}]]),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), [[1, 2], None]),
        (pa.array([{"a": {"b": [None, {"c": "d"}]}}, None]), [{"a": {"b": [None, {"c": "d"}]}}, None]),
        (pa.array([[("k", 1), ("k", 2)]], MAP), [[{"key": "k", "value": 1}, {"key": "k", "value": 2}]]),
        (pa.array([[[("k", 1)]], None], pa.list_view(MAP)), [[{"k": 1}], None]),
        (pa.array([{"a": [1, 2], "t": 1000}], VIEWS), [{"a": [1, 2], "t": "1970-01-01T00:00:00.000001"}]),
        (pa.array([[[1, 2], [3]]], pa.large_list(pa.list_view(pa.int8()))), [[[1, 2], [3]]]),
        (pa.array([[1.5, None]], pa.large_list_view(pa.float16())), [[1.5, None]]),
        (pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]), ["a", "a", "b"]),
        (pa.RunEndEncodedArray.from_arrays([2, 3], pa.array(["a", "b"]).dictionary_encode()), ["a", "a", "b"]),
        (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": [1]}', "no JSON"])), [{"a": [1]}, "no JSON"]),
        (
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)], pa.binary(16))),
            ["00000000-0000-0000-0000-000000000000"],
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, (pa.Array, pa.ChunkedArray)) else "",
)  # fmt: skip
def test_each_type_is_written_as_json_has_it(array: pa.Array, wanted: list[object]) -> None:
    assert one(array) == wanted


def test_a_decimal_keeps_all_its_digits_in_the_row() -> None:
    digits = "12345678901234567890.123456789012345678"
    (row,) = open_rows(pa.table({"price": [Decimal(digits)]}))
    assert row.raw == b'{"price":%s}' % digits.encode()


def strings(*values: bytes) -> pa.Array:
    """Texts that nobody has checked, as a careless writer leaves them."""
    length = [0]
    for value in values:
        length.append(length[-1] + len(value))
    offsets = pa.array(length, pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), len(values), [None, offsets, pa.py_buffer(b"".join(values))])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_row_that_is_no_unicode_is_a_reject_and_costs_no_other(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"instruction": ["a", "b", "c"], "output": strings(b"d", b"\xff\xfe", b"f")})
    first, bad, last = open_rows(write(table, tmp_path / f"rows{suffix}"))
    assert fields([first, last]) == [{"instruction": "a", "output": "d"}, {"instruction": "c", "output": "f"}]
    assert isinstance(bad, Reject)
    assert (bad.line, bad.offset, bad.raw) == (2, 1, b'{"instruction":"b"}')
    assert bad.reason.startswith("column 'output': ")
    assert "UTF8" in bad.reason


def test_a_year_that_no_calendar_here_has_is_a_reject() -> None:
    table = pa.table({"a": ["x", "y"], "t": pa.array([10**15, 0], pa.timestamp("s"))})
    bad, good = open_rows(table)
    assert isinstance(bad, Reject)
    assert bad.reason.startswith("column 't': ")
    assert fields([good]) == [{"a": "y", "t": "1970-01-01T00:00:00"}]


def test_a_row_over_the_limit_is_a_reject() -> None:
    long = pa.table({"output": ["x" * 2000, "y"]})
    bad, good = open_rows(long, ReadOptions(1500))
    assert isinstance(bad, Reject)
    assert (bad.reason, len(bad.raw)) == ("row is longer than 1500 bytes", 1000)
    assert fields([good]) == [{"output": "y"}]


TEXT = st.none() | st.text(max_size=4)
COLUMNS = st.dictionaries(
    st.text(max_size=5),
    st.sampled_from(
        [
            (pa.string(), st.text(max_size=9)),
            (pa.large_string(), st.text(max_size=9)),
            (pa.dictionary(pa.int32(), pa.string()), st.text(max_size=3)),
            (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
            (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
            (pa.bool_(), st.booleans()),
            (pa.large_list(pa.string()), st.lists(TEXT, max_size=3)),
            (
                pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
                st.lists(st.fixed_dictionaries({"role": st.text(max_size=3), "content": TEXT}), max_size=3),
            ),
        ]
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(data=st.data(), rows=st.integers(0, 8), suffix=st.sampled_from(SUFFIXES))
def test_any_rows_come_back_from_a_table_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rows: int, suffix: str
) -> None:
    columns = data.draw(COLUMNS)
    values = {
        name: data.draw(st.lists(st.none() | value, min_size=rows, max_size=rows))
        for name, (_, value) in columns.items()
    }
    schema = pa.schema([(name, kind) for name, (kind, _) in columns.items()])
    path = write(pa.table(values, schema=schema), tmp_path_factory.mktemp("table") / f"rows{suffix}")
    wanted = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    assert fields(list(open_rows(path))) == wanted


# Going on in the middle


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("begin", [0, 1, 99, 100, 1234, 1999])
def test_the_rows_from_any_on_are_those_of_the_whole(tmp_path: Path, suffix: str, begin: int) -> None:
    path = write(numbered(2000), tmp_path / f"rows{suffix}")
    whole = list(open_rows(path))
    reader = open_rows(path)
    reader.begin_at(whole[begin].line, whole[begin].offset)
    assert list(reader) == whole[begin:]


def test_row_groups_that_are_done_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(numbered(1000), tmp_path / "rows.parquet")
    read: list[int] = []
    iter_batches = pq.ParquetFile.iter_batches

    def counted(file: pq.ParquetFile, *, row_groups: list[int], **options: object) -> Iterator[pa.RecordBatch]:
        read.extend(row_groups)
        return iter_batches(file, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    reader = open_rows(path)
    reader.begin_at(751, 750)
    assert next(iter(reader)).line == 751
    assert read == [7]


def test_the_first_rows_cost_no_more_than_their_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(numbered(1000), tmp_path / "rows.parquet")
    monkeypatch.setattr(pq.ParquetFile, "read", None)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", None)
    reader = open_rows(path)
    assert next(iter(reader)).line == 1
    assert reader.bytes_read <= Path(path).stat().st_size // 1000 + 1
    assert len(list(reader)) == 1000
    assert reader.bytes_read == reader.bytes_total == Path(path).stat().st_size


def test_parquet_says_how_many_rows_it_has(tmp_path: Path) -> None:
    assert open_rows(write(numbered(1000), tmp_path / "rows.parquet")).rows_total == 1000
    assert open_rows(write(numbered(1000), tmp_path / "rows.arrow")).rows_total is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_progress_grows_to_the_size_of_the_file(tmp_path: Path, suffix: str) -> None:
    reader = open_rows(write(numbered(2000), tmp_path / f"rows{suffix}"))
    met = [reader.bytes_read for _ in reader]
    assert met == sorted(met)
    assert 0 < met[1000] < (reader.bytes_total or 0)
    assert reader.bytes_read == reader.bytes_total


# Files that are damaged


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.feather", "rows.PARQUET"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b'{"a":1}\n', b"PAR1" * 9, b"ARROW1\0\0" * 5, b"FEA1" * 5])
def test_a_file_that_is_not_what_its_suffix_says_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(open_rows(str(path)))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_missing_table_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.parquet: No such file"):
        open_rows(str(tmp_path / "gone.parquet"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_without_rows_has_none(tmp_path: Path, suffix: str) -> None:
    assert list(open_rows(write(ALPACA.slice(0, 0), tmp_path / f"rows{suffix}"))) == []


def test_a_column_named_twice_is_an_input_error(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["output", "output"])
    with pytest.raises(InputError, match=r"rows\.arrow: 'output' names more than one column"):
        list(open_rows(write(table, tmp_path / "rows.arrow")))


def test_a_column_of_ours_is_the_known_error(tmp_path: Path) -> None:
    path = write(ALPACA.append_column("reward", pa.array([1, 2, 3])), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"line 1: the row has a field 'reward'.*--prefix"):
        list(read_examples(path, columns=["reward"]))


def test_damage_behind_the_first_rows_is_one_reject_each_time(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(numbered(3000), path, row_group_size=1000, compression="zstd", write_page_checksum=True)
    content = bytearray(path.read_bytes())
    at = pq.read_metadata(path).row_group(1).column(0).data_page_offset + 60
    content[at] ^= 0xFF
    path.write_bytes(content)
    *rows, last = open_rows(str(path))
    assert len(fields(rows)) == 1000
    assert isinstance(last, Reject)
    assert (last.line, last.offset) == (1001, 1000)
    assert last.reason.startswith("the rest of the file cannot be read: ")
    reader = open_rows(str(path))
    reader.begin_at(last.line, last.offset)
    assert list(reader) == [last]


def test_files_put_one_behind_the_other_are_refused(tmp_path: Path) -> None:
    for suffix in (".parquet", ".feather"):
        paths = [tmp_path / f"{name}{suffix}" for name in "abc"]
        for path in paths[:2]:
            write(numbered(700), path)
        paths[2].write_bytes(paths[0].read_bytes() + paths[1].read_bytes())
        with pytest.raises(InputError, match="cannot be read: several concatenated files; pass each as its"):
            list(open_rows(str(paths[2])))


def stream(rows: int, *, batch: int = 100) -> bytes:
    sink = io.BytesIO()
    table = numbered(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return sink.getvalue()


def test_what_follows_a_stream_is_a_reject(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    path.write_bytes(stream(300) + stream(200))
    *rows, last = open_rows(str(path))
    assert len(fields(rows)) == 300
    assert isinstance(last, Reject)
    assert last.line == 301
    assert last.reason.endswith("bytes follow the end of the stream; pass each as its own file")


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_a_stream_cut_between_two_batches_is_not_taken_for_whole(tmp_path: Path, batches: int) -> None:
    path = tmp_path / "rows.arrow"
    source = pa.BufferReader(stream(300))
    reader = pa.ipc.open_stream(source)
    for _ in range(batches):
        reader.read_next_batch()
    path.write_bytes(stream(300)[: source.tell()])
    missing = "the end-of-stream marker is missing, and rows may be missing too"
    if not batches:
        with pytest.raises(InputError, match=missing):
            list(open_rows(str(path)))
        return
    *rows, last = open_rows(str(path))
    assert len(fields(rows)) == batches * 100
    assert isinstance(last, Reject)
    assert last.reason.endswith(missing)


def test_a_footer_that_counts_other_batches_than_there_are_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    with pa.ipc.new_file(path, numbered(300).schema) as file:
        file.write_table(numbered(300), max_chunksize=100)
    content = path.read_bytes()
    begin = len(content) - 10 - int.from_bytes(content[-10:-6], "little")
    at = content.index((3).to_bytes(4, "little"), begin)
    while True:  # the number of batches is one of the threes
        path.write_bytes(content[:at] + b"\2" + content[at + 1 :])
        with suppress(pa.ArrowException), pa.ipc.open_file(path) as found:
            if found.num_record_batches == 2:
                break
        at = content.index((3).to_bytes(4, "little"), at + 1)
    with pytest.raises(InputError, match="it holds 3 batches, its footer says 2"):
        list(open_rows(str(path)))


def test_a_footer_that_counts_other_rows_than_its_row_groups_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(numbered(10_000), path, row_group_size=5000)
    content = path.read_bytes()
    at = content.rindex(b"\x16\xa0\x9c\x01")  # 10,000 as Thrift writes it, behind the number's type
    path.write_bytes(content[:at] + b"\x16\xa2\x9c\x01" + content[at + 4 :])
    with pytest.raises(InputError, match=r"its row groups have 10,000 rows, its footer 10,001"):
        list(open_rows(str(path)))


@pytest.mark.parametrize("name", ["s3:rows.parquet", "file:rows.parquet", "http:a b#%20?.parquet", "~.parquet"])
def test_a_name_that_looks_like_an_address_is_that_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(numbered(3), tmp_path / "rows")
    (tmp_path / "rows").rename(name)
    assert len(fields(list(open_rows(name)))) == 3


@settings(max_examples=150, deadline=None)
@given(data=st.data(), suffix=st.sampled_from(SUFFIXES))
def test_whatever_a_byte_is_changed_to_there_is_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("damaged") / f"rows{suffix}"
    write(ALPACA, path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with suppress(InputError):
        assert len(list(open_rows(str(path)))) <= 4


def test_no_other_library_of_tables_is_needed_and_pyarrow_only_for_tables(tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([1704164645123456789], pa.timestamp("ns", "UTC")), "d": pa.array(["a"])})
    path = write(table, tmp_path / "rows.parquet")
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(name, *_):\n"
        "        if name in {'pandas', 'polars', 'datasets', 'pytz'}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing)\n"
        "from instructmining import read_examples\n"
        "from instructmining.reading.rows import open_rows\n"
        f"print('pyarrow' in sys.modules, *[row.raw.decode() for row in open_rows({path!r})])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'False {"t":"2024-01-02T03:04:05.123456+00:00","d":"a"}\n'


def test_a_time_zone_is_the_one_of_the_table() -> None:
    moment = dt.datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("America/New_York"))
    assert one(pa.array([moment])) == ["2024-07-01T12:00:00-04:00"]


def test_memory_holds_a_part_of_a_table_only(tmp_path: Path) -> None:
    noise = [json.dumps({"n": number}) * 40 for number in range(20_000)]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"output": noise}), path, row_group_size=20_000, use_dictionary=False)
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in TableRows(str(path), max_row_bytes=1 << 20, kind="parquet"))
    assert most < 8 << 20 < sum(map(len, noise))


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_a_long_text_that_a_small_file_holds_in_each_row_is_not_there_as_often_at_once(
    tmp_path: Path, kind: pa.DataType
) -> None:
    path = tmp_path / "rows.parquet"
    text = pa.array([0] * 600, pa.int32())
    texts = pa.DictionaryArray.from_arrays(text, pa.array(["w " * 250_000])).cast(kind)
    pq.write_table(pa.table({"a": texts}), path, compression="zstd")
    assert path.stat().st_size < 2000
    tracemalloc.start()
    try:
        assert sum(len(row.raw) for row in open_rows(str(path))) == 600 * (500_000 + len('{"a":""}'))
        assert tracemalloc.get_traced_memory()[1] < 120 << 20
    finally:
        tracemalloc.stop()
