from __future__ import annotations

import gzip
import io
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.errors import InputError
from instructmining.reading import json_array
from instructmining.reading.options import MAX_ROW_BYTES, ReadOptions
from instructmining.reading.rows import open_rows
from instructmining.types import Reject, RowOrReject, SourceRow

BOM = b"\xef\xbb\xbf"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


def read(path: Path, content: bytes, *, max_row_bytes: int = MAX_ROW_BYTES) -> list[RowOrReject]:
    path.write_bytes(content)
    return list(open_rows(str(path), ReadOptions(max_row_bytes)))


def good(rows: list[RowOrReject]) -> list[dict[str, object]]:
    return [dict(row.fields) for row in rows if isinstance(row, SourceRow)]


def rejects(rows: list[RowOrReject]) -> list[Reject]:
    return [row for row in rows if isinstance(row, Reject)]


def numbered_lines(rows: int) -> bytes:
    """Lines that compress badly, so that a cut falls into the middle of the rows."""
    numbers = [pow(3, 2000 + number, 2**127 - 1) for number in range(rows)]
    return b"".join(b'{"row":%d,"noise":"%x"}\n' % row for row in enumerate(numbers))


# JSON lines


@pytest.mark.parametrize("suffix", COMPRESS)
def test_json_lines_come_in_order_plain_and_compressed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.jsonl{suffix}"
    rows = read(path, COMPRESS[suffix](b'{"a": 1}\n{"a": "\xc3\xa9"}\n{"a": [2]}'))
    source = str(path)
    assert rows == [
        SourceRow(source, 1, 0, b'{"a": 1}', {"a": 1}),
        SourceRow(source, 2, 9, b'{"a": "\xc3\xa9"}', {"a": "é"}),
        SourceRow(source, 3, 21, b'{"a": [2]}', {"a": [2]}),
    ]


def test_crlf_and_surrounding_space_are_not_part_of_a_row(tmp_path: Path) -> None:
    rows = read(tmp_path / "rows.jsonl", b'{"a":1}\r\n{"a":2} \t\r\n{"a":3}\r\n')
    assert [row.raw for row in rows] == [b'{"a":1}', b'{"a":2}', b'{"a":3}']
    assert [(row.line, row.offset) for row in rows] == [(1, 0), (2, 9), (3, 20)]


def test_blank_lines_are_skipped_and_counted_and_keep_their_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"a":1}\n  \t\n\r\n{"a":2}\n\n')
    reader = open_rows(str(path))
    assert [(row.line, row.offset) for row in reader] == [(2, 1), (5, 15)]
    assert reader.blank == 4


def test_a_byte_order_mark_is_not_part_of_the_first_row(tmp_path: Path) -> None:
    rows = read(tmp_path / "rows.jsonl", BOM + b'{"a":1}\n{"a":2}\n')
    assert [row.raw for row in rows] == [b'{"a":1}', b'{"a":2}']
    assert rows[1].offset == 11


@pytest.mark.parametrize(
    "content",
    [BOM + b'{"a":1}\n{"a":2}\n', BOM + b' [{"a":1},\n{"a":2}]', BOM + b'[\n  {"a":1}, [3],\n  {"a":2}]'],
    ids=["lines", "array", "pretty array"],
)
def test_an_offset_points_at_the_row_in_the_file_behind_a_byte_order_mark(tmp_path: Path, content: bytes) -> None:
    rows = read(tmp_path / "rows.json" if b"[" in content else tmp_path / "rows.jsonl", content)
    assert [content[row.offset : row.offset + len(row.raw)] for row in rows] == [row.raw for row in rows]
    assert good(rows) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a":', "invalid JSON: unexpected end of data"),
        (b'{"a":1} {"b":2}', "invalid JSON: unexpected content after document"),
        (b'{"a":NaN}', "invalid JSON: NaN or Infinity, which JSON does not have; write null"),
        (b'{"a":1e400}', "invalid JSON: number is infinity when parsed as double"),
        (b'{"a":"\\ud800"}', "invalid JSON: no low surrogate in string"),
        (b'\xef\xbb\xbf{"a":1}', "a byte order mark in the middle of the file; were files concatenated?"),
        (b'{"a":"caf\xe9"}', "not UTF-8: byte 0xe9 at byte 9 of the row"),
        (b"[1]", "row is a list, wanted an object"),
        (b'"text"', "row is text, wanted an object"),
        (b"true", "row is true or false, wanted an object"),
        (b"null", "row is null, wanted an object"),
        (b"-1.5", "row is a number, wanted an object"),
    ],
)
def test_a_bad_line_becomes_a_reject_and_the_rest_goes_on(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    before, bad, after = read(path, b'{"a":1}\n' + line + b'\n{"a":2}\n')
    assert good([before, after]) == [{"a": 1}, {"a": 2}]
    assert isinstance(bad, Reject)
    assert (bad.source, bad.line, bad.offset, bad.raw) == (str(path), 2, 8, line)
    assert bad.reason.startswith(reason)


def test_a_line_over_the_limit_is_a_reject_and_the_next_row_has_its_place(tmp_path: Path) -> None:
    long = b'{"a":"' + b"x" * 100 + b'"}'
    bad, after = read(tmp_path / "rows.jsonl", long + b'\n{"a":1}\n', max_row_bytes=50)
    assert isinstance(bad, Reject)
    assert bad.reason == "row is longer than 50 bytes"
    assert long.startswith(bad.raw)
    assert isinstance(after, SourceRow)
    assert (after.line, after.offset, after.fields) == (2, len(long) + 1, {"a": 1})


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["end of file", "newline"])
def test_a_line_of_just_the_limit_is_read_and_one_byte_more_is_not(tmp_path: Path, end: bytes) -> None:
    row = b'{"a":"' + b"x" * 42 + b'"}'
    assert len(row) == 50
    assert good(read(tmp_path / "rows.jsonl", row + end, max_row_bytes=50)) == [{"a": "x" * 42}]
    assert good(read(tmp_path / "rows.jsonl", row + end, max_row_bytes=49)) == []


def test_a_line_over_the_limit_is_skipped_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "_CHUNK", 7)
    rows = read(tmp_path / "rows.jsonl", b'{"a":"' + b"x" * 500 + b'"}\n{"a":1}\n', max_row_bytes=20)
    assert len(rejects(rows)) == 1
    assert good(rows) == [{"a": 1}]


# JSON arrays


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compact_array_gives_each_row_its_own_bytes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.json{suffix}"
    rows = read(path, COMPRESS[suffix](b'[{"a":1},{ "b" : [ {} ,2] } , {"a":"x"}]\n'))
    source = str(path)
    assert rows == [
        SourceRow(source, 1, 1, b'{"a":1}', {"a": 1}),
        SourceRow(source, 1, 9, b'{ "b" : [ {} ,2] }', {"b": [{}, 2]}),
        SourceRow(source, 1, 30, b'{"a":"x"}', {"a": "x"}),
    ]


def test_a_row_of_a_pretty_printed_array_keeps_its_bytes_but_for_the_newlines(tmp_path: Path) -> None:
    rows = read(tmp_path / "rows.json", b'[\n  {\n    "a": "1  \\n 2",\n    "b": [3 , 4]\n  },\r\n  {"c": 5.10}\n]\n')
    assert [row.raw for row in rows] == [b'{ "a": "1  \\n 2", "b": [3 , 4] }', b'{"c": 5.10}']
    assert [(row.line, row.offset) for row in rows] == [(2, 4), (6, 51)]


def test_an_array_is_found_by_its_bracket_whatever_the_suffix(tmp_path: Path) -> None:
    assert good(read(tmp_path / "rows.jsonl", b'\n [{"a":1},\n{"a":2}]')) == [{"a": 1}, {"a": 2}]


def test_a_json_file_of_objects_one_after_the_other_is_read(tmp_path: Path) -> None:
    rows = read(tmp_path / "rows.json", b'{"a":1}\n{\n "a":2\n}\n{"a":3}')
    assert good(rows) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [row.line for row in rows] == [1, 2, 5]


def test_brackets_and_escaped_quotes_within_strings_are_text(tmp_path: Path) -> None:
    values: list[dict[str, object]] = [
        {"a": '[{"}]\\'},
        {"]": "{", "b": '\\"'},
        {"c": "\\\\", "d": ["]", "}\n{"]},
    ]
    assert good(read(tmp_path / "rows.json", orjson.dumps(values))) == values


@pytest.mark.parametrize("chunk", [4, 5, 8, 13])
def test_a_string_cut_by_a_chunk_is_one_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_array, "_CHUNK", chunk)
    values: list[dict[str, object]] = [{"a": '\\"]}' * 20}, {"b": "é\\" * 9, "c": [{"d": "}"}]}]
    rows = read(tmp_path / "rows.json", orjson.dumps(values))
    assert rejects(rows) == []
    assert good(rows) == values


def test_an_empty_array_has_no_rows_and_no_rejects(tmp_path: Path) -> None:
    assert read(tmp_path / "rows.json", b"[\n]\n") == []


def test_a_broken_row_of_an_array_costs_no_other(tmp_path: Path) -> None:
    rows = read(tmp_path / "rows.json", b'[{"a":1},\n {"a" 2},\n {"a":"\xff"},\n {"a":3}]')
    assert good(rows) == [{"a": 1}, {"a": 3}]
    broken, not_text = rejects(rows)
    assert (broken.line, broken.offset, broken.raw) == (2, 11, b'{"a" 2}')
    assert broken.reason.startswith("invalid JSON: ")
    assert (not_text.line, not_text.offset) == (3, 21)
    assert not_text.reason == "not UTF-8: byte 0xff at byte 6 of the row"


def test_values_of_an_array_that_are_no_objects_become_rejects_at_their_place(tmp_path: Path) -> None:
    content = b'[\n1,\n {"a":1}, "x",\n null, [2], {"a":2}]'
    rows = read(tmp_path / "rows.json", content)
    assert good(rows) == [{"a": 1}, {"a": 2}]
    assert [reject.raw for reject in rejects(rows)] == [b"1", b'"x"', b"null", b"[2]"]
    assert [reject.line for reject in rejects(rows)] == [2, 3, 4, 4]
    assert [reject.offset for reject in rejects(rows)] == [content.index(reject.raw) for reject in rejects(rows)]


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (b',{"a":3', "the file ends in the middle of a row"),
        (b',{"a":"3', "the file ends in the middle of a row"),
        (b',{"a":[1', "the file ends in the middle of a row"),
        (b",", "the file ends before its array is closed"),
        (b"", "the file ends before its array is closed"),
    ],
)
def test_an_array_cut_in_the_middle_gives_its_rows_and_one_reject(tmp_path: Path, rest: bytes, reason: str) -> None:
    rows = read(tmp_path / "rows.json", b'[{"a":1},\n{"a":2}' + rest)
    assert good(rows) == [{"a": 1}, {"a": 2}]
    (last,) = rejects(rows)
    assert rows[-1] is last
    assert (last.reason, last.line) == (reason, 2)
    assert last.raw == rest.removeprefix(b",") or last.raw == rest


def test_text_behind_the_array_is_one_reject_and_not_called_an_open_array(tmp_path: Path) -> None:
    *rows, last = read(tmp_path / "rows.json", b'[{"a":1}]\nthe end')
    assert good(rows) == [{"a": 1}]
    assert isinstance(last, Reject)
    assert last.raw.strip() == b"the end"
    assert "before its array is closed" not in last.reason


def test_a_closing_bracket_too_many_is_one_reject(tmp_path: Path) -> None:
    rows = read(tmp_path / "rows.json", b'[{"a":1}]] [{"a":2}]')
    assert good(rows) == [{"a": 1}]
    assert [(reject.offset, reject.reason) for reject in rejects(rows)] == [
        (9, "a closing bracket without its opening")
    ]


@pytest.mark.parametrize("chunk", [8, 1 << 20], ids=["small chunks", "one chunk"])
def test_an_array_row_over_the_limit_is_a_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_array, "_CHUNK", chunk)
    long = b'{"a":"' + b"x" * 100 + b'"}'
    rows = read(tmp_path / "rows.json", b'[{"a":1},' + long + b',{"a":2}]', max_row_bytes=50)
    assert rows[0].raw == b'{"a":1}'
    bad = rows[1]
    assert isinstance(bad, Reject)
    assert (bad.line, bad.offset) == (1, 9)
    assert bad.reason.startswith("row is longer than 50 bytes")
    assert long.startswith(bad.raw)


def test_an_array_longer_than_a_row_may_be_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "_CHUNK", 8)
    rows = read(tmp_path / "rows.json", b"[" + b",\n".join([b'{"a":1}'] * 100) + b"]", max_row_bytes=20)
    assert rejects(rows) == []
    assert len(rows) == 100


def test_a_pretty_printed_row_with_a_long_run_of_spaces_takes_no_long_time(tmp_path: Path) -> None:
    begin = time.process_time()
    rows = read(tmp_path / "rows.json", b'[\n{\n"a": "' + b" " * 20_000 + b'"\n}\n]')
    assert good(rows) == [{"a": " " * 20_000}]
    assert time.process_time() - begin < 1  # linear takes milliseconds, quadratic three seconds


def test_an_array_on_one_line_takes_time_by_its_size_alone(tmp_path: Path) -> None:
    content = b"[" + b",".join([b'{"a":"' + b"x" * 90 + b'"}'] * 60_000) + b"]"
    begin = time.process_time()
    assert len(read(tmp_path / "rows.json", content)) == 60_000
    assert time.process_time() - begin < 3  # half a second; six where the lines before each row are counted again


TEXTS = st.text(alphabet=st.sampled_from('ab"\\[]{},:\n\t é😀\u2028'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=5)
SPACE = st.text(alphabet=" \t\r\n", max_size=3).map(str.encode)


def spaced(value: object, draw: st.DataObject) -> bytes:
    """JSON with drawn whitespace between all tokens."""

    def space() -> bytes:
        return bytes(draw.draw(SPACE))

    if isinstance(value, dict):
        pairs = [
            space() + orjson.dumps(name) + space() + b":" + space() + spaced(inner, draw) + space()
            for name, inner in value.items()
        ]
        return b"{" + (b",".join(pairs) or space()) + b"}"
    if isinstance(value, list):
        return b"[" + (b",".join(space() + spaced(inner, draw) + space() for inner in value) or space()) + b"]"
    return orjson.dumps(value)


@settings(max_examples=60, deadline=None)
@given(values=OBJECTS, chunk=st.integers(4, 40), data=st.data())
def test_any_array_of_objects_with_any_whitespace_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, object]], chunk: int, data: st.DataObject
) -> None:
    content = spaced(values, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_CHUNK", chunk)
        rows = read(tmp_path_factory.mktemp("array") / "rows.json", content)
    assert rejects(rows) == []
    assert good(rows) == values
    for row in rows:
        assert b"\n" not in row.raw
        assert b"\r" not in row.raw
        assert _value_at(content, row.offset) == orjson.loads(row.raw)
        assert row.line == 1 + content.count(b"\n", 0, row.offset)


def _value_at(content: bytes, offset: int) -> object:
    """The object that begins at a place in the file: up to the first closing brace that makes it whole."""
    end = content.index(b"}", offset)
    while True:
        try:
            return orjson.loads(content[offset : end + 1])
        except orjson.JSONDecodeError:
            end = content.index(b"}", end + 1)


@settings(max_examples=40, deadline=None)
@given(values=OBJECTS, blank=st.lists(SPACE, min_size=6, max_size=6), suffix=st.sampled_from(sorted(COMPRESS)))
def test_any_lines_read_back_equal_with_their_own_bytes(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, object]], blank: list[bytes], suffix: str
) -> None:
    lines = [orjson.dumps(value) for value in values]
    content = b"".join(space.replace(b"\r", b"") + line + b"\n" for space, line in zip(blank, lines, strict=False))
    rows = read(tmp_path_factory.mktemp("lines") / f"rows.jsonl{suffix}", COMPRESS[suffix](content))
    assert [row.raw for row in rows] == lines
    assert good(rows) == values


# Files that cannot be read


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize("suffix", COMPRESS)
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str, suffix: str) -> None:
    reader_path = tmp_path / f"{name}{suffix}"
    assert read(reader_path, COMPRESS[suffix](b"")) == []
    assert read(reader_path, b"") == []


def test_a_missing_file_is_an_input_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.jsonl: No such file"):
        open_rows(str(tmp_path / "gone.jsonl"))


def test_a_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; wanted a file of rows"):
        open_rows(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.xlsx", ".xlsx"),
        ("a.jsonl.ZIP", ".zip"),
        ("a.csv.bz2", ".bz2"),
        ("a.parquet.gz", ".parquet.gz"),
        ("a.xlsx.gz", ".xlsx.gz"),
        ("a.orc", ".orc"),
    ],
)
def test_a_kind_of_file_that_is_not_read_is_named(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"{kind} is not read by this version; wanted JSON, .*CSV .*Parquet or Arrow"):
        open_rows(str(tmp_path / name))


@pytest.mark.parametrize("name", ["rows", "rows.txt", "rows.v1.5", "rows.gz"])
def test_any_other_name_is_json(tmp_path: Path, name: str) -> None:
    content = b'{"a":1}\n'
    assert good(read(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)) == [{"a": 1}]


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz", "rows.jsonl.zst", "rows.json.zst"])
def test_a_file_that_is_not_what_its_suffix_says_is_an_input_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        read(tmp_path / name, b'{"a":1}\n')


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("rows", [300, 40_000], ids=["within a chunk", "over several chunks"])
def test_a_cut_compressed_file_gives_the_rows_before_the_cut_and_one_reject(
    tmp_path: Path, suffix: str, rows: int
) -> None:
    content = numbered_lines(rows)
    packed = gzip.compress(content, 1) if suffix == ".gz" else _in_small_blocks(content)
    found = read(tmp_path / f"rows.jsonl{suffix}", packed[: len(packed) * 3 // 4])
    (last,) = rejects(found)
    assert found[-1] is last
    assert "the rest of the file cannot be read" in last.reason
    numbers = [row["row"] for row in good(found)]
    assert numbers == list(range(len(numbers)))
    assert 0.5 * rows < len(numbers) < rows


def _in_small_blocks(content: bytes) -> bytes:
    """One zstd frame whose blocks end every 2,000 bytes."""
    packer = zstandard.ZstdCompressor().compressobj()
    packed = b""
    for begin in range(0, len(content), 2000):
        packed += packer.compress(content[begin : begin + 2000])
        packed += packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return packed + packer.flush()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_cut_compressed_array_gives_the_rows_before_the_cut_and_one_reject(tmp_path: Path, suffix: str) -> None:
    content = b"[" + b",".join(numbered_lines(500).splitlines(keepends=True)) + b"]"
    packed = gzip.compress(content, 1) if suffix == ".gz" else _in_small_blocks(content)
    found = read(tmp_path / f"rows.json{suffix}", packed[: len(packed) * 3 // 4])
    (last,) = rejects(found)
    assert found[-1] is last
    numbers = [row["row"] for row in good(found)]
    assert numbers == list(range(len(numbers)))
    assert 250 < len(numbers) < 500


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_of_several_members_is_read_whole(tmp_path: Path, suffix: str) -> None:
    packed = COMPRESS[suffix](b'{"a":1}\n') + COMPRESS[suffix](b'{"a":2}\n')
    assert good(read(tmp_path / f"rows.jsonl{suffix}", packed)) == [{"a": 1}, {"a": 2}]


# What the progress line is drawn from


def test_bytes_read_grow_to_the_size_of_the_file_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    content = b'{"a":1}\n' * 10
    path.write_bytes(content)
    reader = open_rows(str(path))
    assert (reader.bytes_read, reader.bytes_total) == (0, len(content))
    rows = iter(reader)
    next(rows)
    assert 0 < reader.bytes_read <= len(content)
    assert len(list(rows)) == 9
    assert reader.bytes_read == len(content)


def test_standard_input_is_read_and_has_no_known_size(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer: BinaryIO = io.BytesIO(b'{"a":1}\n\n{"a":2}\n')

    monkeypatch.setattr(sys, "stdin", Stdin())
    reader = open_rows("-")
    assert [(row.source, row.line) for row in reader] == [("-", 1), ("-", 3)]
    assert reader.bytes_total is None
    assert reader.blank == 1


# What the first bytes say


@pytest.mark.parametrize("name", ["rows.jsonl", "rows", "rows.txt", "rows.gz", "rows.jsonl.zst", "rows.jsonl.gz"])
@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_compressed_file_is_read_whatever_its_name_says(tmp_path: Path, name: str, packing: str) -> None:
    assert good(read(tmp_path / name, COMPRESS[packing](b'{"a":1}\n'))) == [{"a": 1}]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows", "rows.csv", "rows.arrow", "rows.parquet"])
@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream"])
def test_a_table_is_read_whatever_its_name_says(tmp_path: Path, name: str, kind: str) -> None:
    table = pa.table({"a": [1, 2]})
    sink = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink)
    else:
        with (pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table)
    rows = read(tmp_path / name, sink.getvalue())
    assert good(rows) == [{"a": 1}, {"a": 2}]
    assert {row.source for row in rows} == {str(tmp_path / name)}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_pipe_is_read_once_from_its_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = gzip.compress(b'{"a":1}\n{"a":2}\n')
    writing = threading.Thread(target=path.write_bytes, args=(content,))
    writing.start()
    rows = list(open_rows(str(path)))
    writing.join()
    assert good(rows) == [{"a": 1}, {"a": 2}]


def test_what_a_document_holds_beside_its_rows_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'{"a": [{"x": "y"}], "data": [{"prompt": "p", "response": "r"}], "b": {"c": ["d"]}, "e":"f"}')
    reader = open_rows(str(path))
    assert [row.raw for row in reader] == [b'{"prompt": "p", "response": "r"}']
    assert list(reader.left_out) == ["a", "b", "e"]


def test_an_object_that_is_a_row_itself_is_no_document_whatever_its_data_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = b'{"prompt": "p", "response": "r", "data": [{"prompt": "q", "response": "s"}]}'
    path.write_bytes(row)
    assert [one.raw for one in open_rows(str(path))] == [row]


# However large


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("packing", [".zst", ".gz"])
def test_a_few_bytes_that_become_many_take_little_memory(tmp_path: Path, suffix: str, packing: str) -> None:
    path = tmp_path / f"bomb{suffix}{packing}"
    plain = b'{"instruction": "a", "output": "' + b"a" * (64 << 20)
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(plain) if packing == ".zst" else gzip.compress(plain))
    del plain
    tracemalloc.start()
    (reject,) = open_rows(str(path), ReadOptions(max_row_bytes=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(reject, Reject)
    assert peak < 16 << 20


def test_a_row_of_an_array_costs_the_same_in_any_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is looked at once: what is searched grows as the rows do, not as their square."""
    text = b"\\n" * 20_000 + b"x" * 40_000
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"a":"' + text + b'"},{"a":1}]')
    monkeypatch.setattr(json_array, "_CHUNK", 64)
    looked_at = []
    scan = json_array.JsonValues._scan

    def counted(values: json_array.JsonValues) -> Iterator[json_array.Piece]:
        before = values._cursor
        yield from scan(values)
        looked_at.append(values._cursor - before)

    monkeypatch.setattr(json_array.JsonValues, "_scan", counted)
    first, _ = open_rows(str(path))
    assert isinstance(first, SourceRow)
    assert len(first.raw) == len(text) + 8
    assert sum(looked_at) <= path.stat().st_size


def test_a_row_of_an_array_that_is_too_long_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"a":1},{"a":"' + b"x" * (3 << 20) + b'"},{"a":2}]')
    first, reject, last = open_rows(str(path), ReadOptions(max_row_bytes=1 << 20))
    assert isinstance(reject, Reject)
    assert (len(reject.raw), reject.reason) == (1000, "row is longer than 1048576 bytes")
    assert [row.raw for row in (first, last)] == [b'{"a":1}', b'{"a":2}']


def test_zeros_behind_the_last_member_of_gzip_are_no_data(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a":1}\n') + gzip.compress(b'{"a":2}\n') + bytes(70_000))
    assert [row.raw for row in open_rows(str(path))] == [b'{"a":1}', b'{"a":2}']


def test_frames_of_zstd_of_every_kind_are_read(tmp_path: Path) -> None:
    rows = b"".join(b'{"a":%d}\n' % number for number in range(50_000))
    skippable = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    frames = [
        zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=size).compress(rows)
        for level, checksum, size in ((1, True, True), (19, False, False), (-5, True, False))
    ]
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(skippable.join([b"", *frames]))
    assert sum(isinstance(row, SourceRow) for row in open_rows(str(path))) == 150_000
