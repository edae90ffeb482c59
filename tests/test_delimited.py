from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.errors import InputError
from instructmining.reading.examples import read_examples
from instructmining.reading.options import MAX_ROW_BYTES, ReadOptions
from instructmining.reading.rows import open_rows
from instructmining.records import Reject, RowOrReject, SourceRow

BOM = b"\xef\xbb\xbf"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


def read(path: Path, content: bytes, *, max_row_bytes: int = MAX_ROW_BYTES) -> list[RowOrReject]:
    path.write_bytes(content)
    return list(open_rows(str(path), ReadOptions(max_row_bytes)))


def values(rows: list[RowOrReject]) -> list[list[object]]:
    return [list(row.fields.values()) for row in rows if isinstance(row, SourceRow)]


def places(rows: list[RowOrReject]) -> list[tuple[int, int]]:
    return [(row.line, row.offset) for row in rows]


@pytest.mark.parametrize("packed", COMPRESS)
@pytest.mark.parametrize(("suffix", "comma"), [(".csv", b","), (".tsv", b"\t"), (".CSV", b",")])
def test_every_value_is_text_named_by_the_header(tmp_path: Path, suffix: str, comma: bytes, packed: str) -> None:
    path = tmp_path / f"rows{suffix}{packed}"
    content = b"prompt;response;n\na;1;\n\xc3\xa9;null;2.0\n".replace(b";", comma)
    rows = read(path, COMPRESS[packed](content))
    second = {"prompt": "é", "response": "null", "n": "2.0"}
    first = {"prompt": "a", "response": "1", "n": ""}
    assert rows[0] == SourceRow(str(path), 2, 18, b'{"prompt":"a","response":"1","n":""}', first)
    assert rows[1] == SourceRow(str(path), 3, 23, orjson.dumps(second), second)


def test_columns_of_both_kinds_are_examples(tmp_path: Path) -> None:
    alpaca, pairs = tmp_path / "alpaca.csv", tmp_path / "pairs.tsv"
    alpaca.write_text('instruction,input,output\nAdd.,"1, 2",3\n')
    pairs.write_text("prompt\tresponse\nName a colour.\tGreen.\n")
    examples = list(read_examples([alpaca, pairs]))
    assert [example.prompt_texts for example in examples] == [["Add.\n1, 2"], ["Name a colour."]]
    assert [example.response_texts for example in examples] == [["3"], ["Green."]]


def test_a_quoted_newline_belongs_to_its_row_and_the_next_has_its_line_and_byte(tmp_path: Path) -> None:
    content = b'a,b\r\n"x\r\ny\n\nz","say ""hi"""\r\n1,2\r\n'
    rows = read(tmp_path / "rows.csv", content)
    assert values(rows) == [["x\r\ny\n\nz", 'say "hi"'], ["1", "2"]]
    assert places(rows) == [(2, 5), (6, content.index(b"1,2"))]


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path: Path) -> None:
    for header in (b"a,b\n", b'"a",b\n'):
        (row,) = read(tmp_path / "rows.csv", BOM + header + b"1,2\n")
        assert isinstance(row, SourceRow)
        assert (row.fields, row.line, row.offset) == ({"a": "1", "b": "2"}, 2, len(BOM + header))


def test_blank_lines_are_counted_and_empty_fields_are_none(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"a,b\n\n  \n,\n1,2\n\r\n")
    reader = open_rows(str(tmp_path / "rows.csv"))
    rows = list(reader)
    assert values(rows) == [["", ""], ["1", "2"]]
    assert (places(rows), reader.blank) == ([(4, 8), (5, 10)], 3)
    assert values(read(tmp_path / "rows.tsv", b"a\tb\n\t\n")) == [["", ""]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1", "row has 1 fields, the header 2"),
        (b"1,2,3", "row has 3 fields, the header 2"),
        (b'"1"x,2', "invalid CSV: ',' expected after '\"'"),
        (b'"say \\"hi\\"",2', "invalid CSV: ',' expected after '\"'"),
        (b"caf\xe9,2", "not UTF-8: byte 0xe9 on line 3"),
        (b"1,\r2", "invalid CSV: new-line character seen in unquoted field"),
        (b"1," + b"x" * 100, "row is longer than 60 bytes"),
        (b'"1\n' + b"x" * 100 + b'",2', "row is longer than 60 bytes"),
    ],
)
def test_a_bad_row_is_a_reject_with_its_line_and_the_rest_goes_on(tmp_path: Path, line: bytes, reason: str) -> None:
    content = b"a,b\n1,2\n" + line + b"\n3,4\n"
    rows = read(tmp_path / "rows.csv", content, max_row_bytes=60)
    bad = rows[1]
    assert isinstance(bad, Reject)
    assert (bad.line, bad.offset) == (3, 8)
    assert bad.reason.startswith(reason)
    assert (line.startswith(bad.raw) and bad.raw) or bad.raw == line
    assert values([rows[0], rows[-1]]) == [["1", "2"], ["3", "4"]]
    assert rows[-1].offset == content.index(b"3,4")
    assert len(rows) == 3


def test_a_quote_that_is_left_open_is_a_reject_of_its_row(tmp_path: Path) -> None:
    good, bad = read(tmp_path / "rows.csv", b'a,b\n1,2\n"3,4\n5,6\n')
    assert values([good]) == [["1", "2"]]
    assert isinstance(bad, Reject)
    assert (bad.line, bad.offset, bad.reason) == (3, 8, "invalid CSV: a quote is left open")
    assert bad.raw == b'"3,4\n5,6'


def test_a_field_may_be_as_long_as_a_row(tmp_path: Path) -> None:
    assert values(read(tmp_path / "rows.csv", b"a\n" + b"x" * 500_000 + b"\n")) == [["x" * 500_000]]


@pytest.mark.parametrize("content", [b"", b"\n\n", BOM, b"a,b\n", b"a,b"])
def test_a_file_of_no_more_than_a_header_has_no_rows(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path / "rows.csv", content) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a,b,a\n1,2,3\n", "the header names 'a' more than once"),
        (b'"a,b\n1,2\n', "line 1: invalid CSV: a quote is left open; wanted a header"),
        (b"\xff\xfea\x00", "is UTF-16; give --encoding utf-16"),
        (b"caf\xe9,b\n", "line 1: not UTF-8"),
    ],
)
def test_a_file_without_a_header_is_one_line(tmp_path: Path, content: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=r"rows\.csv") as error:
        read(tmp_path / "rows.csv", content)
    assert problem in str(error.value)


def test_a_cut_compressed_file_gives_its_rows_and_one_reject(tmp_path: Path) -> None:
    noise = b"a,b\n" + b"".join(b"%d,%x\n" % (n, pow(3, 2000 + n, 2**127 - 1)) for n in range(500))
    packed = gzip.compress(noise)
    *rows, last = read(tmp_path / "rows.csv.gz", packed[: len(packed) // 2])
    assert [row[0] for row in values(rows)] == [str(number) for number in range(len(rows))]
    assert isinstance(last, Reject)
    assert "the rest of the file cannot be read" in last.reason


@pytest.mark.parametrize("packed", COMPRESS)
def test_the_rows_from_any_on_are_those_of_the_whole(tmp_path: Path, packed: str) -> None:
    path = tmp_path / f"rows.csv{packed}"
    content = BOM + b'a,b\n\n1,2\n"x\ny",3\n\nbad\n4,5\n"open,\n'
    whole = read(path, COMPRESS[packed](content))
    assert len(whole) == 5
    for begin, row in enumerate(whole):
        reader = open_rows(str(path))
        reader.begin_at(row.line, row.offset)
        assert list(reader) == whole[begin:]


FIELD = st.text(alphabet=st.characters(codec="utf-8"), max_size=6) | st.text(alphabet=',"\t\n\r a', max_size=6)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), width=st.integers(2, 4), suffix=st.sampled_from([".csv", ".tsv.gz", ".tsv", ".csv.zst"]))
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, width: int, suffix: str
) -> None:
    header = data.draw(st.lists(FIELD, min_size=width, max_size=width, unique=True))
    rows = data.draw(st.lists(st.lists(FIELD, min_size=width, max_size=width), max_size=4))
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t" if ".tsv" in suffix else ",", quoting=csv.QUOTE_ALL).writerows([header, *rows])
    content = text.getvalue().encode()
    path = tmp_path_factory.mktemp("delimited") / f"rows{suffix}"
    found = read(path, COMPRESS[path.suffix if path.suffix in COMPRESS else ""](content))
    assert values(found) == rows
    assert all(content[row.offset : row.offset + 1] == b'"' for row in found)
