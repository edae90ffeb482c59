"""Damaged files of every kind: each is read to its end or refused, and a reading that goes on finds the same rows.

``FUZZ_EXAMPLES`` says how many damaged files of each kind are tried; ``make fuzz`` tries many.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.feather as pf
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instructmining.errors import InputError
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.examples import read_examples
from instructmining.reading.options import ReadOptions
from instructmining.types import Example, InputWindow, Position

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20"))
MAX_ROW_BYTES = 1 << 16
WINDOW = 3
MOST_SAID = 2000
ROWS = [
    {
        "instruction": f"Name {number} colours; one, or two.",
        "output": f"Grün,\n«{number}» \U0001f600 " * (number % 4 + 1),
    }
    for number in range(24)
]
LINES = "\n".join(json.dumps(row, ensure_ascii=number % 2 == 0) for number, row in enumerate(ROWS)).encode()
# What the readers' own grammars are made of: a byte at random seldom is.
PIECES = [
    *(b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xc3", b"\xef\xbb\xbf"),
    *(b"\xff\xfe", b"\\ud800", b"\\u0000", b"NaN", b"1e999", b"-", b"null", b'{"data": [', b"]}", b'""', b"\t", b";"),
    *(b"PAR1", b"ARROW1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"[" * 3000, b'"' * 9, b" " * 5000, b"9" * 5000),
    b'{"instruction": "a", "output": "b"}\n',
]


def parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=7)


def arrow_file(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table, max_chunksize=7)


def arrow_stream(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(path, table.schema) as file:
        file.write_table(table, max_chunksize=7)


def feather(path: Path) -> None:
    pf.write_feather(pa.Table.from_pylist(ROWS), str(path), chunksize=7)


def delimited(delimiter: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        options = pc.WriteOptions(delimiter=delimiter)
        pc.write_csv(pa.Table.from_pylist(ROWS), path, options)

    return write


def text(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


# The name of a file, what is damaged, and what is done to it after that.
KINDS: dict[str, tuple[Callable[[Path], None], Callable[[bytes], bytes]]] = {
    "lines.jsonl": (text(LINES), bytes),
    "array.json": (text(json.dumps(ROWS, indent=1).encode()), bytes),
    "document.json": (text(json.dumps({"version": 1, "data": ROWS, "more": {"a": [1]}}).encode()), bytes),
    "rows.csv": (delimited(","), bytes),
    "rows.tsv": (delimited("\t"), bytes),
    "rows.parquet": (parquet, bytes),
    "file.arrow": (arrow_file, bytes),
    "stream.arrow": (arrow_stream, bytes),
    "rows.feather": (feather, bytes),
    "inside.jsonl.gz": (text(LINES), gzip.compress),
    "inside.json.zst": (text(json.dumps(ROWS).encode()), zstandard.ZstdCompressor().compress),
    "outside.jsonl.gz": (text(gzip.compress(LINES)), bytes),
    "outside.csv.zst": (text(zstandard.ZstdCompressor().compress(b"instruction,output\n" + b"a,b\n" * 60)), bytes),
}


@dataclass(frozen=True)
class Damage:
    """A change of bytes at a share of the file: some of them taken out, others put in."""

    place: float
    taken: int
    put: bytes

    def done_to(self, content: bytes) -> bytes:
        at = int(self.place * len(content))
        return content[:at] + self.put + content[at + self.taken :]


DAMAGES = st.lists(
    st.builds(
        Damage,
        place=st.floats(0, 1, exclude_max=True),
        taken=st.one_of(st.integers(0, 8), st.sampled_from([0, 64, 1 << 20])),
        put=st.one_of(st.sampled_from(PIECES), st.binary(max_size=8), st.just(b"")),
    ),
    min_size=1,
    max_size=6,
)


def opened(path: Path) -> ExampleReader:
    return read_examples(path, options=ReadOptions(max_row_bytes=MAX_ROW_BYTES), on_reject=lambda _: None)


def windows(reader: ExampleReader) -> tuple[list[InputWindow], str]:
    """The windows of a file, and why it was not read to its end."""
    found: list[InputWindow] = []
    try:
        found.extend(reader.windows(WINDOW))
    except InputError as error:
        return found, str(error)
    return found, ""


def seen(windows: list[InputWindow]) -> list[tuple[int, int, object]]:
    return [
        (one.row.line, one.row.offset, one.turns) if isinstance(one, Example) else (one.line, one.offset, one.reason)
        for window in windows
        for one in window.items
        if not isinstance(one, Example) or one.row is not None
    ]


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(damages=DAMAGES)
def test_a_damaged_file_is_read_or_refused_and_gone_on_with_at_any_window(
    tmp_path_factory: pytest.TempPathFactory, name: str, damages: list[Damage]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzing"
    folder.mkdir(exist_ok=True)
    path = folder / name
    write, pack = KINDS[name]
    write(path)
    content = path.read_bytes()
    for damage in damages:
        content = damage.done_to(content)
    path.write_bytes(pack(content))
    try:
        reader = opened(path)
        found, refused = windows(reader)
    except InputError:
        return
    places = [(line, offset) for line, offset, _ in seen(found)]
    assert all(before < behind for before, behind in pairwise(places))
    assert len(refused) < MOST_SAID
    if refused:
        return
    assert reader.rows == len(places)
    positions: list[Position | None] = [window.end for window in found]
    for number, position in enumerate(positions, start=1):
        if position is None:
            continue
        rest = opened(path)
        rest.begin_after(position)
        again, refused = windows(rest)
        assert (seen(again), refused) == (seen(found[number:]), "")
        assert rest.rows == reader.rows
