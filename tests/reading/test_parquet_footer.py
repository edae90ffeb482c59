from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.reading.parquet_footer import is_several

TURNS = [{"role": "user", "content": "PAR1PAR1"}, {"role": "assistant", "content": "b"}]
TABLE = pa.table({"messages": [TURNS] * 500, "n": range(500), "d": pa.array(["x", "y"] * 250).dictionary_encode()})
WAYS: dict[str, dict[str, object]] = {
    "plain": {},
    "in groups": {"row_group_size": 100},
    "with indexes": {"row_group_size": 100, "write_page_index": True},
    "without compression": {"compression": "none", "use_dictionary": False},
    "of the second version": {"data_page_version": "2.0", "compression": "zstd"},
}


def table(path: Path, **options: object) -> bytes:
    pq.write_table(TABLE, path, **options)
    return path.read_bytes()


@pytest.mark.parametrize("way", WAYS)
def test_one_file_is_one_and_two_are_several(tmp_path: Path, way: str) -> None:
    path = tmp_path / "rows.parquet"
    content = table(path, **WAYS[way])
    assert not is_several(str(path))
    path.write_bytes(content + content)
    assert is_several(str(path))


def test_a_table_without_rows_is_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(TABLE.slice(0, 0), path)
    assert not is_several(str(path))


@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), put=st.binary(max_size=12), taken=st.integers(0, 12))
def test_damage_is_left_to_whoever_reads_the_rows(
    tmp_path_factory: pytest.TempPathFactory, place: float, put: bytes, taken: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "rows.parquet"
    content = table(path)
    begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    at = begin + int(place * (len(content) - begin))
    path.write_bytes(content[:at] + put + content[at + taken :])
    is_several(str(path))


OTHERS = {
    "a number for the row groups": "4516",
    "numbers for row groups": "491516",
    "numbers for columns": "491c19151600",
}
OTHERS |= {"a number for a column": "491c191c35020000", "lists for places": "491c191c3c7915002915000000"}


@pytest.mark.parametrize("name", OTHERS)
def test_a_footer_of_other_types_is_left_to_whoever_reads_the_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.parquet"
    footer = bytes.fromhex(OTHERS[name]) + bytes(4)
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert not is_several(str(path))


@pytest.mark.parametrize("byte", [b"\x80", b"\x19", b"\x1c", b"\xff", b"\x1a", b"\xf9\xff\xff\xff\xff\x0f"])
def test_a_hostile_footer_is_soon_done_with(tmp_path: Path, byte: bytes) -> None:
    path = tmp_path / "rows.parquet"
    footer = b"\x16" + byte * ((1 << 20) // len(byte) - 1)
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    begun = time.process_time()
    assert not is_several(str(path))
    assert time.process_time() - begun < 3
