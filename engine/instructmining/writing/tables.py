"""Kinds of files that rows are written to; those that are made only when all rows are known."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, TypeAlias

import zstandard

from instructmining.writing.delimited import write_delimited
from instructmining.writing.parquet import Kind, write_parquet

LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
DELIMITED = tuple(f"{suffix}{packing}" for suffix in _DELIMITERS for packing in ("", ".gz", ".zst"))
TABLES = (".parquet", *DELIMITED)
SUFFIXES = (*LINES, *TABLES)
ZSTD_LEVEL = 3

About: TypeAlias = Callable[[], Mapping[str, bytes]]  # what a file says about itself, once all rows are written


def is_table(name: str) -> bool:
    """Return whether a file of this name is made when all rows are known."""
    return name.endswith(TABLES)


def packed(stream: BinaryIO, name: str) -> BinaryIO:
    """Wrap a stream to compress what is written as the file's name says; the caller closes the wrapper first."""
    if name.endswith(".gz"):
        return gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0)  # type: ignore[return-value]
    if name.endswith(".zst"):
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(stream, closefd=False)
    return stream


def write_table(
    lines: BinaryIO, target: BinaryIO, name: str, known: Mapping[str, Kind], about: About | None = None
) -> None:
    """Write rows as the table that the file's name says; reads them twice.

    Args:
        lines: one JSON object per line, at the beginning; seekable.
        target: the file to write.
        name: final name of the file.
        known: types known beforehand, by field name; these fields come last.
        about: what a Parquet file says about itself; delimited text has no place for it.

    Raises:
        OutputError: the rows do not go into such a file.
        OSError: the disk refuses it.
    """
    if name.endswith(".parquet"):
        write_parquet(lines, target, known, about() if about is not None else {})
        return
    delimiter = next(mark for suffix, mark in _DELIMITERS.items() if suffix in Path(name).suffixes[-2:])
    stream = packed(target, name)
    write_delimited(lines, stream, known, delimiter)
    if stream is not target:
        stream.close()


class TableLines:
    """A stream of JSON lines that writes them as a table on close."""

    def __init__(self, target: BinaryIO, name: str, known: Mapping[str, Kind], about: About | None = None) -> None:
        """Create the stream; lines wait in a temporary file next to the target.

        Args:
            target: an open file, which stays open.
            name: final name of the file.
            known: see :func:`write_table`.
            about: see :func:`write_table`.
        """
        self._target = target
        self._name = name
        self._known = known
        self._about = about
        self._waiting = tempfile.TemporaryFile(dir=Path(target.name).parent)  # noqa: SIM115 - closed with this

    def write(self, lines: bytes) -> int:
        """Add lines, or parts of them."""
        return self._waiting.write(lines)

    def close(self) -> None:
        """Write the file.

        Raises:
            OutputError: the rows do not go into such a file.
            OSError: the disk refuses it.
        """
        with self._waiting as lines:
            lines.seek(0)
            write_table(lines, self._target, self._name, self._known, self._about)
