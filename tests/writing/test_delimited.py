from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import orjson
import pandas as pd
import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.errors import OutputError
from instructmining.reading.rows import open_rows
from instructmining.reading.values import dumps
from instructmining.types import SourceRow
from instructmining.writing import delimited
from instructmining.writing.run_writer import known_kinds
from instructmining.writing.tables import DELIMITED, TableLines, write_table


def written(name: str, *rows: dict[str, object]) -> bytes:
    target = io.BytesIO()
    write_table(io.BytesIO(b"".join(dumps(row) + b"\n" for row in rows)), target, name, known_kinds())
    return target.getvalue()


def back(path: Path) -> list[dict[str, object]]:
    rows = list(open_rows(str(path)))
    assert all(isinstance(row, SourceRow) for row in rows)
    return [dict(row.fields) for row in rows if isinstance(row, SourceRow)]


def test_the_header_has_the_fields_of_all_rows_and_the_scores_last() -> None:
    text = written("out.csv", {"a": "x", "reward": 0.5}, {"b": 1, "reward": None}, {"a": None, "c": True})
    assert text == b"a,b,c,reward\nx,,,0.5\n,1,,\n,,true,\n"


def test_nested_values_are_json_and_text_is_as_it_is() -> None:
    row: dict[str, object] = {"turns": [{"role": "user", "content": 'say "hi", now'}], "t": "=1+1", "n": 2**70}
    text = written("out.csv", row)
    (found,) = csv.DictReader(io.StringIO(text.decode(), newline=""))
    assert orjson.loads(found["turns"]) == row["turns"]
    assert found["t"] == "=1+1"
    assert found["n"] == str(2**70)


def test_a_file_of_no_rows_is_empty() -> None:
    assert written("out.csv") == b""
    assert gzip.decompress(written("out.csv.gz")) == b""


@pytest.mark.parametrize("name", [f"out{suffix}" for suffix in DELIMITED])
def test_every_suffix_is_delimited_and_compressed_as_it_says(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(written(name, {"a": "x\ty", "b": "1,2"}, {"a": "line\nline\r", "b": ""}))
    assert back(tmp_path / name) == [{"a": "x\ty", "b": "1,2"}, {"a": "line\nline\r", "b": ""}]
    plain = (tmp_path / name).read_bytes()
    if name.endswith(".gz"):
        plain = gzip.decompress(plain)
    if name.endswith(".zst"):
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(plain)
    assert plain.startswith(b"a\tb\n" if ".tsv" in name else b"a,b\n")


def test_too_many_fields_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_MOST_FIELDS", 2)
    with pytest.raises(OutputError, match="more than 2 different fields"):
        written("out.csv", {"a": 1, "b": 1}, {"c": 1})


def test_a_stream_of_lines_becomes_a_file_when_it_is_closed(tmp_path: Path) -> None:
    with (tmp_path / "out.tsv").open("wb") as file:
        lines = TableLines(file, "out.tsv", {})
        lines.write(b'{"a":1}\n{"b"')
        lines.write(b":2}\n")
        lines.close()
    assert (tmp_path / "out.tsv").read_bytes() == b"a\tb\n1\t\n\t2\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(rows=st.lists(st.fixed_dictionaries({"first": TEXTS, "other": TEXTS}), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_again_by_us_and_by_pandas(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "out.csv"
    path.write_bytes(written("out.csv", *rows))
    assert back(path) == rows
    if not any("\r" in str(row) or "\0" in str(row) for row in rows):  # pandas' C parser alters these
        frame = pd.read_csv(path, keep_default_na=False, dtype=str, lineterminator="\n")
        assert frame.to_dict("records") == rows


def test_polars_reads_the_scores_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(
        written("out.csv", {"text": "a\nb", "reward": 0.5, "input_length": 3}, {"text": "c", "reward": None})
    )
    frame = pl.read_csv(path)
    assert frame["reward"].to_list() == [0.5, None]
    assert frame["input_length"].to_list() == [3, None]
    assert frame["text"].to_list() == ["a\nb", "c"]
