"""Scored rows to files: added columns are spliced into the row's own bytes, and OUT appears complete or not at all."""

from __future__ import annotations

import base64
import gzip
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import orjson
import zstandard

from instructmining.errors import OutputError
from instructmining.records import Example, Reject, ScoredRow

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


def splice(row: ScoredRow, prefix: str = "") -> bytes:
    """The row as it was read, with the columns behind its own fields; one JSON line without its newline."""
    added: dict[str, object] = {f"{prefix}{name}": value for name, value in row.columns.items()}
    added[f"{prefix}truncated"] = list(row.truncated)
    added[f"{prefix}score_notes"] = {f"{prefix}{name}": reason for name, reason in row.notes.items()}
    columns = orjson.dumps(added)
    source = row.example.row
    if source is None:
        turns = [{"role": turn.role, "content": turn.text} for turn in row.example.turns]
        return orjson.dumps({"messages": turns})[:-1] + b"," + columns[1:]
    return source.raw.rstrip()[:-1] + b"," + columns[1:]


def added_names(columns: tuple[str, ...], prefix: str = "") -> list[str]:
    """All names that :func:`splice` adds."""
    return [f"{prefix}{name}" for name in (*columns, "truncated", "score_notes")]


def reject_line(reject: Reject) -> bytes:
    """A reject as one JSON line: where it was, why, and the row as text, or base64 where it is not UTF-8."""
    value: dict[str, object] = {
        "source": reject.source,
        "line": reject.line,
        "offset": reject.offset,
        "reason": reject.reason,
    }
    try:
        value["row"] = reject.raw.decode("utf-8")
    except UnicodeDecodeError:
        value["row_base64"] = base64.b64encode(reject.raw).decode("ascii")
    return orjson.dumps(value) + b"\n"


def compressed(stream: BinaryIO, name: str) -> BinaryIO:
    """The stream, compressing as the file's name says."""
    if name.endswith(".gz"):
        return gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0)  # type: ignore[return-value]
    if name.endswith(".zst"):
        return zstandard.ZstdCompressor(level=3).stream_writer(stream, closefd=False)
    return stream


class RunWriter:
    """OUT, its rejects and its run file, written in a folder beside OUT and moved into place at the end."""

    def __init__(self, out: str, *, prefix: str = "", overwrite: bool = False, inputs: Sequence[str] = ()) -> None:
        """Check that OUT can be written and open the folder ``OUT.partial``.

        Args:
            out: a path ending in .jsonl, .jsonl.gz or .jsonl.zst, or "-" for standard output; there, rejects go to
                standard error and there is no run file.
            prefix: put before each column's name.
            overwrite: replace OUT.
            inputs: the files that are read; OUT must not be one of them.

        Raises:
            OutputError: the suffix is not known, OUT exists or is an input, or the folder cannot be made.
        """
        self._prefix = prefix
        self._final = None if out == "-" else Path(out)
        if self._final is None:
            self._rows, self._rejects = sys.stdout.buffer, sys.stderr.buffer
            return
        if not out.endswith(SUFFIXES):
            raise OutputError(f"{out}: wanted a name ending in {', '.join(SUFFIXES)}, or - for standard output")
        if any(Path(name).exists() and self._final.exists() and self._final.samefile(name) for name in inputs):
            raise OutputError(f"{out}: is one of the inputs; name another file")
        if self._final.exists() and not overwrite:
            raise OutputError(f"{out}: exists; give --overwrite to replace it")
        self._folder = Path(f"{out}.partial")
        try:
            if overwrite and self._folder.exists():
                shutil.rmtree(self._folder)
            self._folder.mkdir(parents=True)
            self._file = (self._folder / "rows").open("wb")
            self._rows = compressed(self._file, out)
            self._rejects = (self._folder / "rejects").open("wb")
        except FileExistsError as error:
            raise OutputError(
                f"{self._folder}: another run writes there, or one was cut; if none runs, give --overwrite"
            ) from error
        except OSError as error:
            raise OutputError(f"{out}: {error.strerror}") from error

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folder if the run did not finish."""
        if self._final is None:
            self._rows.flush()
        elif self._folder.exists():
            self._close()
            shutil.rmtree(self._folder)

    def write(self, row: ScoredRow) -> None:
        """Add a scored row.

        Raises:
            OutputError: the disk does not take it.
        """
        self._put(self._rows, splice(row, self._prefix) + b"\n")

    def reject(self, reject: Reject) -> None:
        """Add a row to the rejects.

        Raises:
            OutputError: the disk does not take it.
        """
        self._put(self._rejects, reject_line(reject))

    def reject_example(self, example: Example, reason: str) -> None:
        """Add a row that was read but cannot be scored to the rejects.

        Raises:
            OutputError: the disk does not take it.
        """
        row = example.row
        self.reject(Reject(row.source, row.line, row.offset, reason, row.raw) if row else Reject("", 0, 0, reason, b""))

    def finish(self, run: dict[str, object]) -> None:
        """Move everything into place, OUT last.

        Args:
            run: what the run file says.

        Raises:
            OutputError: the disk does not take it.
        """
        if self._final is None:
            return
        try:
            self._close()
            (self._folder / "run").write_bytes(orjson.dumps(run, option=orjson.OPT_INDENT_2) + b"\n")
            (self._folder / "rejects").replace(f"{self._final}.rejects.jsonl")
            (self._folder / "run").replace(f"{self._final}.run.json")
            (self._folder / "rows").replace(self._final)
            self._folder.rmdir()
        except OSError as error:
            raise OutputError(f"{self._final}: {error.strerror}") from error

    def _put(self, stream: BinaryIO, line: bytes) -> None:
        try:
            stream.write(line)
        except OSError as error:
            raise OutputError(f"{self._final or 'standard output'}: {error.strerror}") from error

    def _close(self) -> None:
        if self._rows is not self._file:
            self._rows.close()
        self._file.close()
        self._rejects.close()
