"""What a run will need of the machine beside its processors: room on the disk, open files."""

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

# A row's own bytes beside what was read: eleven columns and their names.
_COLUMNS_BYTES = 350
_SPOOLED_BYTES = 150  # a row that waits for the corpus pass, beside its own bytes and its embedding
_SAMPLE_ROWS = 200
_UNPACKED = 4  # times the size of a compressed file of text
_PACKED = 3  # times smaller a compressed OUT is; less than usual, so that there is room
_OPEN_FILES = 64
_USUAL = ReadOptions()


def room_needed(
    inputs: Sequence[str], out: str, *, embedding_size: int | None, options: ReadOptions = _USUAL
) -> int | None:
    """Bytes that a run will write beside OUT before it is done, OUT included: an estimate from its first rows.

    Args:
        inputs: paths; of standard input nothing is known.
        out: OUT, compressed or not by its suffix.
        embedding_size: numbers of a row's embedding where rows wait on disk for a corpus column.
        options: how rows are read.

    Returns:
        None where it cannot be known.
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
        return None  # the run says what is wrong
    rows = round(plain / row_size)
    written = plain + rows * _COLUMNS_BYTES
    if out.endswith(PARQUET):
        written += written // _PACKED  # it is made of the whole
    elif out.endswith(PACKED):
        written //= _PACKED
        written *= 2 if out.endswith(".zst") else 1  # its parts are joined at the end
    spooled = plain + rows * (_SPOOLED_BYTES + 4 * embedding_size) if embedding_size is not None else 0
    return written + spooled


def _plain_size(reader: RowReader, row_size: float) -> float:
    """Bytes of an input's rows as JSON lines."""
    if reader.rows_total is not None:
        return reader.rows_total * row_size
    return (reader.bytes_total or 0) * (_UNPACKED if reader.path.endswith(PACKED) else 1)


def room_left(out: str) -> int:
    """Bytes free where OUT will be."""
    folder = Path(out).absolute().parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_open_files() -> None:
    """Prove that the process may open enough files.

    Raises:
        OutputError: it may not.
    """
    if sys.platform == "win32":
        return
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < _OPEN_FILES:
        raise OutputError(f"this process may open {most} files and needs up to {_OPEN_FILES}; raise it: ulimit -n 256")
