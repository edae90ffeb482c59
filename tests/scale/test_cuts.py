"""Cuts: where an input is cut into shards, from what its files say of themselves."""

from __future__ import annotations

import gzip
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instructmining.errors import InputError
from instructmining.reading.blocks import Cut
from instructmining.reading.options import ReadOptions
from instructmining_scale.cuts import even_cuts

BLOCK = ReadOptions(block_bytes=1000)
ROW = orjson.dumps({"instruction": "x", "output": "y"}) + b"\n"


def _file(path: Path, size: int) -> str:
    path.write_bytes((ROW * (size // len(ROW) + 1))[:size])
    return str(path)


def test_shards_of_one_file_have_about_equal_bytes_and_begin_at_blocks(tmp_path: Path) -> None:
    file = _file(tmp_path / "a.jsonl", 10_500)
    assert even_cuts([file], 4, BLOCK) == [Cut(0, 3000), Cut(0, 5000), Cut(0, 8000)]


def test_cuts_depend_on_the_files_and_the_number_alone(tmp_path: Path) -> None:
    files = [_file(tmp_path / f"{number}.jsonl", size) for number, size in enumerate((2500, 100, 100, 7000, 0, 900))]
    assert even_cuts(files, 5, BLOCK) == even_cuts(files, 5, BLOCK)
    assert even_cuts(files, 1, BLOCK) == []


def test_a_small_file_is_not_cut_and_shares_a_shard(tmp_path: Path) -> None:
    files = [_file(tmp_path / f"{number}.jsonl", 400) for number in range(10)]
    cuts = even_cuts(files, 2, BLOCK)
    assert cuts == [Cut(5, 0)]


def test_a_compressed_file_is_read_for_its_size_only_where_it_is_larger_than_a_shard(tmp_path: Path) -> None:
    large = tmp_path / "large.jsonl.gz"
    rows = b"".join(
        orjson.dumps({"instruction": str(hash(str(number))), "output": "y"}) + b"\n" for number in range(500)
    )
    large.write_bytes(gzip.compress(rows))
    small = _file(tmp_path / "small.jsonl", 1500)
    cuts = even_cuts([str(large), small], 4, BLOCK)
    assert [cut.file for cut in cuts] == [0, 0, 0]
    assert all(0 < cut.at < len(rows) and cut.at % 1000 == 0 for cut in cuts)
    many = [str(tmp_path / f"{number}.jsonl.gz") for number in range(8)]
    for path in many:
        Path(path).write_bytes(gzip.compress(rows))
    assert all(cut.at == 0 for cut in even_cuts(many, 4, BLOCK))


def test_a_damaged_compressed_file_is_cut_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    packed = gzip.compress(b"".join(orjson.dumps({"n": hash(str(number))}) + b"\n" for number in range(2000)))
    path.write_bytes(packed[: len(packed) // 2])
    cuts = even_cuts([str(path)], 3, BLOCK)
    assert cuts == sorted(cuts)


def test_a_table_is_cut_by_rows_that_its_footer_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"instruction": ["x"] * 100, "output": ["y"] * 100}), path)
    assert even_cuts([str(path)], 4, ReadOptions(block_bytes=10 * 1024)) == [Cut(0, 20), Cut(0, 50), Cut(0, 80)]


def test_more_shards_than_blocks_leave_some_empty(tmp_path: Path) -> None:
    cuts = even_cuts([_file(tmp_path / "a.jsonl", 2500)], 6, BLOCK)
    assert len(cuts) == 5
    assert cuts == sorted(cuts)
    assert len(set(cuts)) < 5


def test_an_empty_input_has_empty_shards(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.jsonl", 0)
    assert even_cuts([path], 3, BLOCK) == [Cut(1, 0), Cut(1, 0)]


def test_a_pipe_cannot_be_cut() -> None:
    with pytest.raises(InputError, match="-: can be read only once"):
        even_cuts(["-"], 2, BLOCK)
