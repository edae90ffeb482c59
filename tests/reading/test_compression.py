"""What progress is drawn from: how much of a file was read, asked for while another thread reads it."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pyarrow import feather

from instructmining.errors import InputError
from instructmining.reading.examples import read_examples
from instructmining.reading.rows import open_rows
from instructmining.types import Reject

ROWS = 5000
ROW = {"instruction": "Name a colour that is not green.", "output": "Blue, red and yellow are others."}


def csv_text() -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([ROW.keys(), *[ROW.values()] * ROWS])
    return text.getvalue().encode()


def table(write: Callable[[pa.Table, io.BytesIO], None]) -> bytes:
    sink = io.BytesIO()
    write(pa.Table.from_pylist([ROW] * ROWS), sink)
    return sink.getvalue()


def stream(rows: pa.Table, sink: io.BytesIO) -> None:
    with pa.ipc.new_stream(sink, rows.schema) as file:
        file.write_table(rows, max_chunksize=700)


LINES = (orjson.dumps(ROW) + b"\n") * ROWS
CONTENTS: dict[str, Callable[[], bytes]] = {
    "rows.jsonl": lambda: LINES,
    "rows.jsonl.gz": lambda: gzip.compress(LINES),
    "rows.jsonl.zst": lambda: zstandard.compress(LINES),
    "rows.json": lambda: orjson.dumps([ROW] * ROWS),
    "pretty.json": lambda: orjson.dumps([ROW] * ROWS, option=orjson.OPT_INDENT_2),
    "rows.json.gz": lambda: gzip.compress(orjson.dumps({"data": [ROW] * ROWS})),
    "rows.csv": csv_text,
    "rows.csv.gz": lambda: gzip.compress(csv_text()),
    "rows.parquet": lambda: table(pq.write_table),
    "rows.feather": lambda: table(lambda rows, sink: feather.write_feather(rows, sink, chunksize=700)),
    "rows.arrow": lambda: table(stream),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_the_share_read_is_that_of_the_rows_counted_at_any_moment(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(CONTENTS[name]())
    reader = read_examples(path)
    shares = []
    for met, _ in enumerate(reader, 1):
        shares.append(reader.share_read or 0.0)
        if met % 100 == 0:
            assert reader.rows_expected == pytest.approx(ROWS, rel=0.02), met
            assert reader.rows / shares[-1] == pytest.approx(ROWS, rel=0.02)
    assert shares == sorted(shares)
    assert (len(shares), reader.share_read, reader.rows_expected) == (ROWS, 1.0, ROWS)


@pytest.mark.parametrize("name", CONTENTS)
def test_rows_from_a_position_on_are_estimated_as_those_of_the_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(CONTENTS[name]())
    (first, *_) = read_examples(path).windows(1000)
    reader = read_examples(path)
    assert first.end is not None
    reader.begin_after(first.end)
    next(iter(reader))
    assert reader.rows == 1001
    assert reader.rows_expected == pytest.approx(ROWS, rel=0.02)


def test_several_files_are_one_share(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("rows.jsonl", "rows.jsonl.gz", "rows.csv")]
    for path in paths:
        path.write_bytes(CONTENTS[path.name]())
    reader = read_examples(paths)
    shares = [reader.share_read or 0.0 for _ in reader]
    assert shares == sorted(shares)
    assert reader.share_read == 1.0


def test_noise_whose_compression_changes_has_a_share_that_never_falls(tmp_path: Path) -> None:
    noise = (b'{"instruction":"%x","output":"b"}\n' % pow(3, 999 + n, 2 ** (40 + n % 800)) for n in range(20_000))
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(noise) + LINES + b'{"instruction":"a","output":"b"}\n' * 9000, 1))
    reader = read_examples(path)
    shares = [reader.share_read or 0.0 for _ in reader]
    assert shares == sorted(shares)
    assert shares[0] < 0.01
    assert shares[-2] < reader.share_read == 1.0


@pytest.fixture
def busy_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("busy_threads")
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_the_share_may_be_asked_for_while_another_thread_closes_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = LINES[: 30 * len(LINES) // ROWS]
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for _ in range(300):
        reader = read_examples(path)
        reading = threading.Thread(target=lambda source=reader: list(source))  # type: ignore[misc]
        reading.start()
        while reading.is_alive():
            assert 0.0 <= (reader.share_read or 0.0) <= 1.0
        reading.join()
        assert reader.share_read == 1.0


def test_a_file_that_is_begun_is_read_up_to_the_end_of_its_last_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINES)
    reader = open_rows(str(path))
    rows = iter(reader)
    next(rows)
    assert reader.bytes_read == len(LINES) // ROWS
    assert len(list(rows)) == ROWS - 1
    assert reader.bytes_read == len(LINES)


@pytest.mark.parametrize("padding", [1, 511, 300_000])
@pytest.mark.parametrize("members", [1, 2])
def test_zero_bytes_behind_gzip_are_no_part_of_it(tmp_path: Path, padding: int, members: int) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes((gzip.compress(b'{"a":1}\n') + bytes(padding)) * members)
    assert [row.raw for row in open_rows(str(path))] == [b'{"a":1}'] * members


def test_other_bytes_behind_gzip_are_a_reject(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a":1}\n') + bytes(512) + b"rest")
    row, rest = open_rows(str(path))
    assert row.raw == b'{"a":1}'
    assert isinstance(rest, Reject)
    assert rest.reason.startswith("the rest of the file cannot be read")


def test_a_window_that_takes_much_memory_says_how_to_do_without(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.zst"
    size = (1 << 40).to_bytes(8, "little")
    path.write_bytes(b"\x28\xb5\x2f\xfd\xe0" + size + b"\1\0\0")
    with pytest.raises(InputError, match="too much memory for decoding; compress the file again without --long"):
        list(open_rows(str(path)))


FOREIGN = {
    ".bz2": bz2.compress(b'{"a":1}\n'),
    ".xz": lzma.compress(b'{"a":1}\n'),
    ".zip": b"PK\3\4rest of it",
    "encrypted Parquet": b"PARE" + bytes(20) + b"PARE",
}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ""])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_read_is_named_whatever_the_files_name_says(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(InputError, match=f"rows{suffix}: is {kind}, which is not read by this version; wanted JSON"):
        list(open_rows(str(path)))
