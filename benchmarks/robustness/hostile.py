"""Files made to fill memory or to take for ever: how much `score` takes to read or refuse each, without models.

    python benchmarks/robustness/hostile.py BUNDLE

prints a table in Markdown. Nothing is compared with another tool; times are of a machine as it is at that moment.
"""

from __future__ import annotations

import gzip
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

MB = 1 << 20
OPEN = b'{"instruction": "a", "output": "'
HEADER = b'instruction,output\na,"'
END = b'"}\n'
GOOD = OPEN + b'b"}\n'


def lines(*parts: tuple[bytes, int]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            repeat(file, parts)

    return write


def repeat(file: BinaryIO, parts: tuple[tuple[bytes, int], ...]) -> None:
    for part, times in parts:
        many = max(1, min(times, MB // len(part)))
        for _ in range(times // many):
            file.write(part * many)
        file.write(part * (times % many))


def zstd_bomb(path: Path) -> None:
    with path.open("wb") as file, zstandard.ZstdCompressor(level=19).stream_writer(file) as packed:
        packed.write(OPEN)
        for _ in range(768):
            packed.write(b"a" * MB)


def gzip_bomb(path: Path) -> None:
    with gzip.open(path, "wb") as packed:
        packed.write(OPEN)
        for _ in range(768):
            packed.write(b"a" * MB)


def text_in_each_row(path: Path) -> None:
    """A text of a megabyte in 1,000 rows, which Parquet keeps once."""
    texts = pa.array(["w " * 500_000] * 1000, pa.large_string())
    pq.write_table(pa.table({"instruction": ["a"] * 1000, "output": texts}), path, compression="zstd")


def large_cell(path: Path) -> None:
    pq.write_table(pa.table({"instruction": ["a", "b"], "output": ["word " * (50 * MB // 5), "good"]}), path)


def long_rows(count: int, megabytes: int, word: str) -> Callable[[Path], None]:
    """Rows of so many megabytes of words, few of which are in another row."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            for number in range(count):
                part = "".join(f"{word}{number}x{of} " for of in range(500)).encode()
                repeat(file, ((OPEN, 1), (part, megabytes * 1_000_000 // len(part)), (END, 1)))

    return write


def many_fields(path: Path) -> None:
    fields = ", ".join(f'"field{number}": "text"' for number in range(100_000))
    path.write_bytes(OPEN + b'b", ' + fields.encode() + b"}\n" + GOOD)


# What it is, the name of the file, and what writes it.
FILES: list[tuple[str, str, Callable[[Path], None]]] = [
    ("zstd, one line of 768 MiB inside", "bomb.jsonl.zst", zstd_bomb),
    ("gzip, one line of 768 MiB inside", "bomb.jsonl.gz", gzip_bomb),
    ("one line of 300 MB, then a good one", "line.jsonl", lines((b"a", 300_000_000), (b"\n", 1), (GOOD, 1))),
    ("250 rows of 8 MB of words", "rows.jsonl", long_rows(250, 8, "word")),
    ("16 rows of 31 MB of words", "rows.jsonl", long_rows(16, 31, "word")),
    ("10 rows of 31 MB of words and emoji", "rows.jsonl", long_rows(10, 31, "w\u00f6rd\U0001f600")),
    ("a row of 60 MB of words", "words.jsonl", lines((OPEN, 1), (b"word ", 12_000_000), (END, 1))),
    (
        "a row of 16 MB of letters without a space",
        "letters.jsonl",
        lines((OPEN, 1), (b"abcdefgh", 2_000_000), (END, 1)),
    ),
    (
        "an array of one row, 48 MB of escapes",
        "escapes.json",
        lines((b"[" + OPEN, 1), (b"\\u00e9", 8_000_000), (b'"}]', 1)),
    ),
    ("brackets nested 5,000,000 deep", "deep.jsonl", lines((b"[", 5_000_000), (b"\n", 1), (GOOD, 1))),
    ("a number of 5,000,000 digits", "digits.jsonl", lines((b'{"output": ', 1), (b"9", 5_000_000), (b"}\n" + GOOD, 1))),
    ("an array of 5,000,000 nulls", "nulls.json", lines((b"[" + GOOD.strip(), 1), (b",null", 5_000_000), (b"]", 1))),
    ("1,000,000 rows of half a bracket", "bad.jsonl", lines((GOOD, 1), (b"{\n", 1_000_000))),
    ("100,000,000 blank lines", "blank.jsonl", lines((GOOD, 1), (b"\n", 100_000_000))),
    ("a row of 100,000 fields", "fields.jsonl", many_fields),
    ("CSV, a quotation mark left open, 300 MB", "open.csv", lines((HEADER, 1), (b"text " * 200 + b"\n", 300_000))),
    ("Parquet, a cell of 50 MiB", "cell.parquet", large_cell),
    ("Parquet, one text of 1 MB in each of 1,000 rows", "rows.parquet", text_in_each_row),
    ("300 MB of zero bytes", "zeros.jsonl", lines((GOOD, 1), (b"\0", 300_000_000))),
]


def main() -> None:
    bundle = sys.argv[1]
    print("| file | bytes | rows scored, rejected | exit code | peak memory | time |\n|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base.jsonl"
        base.write_bytes(GOOD)
        for what, name, write in [("one good row", "base.jsonl", lambda path: path.write_bytes(GOOD) and None), *FILES]:
            path = Path(folder) / name
            apart(write, path)
            print(f"| {what} | {path.stat().st_size:,} | {measured(path, bundle)} |", flush=True)
            for file in Path(folder).iterdir():
                file.unlink()


def apart(write: Callable[[Path], None], path: Path) -> None:
    """Write a file in a process of its own: what this one holds would count as the peak of each that it starts."""
    writer = multiprocessing.get_context("fork").Process(target=write, args=(path,))
    writer.start()
    writer.join()


def measured(path: Path, bundle: str) -> str:
    out = path.with_name("out.jsonl")
    command = [sys.executable, "-m", "instructmining", "score", str(path), "-o", str(out), "--bundle", bundle]
    begin = time.monotonic()
    process = subprocess.Popen([*command, "--indicators", "output_length,mtld"], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    elapsed = time.monotonic() - begin
    counts = [count_lines(file) for file in (out, Path(f"{out}.rejects.jsonl"))]
    return f"{counts[0]:,}, {counts[1]:,} | {process.returncode} | {usage.ru_maxrss // 1024:,} MiB | {elapsed:.1f} s"


def count_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(MB), b""))


if __name__ == "__main__":
    main()
