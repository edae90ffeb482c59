"""What a run will need of the machine beside its processors: room on the disk, open files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from instructmining.errors import InputError, OutputError
from instructmining.readers import RowReader
from instructmining.records import SourceRow

# A row's own bytes beside what was read: eleven columns and their names.
_COLUMNS_BYTES = 350
_SPOOLED_BYTES = 150  # a row that waits for the corpus pass, beside its own bytes and its embedding
_SAMPLE_ROWS = 200
_UNPACKED = 4  # times the size of a compressed file of text
_PACKED = 3  # times smaller a compressed OUT is; less than usual, so that there is room
_OPEN_FILES = 64


def room_needed(inputs: Sequence[str], out: str, *, embedding_size: int | None) -> int | None:
    """Bytes that a run will write beside OUT before it is done, OUT included: an estimate from its first rows.

    Args:
        inputs: paths; of standard input nothing is known.
        out: OUT, compressed or not by its suffix.
        embedding_size: numbers of a row's embedding where rows wait on disk for a corpus column.

    Returns:
        None where it cannot be known.
    """
    if "-" in inputs:
        return None
    plain = sum(Path(path).stat().st_size * (_UNPACKED if path.endswith((".gz", ".zst")) else 1) for path in inputs)
    try:
        sample = list(islice(RowReader(inputs[0]), _SAMPLE_ROWS))
    except InputError:
        return None  # the run says what is wrong
    sizes = [len(row.raw) + 1 for row in sample if isinstance(row, SourceRow)]
    if not sizes:
        return None
    rows = plain * len(sizes) // sum(sizes)
    written = plain + rows * _COLUMNS_BYTES
    if out.endswith((".gz", ".zst")):
        written //= _PACKED
        written *= 2 if out.endswith(".zst") else 1  # its parts are joined at the end
    spooled = plain + rows * (_SPOOLED_BYTES + 4 * embedding_size) if embedding_size is not None else 0
    return written + spooled


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
    import resource  # noqa: PLC0415 - not on every system

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < _OPEN_FILES:
        raise OutputError(f"this process may open {most} files and needs up to {_OPEN_FILES}; raise it: ulimit -n 256")
