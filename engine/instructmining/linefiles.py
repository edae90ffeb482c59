"""Lines to a file that appears complete or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from instructmining.arguments import check_type
from instructmining.errors import OutputError
from instructmining.journal import write_whole
from instructmining.writers import SUFFIXES, compressed


def row_file(out: str | Path, *, overwrite: bool, sources: Sequence[Path | None] = ()) -> Path | None:
    """As :func:`check_out`, and None for "-", which is standard output."""
    return None if str(out) == "-" else check_out(out, overwrite=overwrite, sources=sources)


def check_out(out: str | Path, *, overwrite: bool, sources: Sequence[Path | None] = ()) -> Path:
    """The path of a file of rows that may be written.

    Args:
        out: its name says whether and how it is compressed.
        overwrite: whether it may be there.
        sources: files that are read, None for tables in memory; OUT must be none of them.

    Raises:
        OutputError: it is no path, the suffix is not known, OUT exists, or is read.
    """
    check_type("out", out, (str, Path), wanted="the path of a file to write", error=OutputError)
    target = Path(out)
    if not target.name.endswith(SUFFIXES):
        raise OutputError(f"{target}: wanted a name ending in {', '.join(SUFFIXES)}")
    if target.exists():
        if any(source is not None and source.exists() and target.samefile(source) for source in sources):
            raise OutputError(f"{target}: is the scored file itself; name another file")
        if not overwrite:
            raise OutputError(f"{target}: exists; give --overwrite to replace it")
    return target


@contextmanager
def line_file(target: Path | None, *, prefix: str = "", run: Callable[[], bytes] | None = None) -> Iterator[BinaryIO]:
    """A stream to a partial file that takes its name when the block ends well, and is removed when it does not.

    Args:
        target: compressed as its name says; None for standard output, which takes no run file.
        prefix: what ``score`` put before its columns' names.
        run: gives the content of the run file, ``target.run.json``, once all lines are written; it is put there first.

    Raises:
        OutputError: the disk does not take it.
    """
    if target is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = Path(f"{target}.partial")
    try:
        with partial.open("wb") as file:
            stream = compressed(file, target.name, prefix=prefix)
            yield stream
            if stream is not file:
                stream.close()
        if run is not None:
            write_whole(Path(f"{target}.run.json"), run())
        partial.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
