from __future__ import annotations

import gzip
import io
import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from instructmining.errors import InputError
from instructmining.reading.options import ReadOptions
from instructmining.reading.rows import open_rows
from instructmining.types import Reject, SourceRow

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TABLE = pa.table({"a": ["x", "y"], "b": ["1", "2"]})
ROWS = [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}]
PACK: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink)
    return sink.getvalue()


def arrow(new: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> bytes:
    sink = io.BytesIO()
    with new(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue()


CONTENTS = {
    "lines": b'{"a":"x","b":"1"}\n{"a":"y","b":"2"}\n',
    "array": b' [{"a":"x","b":"1"},{"a":"y","b":"2"}]',
    "document": b'{"version": 1, "data": [{"a":"x","b":"1"},\n{"a":"y","b":"2"}]}',
    "marked": b'\xef\xbb\xbf{"a":"x","b":"1"}\n{"a":"y","b":"2"}\n',
    "csv": b"a,b\nx,1\ny,2\n",
    "tsv": b"a\tb\nx\t1\ny\t2\n",
    "parquet": parquet(),
    "arrow file": arrow(pa.ipc.new_file),
    "arrow stream": arrow(pa.ipc.new_stream),
}


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def given(content: bytes) -> None:
        class Stdin:
            buffer: BinaryIO = io.BytesIO(content)

        monkeypatch.setattr(sys, "stdin", Stdin())

    return given


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", CONTENTS)
def test_every_kind_and_compression_is_found_by_its_first_bytes(
    give: Callable[[bytes], None], kind: str, packing: str
) -> None:
    give(PACK[packing](CONTENTS[kind]))
    rows = list(open_rows("-"))
    assert [dict(row.fields) for row in rows if isinstance(row, SourceRow)] == ROWS
    assert {row.source for row in rows} == {"-"}


class Pieces(io.RawIOBase):
    """What a pipe gives whose writer writes small pieces."""

    def __init__(self, content: bytes, size: int) -> None:
        self._pieces = [content[at : at + size] for at in range(0, len(content), size)]

    def readable(self) -> bool:
        return True

    def readinto(self, target: WriteableBuffer, /) -> int:
        piece = self._pieces.pop(0) if self._pieces else b""
        memoryview(target)[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("size", [1, 5, 30])
@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_kind_is_found_however_small_the_pieces_are_in_which_it_comes(
    monkeypatch: pytest.MonkeyPatch, kind: str, packing: str, size: int
) -> None:
    class Stdin:
        buffer: BinaryIO = io.BufferedReader(Pieces(PACK[packing](CONTENTS[kind]), size))

    monkeypatch.setattr(sys, "stdin", Stdin())
    assert [dict(row.fields) for row in open_rows("-") if isinstance(row, SourceRow)] == ROWS


def test_rows_that_hold_data_are_no_document_however_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer: BinaryIO = io.BufferedReader(Pieces(b'{"id": 1, "data": [{"b": 1}]}\n' * 3, 29))

    monkeypatch.setattr(sys, "stdin", Stdin())
    assert [sorted(row.fields) for row in open_rows("-") if isinstance(row, SourceRow)] == [["data", "id"]] * 3


def test_the_first_row_of_a_pipe_comes_before_the_second_is_written(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    try:
        os.write(writer, b'{"a":"x","b":"1"}\n')
        (row,) = islice(open_rows(str(pipe)), 1)
    finally:
        os.close(writer)
    assert isinstance(row, SourceRow)
    assert row.fields == ROWS[0]


def test_a_frame_to_be_skipped_at_the_beginning_is_of_zstd(give: Callable[[bytes], None]) -> None:
    give(b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstandard.compress(CONTENTS["lines"]))
    assert [dict(row.fields) for row in open_rows("-") if isinstance(row, SourceRow)] == ROWS


@pytest.mark.parametrize("packing", PACK)
def test_nothing_has_no_rows(give: Callable[[bytes], None], packing: str) -> None:
    give(PACK[packing](b""))
    assert list(open_rows("-")) == []


def test_another_delimiter_is_said_and_taken_when_it_is_given(give: Callable[[bytes], None]) -> None:
    give(b"a;b\nx;1\n")
    with pytest.raises(InputError, match=r"^-: the header is one field, 'a;b'; give --delimiter ';'"):
        list(open_rows("-"))
    give(b"a;b\nx;1\n")
    (row,) = open_rows("-", ReadOptions(delimiter=";"))
    assert isinstance(row, SourceRow)
    assert row.fields == {"a": "x", "b": "1"}


def test_a_broken_first_line_of_json_costs_no_other(give: Callable[[bytes], None]) -> None:
    give(b'nonsense\n{"a":1}\n')
    bad, good = open_rows("-")
    assert isinstance(bad, Reject)
    assert isinstance(good, SourceRow)


def test_a_cut_compressed_table_is_an_input_error(give: Callable[[bytes], None]) -> None:
    give(gzip.compress(CONTENTS["parquet"])[:-20])
    with pytest.raises(InputError, match=r"^-: cannot be copied into .*cut"):
        list(open_rows("-"))


def test_cut_compressed_lines_give_what_is_there_and_one_reject(give: Callable[[bytes], None]) -> None:
    give(gzip.compress(CONTENTS["lines"])[:-4])
    *rows, last = open_rows("-")
    assert len(rows) == 2
    assert isinstance(last, Reject)
    assert "the rest of the file cannot be read" in last.reason


def test_the_copy_of_a_table_is_gone_when_it_was_read(
    give: Callable[[bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    give(CONTENTS["parquet"])
    rows = iter(open_rows("-"))
    next(rows)
    assert len(list(tmp_path.iterdir())) == 1
    assert len(list(rows)) == 1
    assert list(tmp_path.iterdir()) == []


def test_blank_lines_are_counted_and_no_size_is_known(give: Callable[[bytes], None]) -> None:
    give(b'{"a":1}\n\n{"a":2}\n')
    reader = open_rows("-")
    assert reader.blank == 0
    assert [row.line for row in reader] == [1, 3]
    assert (reader.blank, reader.bytes_total, reader.rows_total, reader.bytes_read) == (1, None, None, 0)
