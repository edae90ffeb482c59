"""Documents whose rows are in an array under ``data``; lines and arrays are in test_rows."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.errors import InputError
from instructmining.reading import compression, json_array
from instructmining.reading.examples import read_examples
from instructmining.reading.options import MAX_ROW_BYTES, ReadOptions
from instructmining.reading.rows import open_rows
from instructmining.types import Reject, RowOrReject, SourceRow

PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress}


def read(path: Path, content: bytes, *, max_row_bytes: int = MAX_ROW_BYTES) -> list[RowOrReject]:
    path.write_bytes(content)
    return list(open_rows(str(path), ReadOptions(max_row_bytes)))


def fields(rows: list[RowOrReject]) -> list[object]:
    return [row.fields if isinstance(row, SourceRow) else row.reason for row in rows]


DOCUMENTS = {
    "one line": b'{"data":[{"a":1},{"a":[{"b":2}]}]}',
    "spread": b'{\n  "data" : [\n    {"a": 1},\n    {"a": [{"b":\n 2}]}\n  ]\n}\n',
    "keys before": b'{"version":"1.1","n":3,"more":{"data":[{"no":1}],"x":[]},"data":[{"a":1},{"a":[{"b":2}]}]}',
    "keys behind": b'{"data":[{"a":1},\n{"a":[{"b":2}]}],"version":"[{","more":[{"no":"}]"}], "n": 1}\n',
    "marked": b'\xef\xbb\xbf\n {"data":[{"a":1},{"a":[{"b":2}]}]}',
}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("chunk", [9, 1 << 20])
def test_the_objects_of_the_array_are_the_rows_with_their_own_bytes_and_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str, packed: str, chunk: int
) -> None:
    content = DOCUMENTS[name]
    monkeypatch.setattr(json_array, "_CHUNK", chunk)
    rows = read(tmp_path / f"rows{suffix}{packed}", PACK[packed](content))
    assert fields(rows) == [{"a": 1}, {"a": [{"b": 2}]}]
    for row in rows:
        assert content[row.offset :].startswith(row.raw[:6])
        assert row.line == 1 + content.count(b"\n", 0, row.offset)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_gone_on_with_from_any_of_its_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.json"
    whole = read(path, DOCUMENTS[name])
    for begin, row in enumerate(whole):
        reader = open_rows(str(path))
        reader.begin_at(row.line, row.offset)
        assert list(reader) == whole[begin:]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "1", "data": ["a question", "an answer"]}],  # UltraChat
        [{"data": ["a", "b"]}, {"data": ["c", "d"]}],
        [{"data": [{"role": "user"}]}, {"data": [{"role": "user"}]}],
        [{"data": []}],
        [{"data": "[{"}],
        [{"other": [{"a": 1}]}],
        [{"x": {"data": [{"a": 1}]}}],
        [{"x": "data", "y": [{"a": 1}]}],
    ],
)
def test_other_objects_with_data_are_rows_of_their_own(
    tmp_path: Path, suffix: str, rows: list[dict[str, object]]
) -> None:
    content = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    assert fields(read(tmp_path / f"rows{suffix}", content)) == rows


@pytest.mark.parametrize("packed", PACK)
def test_a_first_line_whose_end_is_out_of_sight_is_a_row_where_lines_are_rows(tmp_path: Path, packed: str) -> None:
    long = b'{"id": 1, "data": [{"a": "%s"}, {"a": 2}]}' % (b"x" * (1 << 20))
    rows = read(tmp_path / f"rows.jsonl{packed}", PACK[packed](long + b'\n{"id": 2, "data": [{"a": 3}]}\n'))
    assert [sorted(row.fields) for row in rows if isinstance(row, SourceRow)] == [["data", "id"], ["data", "id"]]
    rows = read(tmp_path / f"rows.json{packed}", PACK[packed](long))
    assert [sorted(row.fields) for row in rows if isinstance(row, SourceRow)] == [["a"], ["a"]]


def test_a_bad_row_of_a_document_costs_no_other(tmp_path: Path) -> None:
    content = b'{"data":[{"a":1},{"a" 2},"text",{"a":"' + b"x" * 90 + b'"},{"a":3}],"n":1}'
    rows = read(tmp_path / "rows.json", content, max_row_bytes=50)
    reasons = ["row is text, wanted an object", "row is longer than 50 bytes"]
    assert [row for row in fields(rows) if isinstance(row, dict)] == [{"a": 1}, {"a": 3}]
    assert [row.reason for row in rows if isinstance(row, Reject)][1:] == reasons


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"data":[{"a":1},{"a"', "the file ends in the middle of a row"),
        (b'{"data":[{"a":1},', "the file ends before its array is closed"),
        (b'{"data":[{"a":1}], "n": 1', "the file ends before its document is closed"),
        (b'{"data":[{"a":1}]]', None),
    ],
)
def test_a_document_cut_anywhere_gives_its_rows_and_one_reject(
    tmp_path: Path, content: bytes, reason: str | None
) -> None:
    first, *others = fields(read(tmp_path / "rows.json", content))
    assert first == {"a": 1}
    assert others == ([reason] if reason else [])


def test_a_second_document_out_of_sight_is_not_lost_without_a_word(tmp_path: Path) -> None:
    first = orjson.dumps({"data": [{"a": "x" * 1000}] * 1200})
    rows = read(tmp_path / "rows.json", first + b'\n{"data":[{"a":1}]}\n')
    assert len(rows) == 1201
    assert fields(rows)[-1] == {"data": [{"a": 1}]}


def test_a_document_is_read_in_one_pass_whatever_its_size(tmp_path: Path) -> None:
    row = {"instruction": "a", "output": "b" * 2000}
    path = tmp_path / "rows.json"
    path.write_bytes(orjson.dumps({"version": 1, "data": [row] * 2000}))
    reader = read_examples(path)
    examples = iter(reader)
    next(examples)
    assert reader.rows_expected == pytest.approx(2000, rel=0.02)
    assert sum(1 for _ in examples) == 1999


TEXTS = st.text(alphabet='ab"\\[]{},:é ', max_size=6)
VALUES = st.recursive(
    st.integers(0, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), min_size=1, max_size=4),
    before=st.dictionaries(TEXTS, VALUES, max_size=3),
    behind=st.dictionaries(TEXTS, VALUES, max_size=3),
    pretty=st.booleans(),
    chunk=st.integers(4, 40),
)
def test_any_document_gives_its_rows(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, object]],
    before: dict[str, object],
    behind: dict[str, object],
    pretty: bool,
    chunk: int,
) -> None:
    content = orjson.dumps({**before, "data": rows, **behind}, option=orjson.OPT_INDENT_2 if pretty else 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_CHUNK", chunk)
        found = read(tmp_path_factory.mktemp("document") / "rows.json", content)
    assert fields(found) == rows


WIDE = {"utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "utf-32": "UTF-32", "utf-32-be": "UTF-32"}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("content", ['{"a":1}\n{"a":2}\n', '[{"a":1}]'])
@pytest.mark.parametrize("encoding", WIDE)
def test_wide_characters_are_one_error_that_names_them(
    tmp_path: Path, encoding: str, content: str, packed: str
) -> None:
    with pytest.raises(InputError, match=f"is {WIDE[encoding]}; JSON is read as UTF-8 only; convert the file"):
        read(tmp_path / f"rows.jsonl{packed}", PACK[packed](content.encode(encoding)))


@pytest.mark.parametrize("packed", PACK)
@given(blank=st.lists(st.text(alphabet=" \t\r\v\f", max_size=3), max_size=6), size=st.integers(1, 40))
def test_blank_lines_are_counted_and_rows_keep_their_places_whatever_is_read_at_once(
    tmp_path_factory: pytest.TempPathFactory, packed: str, blank: list[str], size: int
) -> None:
    path = tmp_path_factory.mktemp("blank") / f"rows.jsonl{packed}"
    lines = [*blank, '{"a":1}', *blank, "", *blank, '{"a":2}', *blank]
    content = "\n".join(lines).encode()
    path.write_bytes(PACK[packed](content))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compression, "_CHUNK", size)
        reader = open_rows(str(path))
        rows = list(reader)
    assert [row.line for row in rows] == [number for number, line in enumerate(lines, 1) if "a" in line]
    assert [content[row.offset : row.offset + 3] for row in rows] == [b'{"a', b'{"a']
    *parts, last = content.split(b"\n")
    assert reader.blank == sum(not part.strip() for part in parts) + (last.isspace())


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet='[]{}", \n1', max_size=40), chunk=st.integers(1, 12))
def test_brackets_are_the_same_values_whatever_is_read_at_once(
    tmp_path_factory: pytest.TempPathFactory, text: str, chunk: int
) -> None:
    path = tmp_path_factory.mktemp("brackets") / "rows.json"
    content = b'[{"a":[[{}]]},' + text.encode()
    whole = read(path, content)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_array, "_CHUNK", chunk)
        pieces = read(path, content)
    assert [(row.line, row.offset) for row in pieces] == [(row.line, row.offset) for row in whole]
    assert fields(pieces) == fields(whole)


def test_lines_of_nothing_and_brackets_by_the_million_are_soon_done_with(tmp_path: Path) -> None:
    begun = time.process_time()
    assert len(read(tmp_path / "blank.jsonl", b"\n" * 5_000_000 + b'{"a":1}\n')) == 1
    (deep,) = read(tmp_path / "deep.json", b"[" * 1_000_000 + b"]" * 1_000_000)
    assert isinstance(deep, Reject)
    assert time.process_time() - begun < 3
