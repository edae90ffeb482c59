"""What a run needs of the machine besides processors: disk space and open files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from instructmining.errors import InputError, OutputError
from instructmining.reading.compression import is_pipe
from instructmining.reading.file_kinds import PACKED, PARQUET
from instructmining.reading.options import ReadOptions
from instructmining.reading.rows import RowReader, first_of, open_rows
from instructmining.types import SourceRow

_COLUMNS_BYTES = 350  # added to each row: eleven columns and their names
_SPOOLED_BYTES = 150  # per row that waits for the corpus pass, besides the row and its embedding
_SAMPLE_ROWS = 200
_UNPACKED = 4  # size of text relative to its compressed file
_PACKED = 3  # size of rows relative to a compressed OUT; low, so that the estimate is safe
_OPEN_FILES = 64
_USUAL = ReadOptions()


def room_needed(
    inputs: Sequence[str], out: str, *, embedding_size: int | None, options: ReadOptions = _USUAL
) -> int | None:
    """Estimate from the first rows the bytes that a run will write, OUT included.

    Args:
        inputs: paths; the size of standard input is unknown.
        out: path of OUT; its suffix tells whether it is compressed.
        embedding_size: numbers in a row's embedding if rows wait on disk for a corpus column; else None.
        options: how rows are read.

    Returns:
        Bytes; None if they cannot be estimated.
    """
    if any(map(is_pipe, inputs)):
        return None
    try:
        readers = [open_rows(path, options) for path in inputs]
        sample = first_of(iter(readers[0]), _SAMPLE_ROWS, lambda row: row.raw)
        sizes = [len(row.raw) + 1 for row in sample if isinstance(row, SourceRow)]
        if not sizes:
            return None
        row_size = sum(sizes) / len(sizes)
        plain = round(sum(_plain_size(reader, row_size) for reader in readers))
    except InputError:
        return None  # the run reports it
    rows = round(plain / row_size)
    written = plain + rows * _COLUMNS_BYTES
    if out.endswith(PARQUET):
        written += written // _PACKED  # it is made from all rows at the end
    elif out.endswith(PACKED):
        written //= _PACKED
        written *= 2 if out.endswith(".zst") else 1  # its parts are joined at the end
    spooled = plain + rows * (_SPOOLED_BYTES + 4 * embedding_size) if embedding_size is not None else 0
    return written + spooled


def _plain_size(reader: RowReader, row_size: float) -> float:
    """Return the bytes of an input's rows as JSON lines."""
    if reader.rows_total is not None:
        return reader.rows_total * row_size
    return (reader.bytes_total or 0) * (_UNPACKED if reader.path.endswith(PACKED) else 1)


def room_left(out: str) -> int:
    """Return the free bytes on the disk of OUT."""
    folder = Path(out).absolute().parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_open_files() -> None:
    """Check that the process may open enough files.

    Raises:
        OutputError: the limit is too low.
    """
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < _OPEN_FILES:
        raise OutputError(
            f"this process may open {limit} files and needs up to {_OPEN_FILES}; raise the limit: ulimit -n 256"
        )
