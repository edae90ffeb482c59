from __future__ import annotations

import csv
import gzip
import io
import time
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


def test_lines_of_nothing_by_the_million_are_soon_done_with(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a,b\n" + b"\n" * 1_000_000 + b"1,2\r\n" + b"\r\n" * 1_000_000 + b" \n\n3,4\n")
    begun = time.process_time()
    reader = open_rows(str(path))
    rows = list(reader)
    assert time.process_time() - begun < 1.5
    assert values(rows) == [["1", "2"], ["3", "4"]]
    assert (places(rows), reader.blank) == ([(1_000_002, 1_000_004), (2_000_005, 3_000_012)], 2_000_002)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1", "row has 1 fields, the header 2"),
        (b"1,2,3", "row has 3 fields, the header 2"),
        (b'"1"x,2', "invalid CSV: ',' expected after '\"'"),
        (b'"say \\"hi\\"",2', "invalid CSV: ',' expected after '\"'; a quote inside of quotes is doubled, not \\\""),
        (b"caf\xe9,2", "not UTF-8: byte 0xe9 on line 3"),
        (b"1,\r2", "invalid CSV: a carriage return outside of quotes; end lines in LF or CRLF"),
        (b"a,b", "repeats the header; were files concatenated?"),
        (b"\xef\xbb\xbfa,b", "repeats the header; were files concatenated?"),
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
        (b"a" * 3000 + b"," + b"a" * 3000 + b"\n1,2\n", f"the header names '{'a' * 60}…' more than once"),
        (b"a" * 3000 + b";b\n1;2\n", f"the header is one field, '{'a' * 60}…'; give --delimiter ';'"),
        (
            b",".join(b"n%d" % (number % 199_999) for number in range(200_000)) + b"\n",
            "the header names 'n0' more than",
        ),
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
    row = st.lists(FIELD, min_size=width, max_size=width).filter(lambda row: row != header)
    rows = data.draw(st.lists(row, max_size=4))
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t" if ".tsv" in suffix else ",", quoting=csv.QUOTE_ALL).writerows([header, *rows])
    content = text.getvalue().encode()
    path = tmp_path_factory.mktemp("delimited") / f"rows{suffix}"
    found = read(path, COMPRESS[path.suffix if path.suffix in COMPRESS else ""](content))
    assert values(found) == rows
    assert all(content[row.offset : row.offset + 1] == b'"' for row in found)


# Other delimiters and encodings


def read_with(path: Path, content: bytes, options: ReadOptions) -> list[RowOrReject]:
    path.write_bytes(content)
    return list(open_rows(str(path), options))


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.txt", "rows.csv.gz"])
@pytest.mark.parametrize(("delimiter", "comma"), [(";", ";"), ("|", "|"), ("tab", "\t"), ("\\t", "\t"), ("§", "§")])
def test_a_delimiter_that_is_given_is_the_one(tmp_path: Path, name: str, delimiter: str, comma: str) -> None:
    content = f'a,b{comma}c\nx{comma}"1{comma}2"\n'.encode()
    packed = gzip.compress(content) if name.endswith(".gz") else content
    (row,) = read_with(tmp_path / name, packed, ReadOptions(delimiter=delimiter))
    assert isinstance(row, SourceRow)
    assert row.fields == {"a,b": "x", "c": f"1{comma}2"}


def test_a_delimiter_leaves_json_and_tables_as_they_are(tmp_path: Path) -> None:
    for name in ("rows.jsonl", "rows.json"):
        (row,) = read_with(tmp_path / name, b'{"a":"x;y"}\n', ReadOptions(delimiter=";"))
        assert isinstance(row, SourceRow)
        assert row.fields == {"a": "x;y"}


@pytest.mark.parametrize(
    ("name", "header", "mend"),
    [
        ("rows.csv", "a;b;c", "';'"),
        ("rows.csv", "a;b", "';'"),
        ("rows.csv", "a\tb", "tab"),
        ("rows.csv", "a|b;c|d", "'|'"),
        ("rows.tsv", "a,b", "','"),
    ],
)
def test_a_header_of_one_field_says_which_delimiter_to_give(tmp_path: Path, name: str, header: str, mend: str) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path / name, f"{header}\n1;2;3\n".encode())
    assert str(error.value) == f"{tmp_path / name}: the header is one field, {header!r}; give --delimiter {mend}"


def test_a_header_of_one_field_without_a_delimiter_is_one_field(tmp_path: Path) -> None:
    assert values(read(tmp_path / "rows.csv", b"a\nx;y\n")) == [["x;y"]]


def test_bytes_that_are_not_utf_8_say_which_option_reads_them(tmp_path: Path) -> None:
    good, bad = read(tmp_path / "rows.csv", b"a,b\n1,2\ncaf\xe9,2\n")
    assert values([good]) == [["1", "2"]]
    assert isinstance(bad, Reject)
    assert bad.reason == "not UTF-8: byte 0xe9 on line 3; if the file is Latin-1, give --encoding latin-1"


WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("packed", COMPRESS)
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8", "utf-8-sig", *WIDE])
def test_an_encoding_that_is_given_is_the_one_and_places_are_bytes_of_the_file(
    tmp_path: Path, encoding: str, packed: str
) -> None:
    text = 'a,b\r\ncafé,1\r\n\r\n"x\ny",ß\r\nà,\r\n'
    content = text.encode(encoding)
    options = ReadOptions(encoding=encoding)
    path = tmp_path / f"rows.csv{packed}"
    rows = read_with(path, COMPRESS[packed](content), options)
    assert values(rows) == [["café", "1"], ["x\ny", "ß"], ["à", ""]]
    assert [row.line for row in rows] == [2, 4, 6]
    plain = encoding.removesuffix("-sig") if encoding not in {"utf-16", "utf-32"} else f"{encoding}-le"
    ends = {"café": 'café,1\r\n\r\n"x\ny",ß\r\nà,\r\n', '"x': '"x\ny",ß\r\nà,\r\n', "à": "à,\r\n"}
    assert [content[row.offset :].decode(plain) for row in rows] == list(ends.values())
    for begin, row in enumerate(rows):
        reader = open_rows(str(path), options)
        reader.begin_at(row.line, row.offset)
        assert list(reader) == rows[begin:]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_line_breaks_byte_inside_a_character_ends_no_line(tmp_path: Path, encoding: str) -> None:
    text = "a,b\n\u0a0a\u0a0d\u0d0a\u000b\u0a00,\u0aff\n1,2\n"
    rows = read_with(tmp_path / "rows.csv", text.encode(encoding), ReadOptions(encoding=encoding))
    assert values(rows) == [["\u0a0a\u0a0d\u0d0a\u000b\u0a00", "\u0aff"], ["1", "2"]]


@pytest.mark.parametrize("encoding", WIDE)
def test_a_bad_row_of_wide_characters_costs_no_other(tmp_path: Path, encoding: str) -> None:
    content = ("a,b\n1,2\n" + "x" * 99 + ",2\nbad\n3,4\n").encode(encoding)
    options = ReadOptions(70, encoding=encoding)
    rows = read_with(tmp_path / "rows.csv", content, options)
    assert values(rows) == [["1", "2"], ["3", "4"]]
    reasons = [row.reason for row in rows if isinstance(row, Reject)]
    assert reasons == ["row is longer than 70 bytes (is a quote left open?)", "row has 1 fields, the header 2"]
    assert isinstance(rows[2], Reject)
    codec = encoding if encoding not in {"utf-16", "utf-32"} else f"{encoding}-le"
    assert rows[2].raw == "bad".encode(codec)
    assert [row.line for row in rows] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("content", "encoding", "problem"),
    [
        ("a,b\n".encode("utf-16-le"), "utf-16", "has no byte order mark; give --encoding utf-16-le or utf-16-be"),
        ("a,b\n1,2\n".encode("utf-16"), None, "is UTF-16; give --encoding utf-16"),
        ("a,b\n1,2\n".encode("utf-32"), None, "is UTF-32; give --encoding utf-32"),
    ],
)
def test_an_encoding_that_cannot_be_told_is_an_input_error(
    tmp_path: Path, content: bytes, encoding: str | None, problem: str
) -> None:
    with pytest.raises(InputError, match=f"rows.csv: {problem}$"):
        read_with(tmp_path / "rows.csv", content, ReadOptions(encoding=encoding))


def test_bytes_that_are_not_in_the_encoding_are_a_reject(tmp_path: Path) -> None:
    (bad,) = read_with(tmp_path / "rows.csv", b"a,b\n1,\x81\n", ReadOptions(encoding="cp1252"))
    assert isinstance(bad, Reject)
    assert bad.reason == "not cp1252: byte 0x81 on line 2"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.jsonl.gz"])
def test_an_encoding_is_of_delimited_text_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b'{"a":1}\n') if name.endswith(".gz") else b'{"a":1}\n')
    with pytest.raises(InputError, match=r"JSON is read as UTF-8 only; --encoding latin-1 is of CSV and TSV"):
        open_rows(str(path), ReadOptions(encoding="latin-1"))
    assert len(list(open_rows(str(path), ReadOptions(encoding="utf8")))) == 1
