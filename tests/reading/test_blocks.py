"""Blocks: windows end where blocks do, and an input read in parts gives the rows, windows and counts of the whole."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from instructmining.errors import InputError
from instructmining.reading.blocks import Blocks, Cut
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.examples import read_examples
from instructmining.reading.formats import FieldOptions
from instructmining.reading.options import ReadOptions
from instructmining.types import Example, InputWindow, Position, Reject

BLOCK = 512
TABLE = BLOCK * 8  # 4 rows of a table
ROWS = 60
WINDOW = 4


def _line(number: int) -> bytes:
    if number % 11 == 5:
        return b'{"instruction": "no output %d"}' % number
    if number % 17 == 3:
        return b"{broken"
    row = {"instruction": f"question {number}", "output": "word " * (number % 13 + 1), "id": number}
    return orjson.dumps(row) + b" " * (number % 3)


def _jsonl(blanks: str = "\n \n\n") -> bytes:
    lines = [_line(number) + b"\n" + (blanks.encode() if number % 7 == 2 else b"") for number in range(ROWS)]
    return b"".join(lines)[:-1]


def _write_jsonl(path: Path) -> str:
    return _written(path.with_suffix(".jsonl"), _jsonl())


def _write_bad_first(path: Path) -> str:
    bad = b"".join(b'{"nothing": %d}\n' % number if number % 2 else b"{\n" for number in range(70))
    return _written(path.with_suffix(".jsonl"), b"[1]\n" * 60 + bad[:0] + _jsonl())


def _write_blank(path: Path) -> str:
    return _written(path.with_suffix(".jsonl"), _line(0) + b"\n" * (3 * BLOCK) + _line(1) + b"\n" * BLOCK)


def _write_gzip(path: Path) -> str:
    return _written(path.with_suffix(".jsonl.gz"), gzip.compress(_jsonl()))


def _write_array(path: Path) -> str:
    good = [_line(number) for number in range(ROWS) if number % 17 != 3]
    return _written(path.with_suffix(".json"), b"[\n" + b",\n".join(good) + b"\n]\n")


def _write_document(path: Path) -> str:
    good = [_line(number) for number in range(ROWS) if number % 17 != 3]
    return _written(path.with_suffix(".json"), b'{"version": "1.0", "data": [' + b",\n".join(good) + b"]}")


def _write_csv(path: Path) -> str:
    rows = [
        f'"question\n{number}","{"word " * (number % 9 + 1)}"\n' + ("\n\n" if number % 7 == 2 else "")
        for number in range(ROWS)
    ]
    return _written(path.with_suffix(".csv"), ("instruction,output\n\n" + "".join(rows)).encode())


def _table() -> pa.Table:
    numbers = range(ROWS)
    return pa.table(
        {
            "instruction": [f"question {number}" for number in numbers],
            "output": [None if number % 11 == 5 else "word " * (number % 13 + 1) for number in numbers],
        }
    )


def _write_parquet(path: Path) -> str:
    pq.write_table(_table(), path.with_suffix(".parquet"), row_group_size=7)
    return str(path.with_suffix(".parquet"))


def _write_arrow(path: Path) -> str:
    pyarrow.feather.write_feather(_table(), str(path.with_suffix(".arrow")), compression="uncompressed", chunksize=9)
    return str(path.with_suffix(".arrow"))


def _write_threads(path: Path) -> str:
    lines = []
    for thread in range(12):
        said = [
            {"message_id": f"{thread}-{turn}", "parent_id": f"{thread}-{turn - 1}" if turn else None}
            | {"text": f"turn {turn} of {thread}", "role": "assistant" if turn % 2 else "prompter"}
            for turn in range(4)
        ]
        lines += [orjson.dumps(turn) + b"\n" * (1 + (thread % 5 == 1)) for turn in said]
    return _written(path.with_suffix(".jsonl"), b"".join(lines))


def _written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


WRITERS: dict[str, Callable[[Path], str]] = {
    "lines": _write_jsonl,
    "lines of which the first are bad": _write_bad_first,
    "blank lines": _write_blank,
    "gzip": _write_gzip,
    "array": _write_array,
    "document": _write_document,
    "csv": _write_csv,
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "threads": _write_threads,
}


def _reader(files: Sequence[str], block: int) -> ExampleReader:
    options = ReadOptions(block_bytes=block)
    return read_examples(list(files), options=options, fields=FieldOptions(unread="count"), on_reject=lambda _: None)


def _block(kind: str) -> int:
    return TABLE if kind in {"parquet", "arrow"} else BLOCK


def _content(windows: Iterator[InputWindow]) -> list[list[tuple[object, ...]]]:
    """What windows hold, without the lines, which may count from a cut."""
    return [[_item(item) for item in window.items] for window in windows]


def _item(item: Example | Reject) -> tuple[object, ...]:
    if isinstance(item, Reject):
        return (item.source, item.offset, item.reason, item.raw)
    assert item.row is not None
    return (item.row.source, item.row.offset, item.row.raw, item.turns, item.unread)


def _counts(readers: Sequence[ExampleReader]) -> tuple[int, int, int]:
    return (
        sum(reader.rows for reader in readers),
        sum(reader.rejected for reader in readers),
        sum(reader.blank for reader in readers),
    )


def _cuts(file: int, block: int, size: int) -> list[Cut]:
    return [Cut(file, at) for at in range(block, size, block)]


@pytest.mark.parametrize("kind", WRITERS)
def test_parts_have_the_windows_and_counts_of_the_whole(kind: str, tmp_path: Path) -> None:
    file = WRITERS[kind](tmp_path / "rows")
    block = _block(kind)
    whole = _reader([file], block)
    wanted = _content(whole.windows(WINDOW))
    assert len(wanted) > 1
    size = ROWS if block == TABLE else 20 * BLOCK
    every = _cuts(0, 4 if block == TABLE else block, size)
    chosen = random.Random(0)
    for number in (1, 2, 5, len(every)):
        cuts = [None, *sorted(chosen.sample(every, min(number, len(every)))), None]
        parts = [_reader([file], block) for _ in cuts[1:]]
        found = []
        for part, (begin, end) in zip(parts, pairwise(cuts), strict=True):
            part.restrict(begin, end)
            found += _content(part.windows(WINDOW))
        assert found == wanted
        assert _counts(parts) == _counts([whole])


@pytest.mark.parametrize("kind", WRITERS)
def test_a_part_resumes_after_any_of_its_windows(kind: str, tmp_path: Path) -> None:
    file = WRITERS[kind](tmp_path / "rows")
    unit = 4 if _block(kind) == TABLE else BLOCK
    begin, end = Cut(0, 2 * unit), Cut(0, 5 * unit)

    def part(after: Position | None = None) -> ExampleReader:
        reader = _reader([file], _block(kind))
        reader.restrict(begin, end)
        if after is not None:
            reader.begin_after(after)
        return reader

    whole = part()
    windows = list(whole.windows(WINDOW))
    for number, window in enumerate(windows):
        assert window.end is not None
        resumed = part(window.end)
        assert list(resumed.windows(WINDOW)) == windows[number + 1 :]
        assert _counts([resumed]) == _counts([whole])


def test_windows_end_at_multiples_of_the_block_in_a_file(tmp_path: Path) -> None:
    file = _write_jsonl(tmp_path / "rows")
    windows = list(_reader([file], BLOCK).windows(1000))
    blocks = [{_offset(item) // BLOCK for item in window.items} for window in windows]
    assert all(len(one) == 1 for one in blocks)
    assert len(blocks) == len({min(one) for one in blocks})


def test_small_files_share_a_window(tmp_path: Path) -> None:
    lines = b"".join(_line(row) + b"\n" for row in range(4))
    files = [_written(tmp_path / f"{number}.jsonl", lines) for number in range(9)]
    windows = list(_reader(files, BLOCK).windows(1000))
    sources = [{_source(item) for item in window.items} for window in windows]
    assert 1 < len(windows) < len(files)
    blocks = Blocks([_size(path) for path in files], BLOCK)
    begins = {path for number, path in enumerate(files) if blocks.begins_at(number)}
    assert {min(one) for one in sources} == begins


def test_files_are_parts_of_their_own_where_a_block_begins_with_them(tmp_path: Path) -> None:
    kinds = ["lines", "gzip", "csv", "threads", "array"]
    files = [WRITERS[kind](tmp_path / f"{number}") for number, kind in enumerate(kinds)]
    whole = _reader(files, BLOCK)
    wanted = _content(whole.windows(WINDOW))
    blocks = Blocks([_size(path) for path in files], BLOCK)
    cuts = [None, *(Cut(file, 0) for file in range(1, len(files)) if blocks.begins_at(file)), Cut(4, BLOCK), None]
    parts = [_reader(files, BLOCK) for _ in cuts[1:]]
    found = []
    for part, (begin, end) in zip(parts, pairwise(cuts), strict=True):
        part.restrict(begin, end)
        found += _content(part.windows(WINDOW))
    assert found == wanted
    assert _counts(parts) == _counts([whole])


def test_an_input_that_is_read_once_cannot_be_read_in_parts() -> None:
    reader = read_examples(iter([{"instruction": "a", "output": "b"}]))
    with pytest.raises(InputError, match="rows: can be read only once"):
        reader.restrict(None, Cut(0, 1))


def test_a_block_has_at_least_a_byte() -> None:
    with pytest.raises(InputError, match="block_bytes is 0; wanted at least 1"):
        replace(ReadOptions(), block_bytes=0)


def _offset(item: Example | Reject) -> int:
    if isinstance(item, Reject):
        return item.offset
    assert item.row is not None
    return item.row.offset


def _source(item: Example | Reject) -> str:
    if isinstance(item, Reject):
        return item.source
    assert item.row is not None
    return item.row.source


def _size(path: str) -> FileSize:
    return FileSize(Path(path).stat().st_size)


class FileSize:
    """What blocks ask of a reader."""

    of_rows = False

    def __init__(self, size: int) -> None:
        self.bytes_total = size
