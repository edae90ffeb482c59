"""Writes scored rows: splices columns into each row's own bytes; OUT appears complete or not at all."""

from __future__ import annotations

import base64
import gzip
import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Self

import orjson
import zstandard

from instructmining.errors import OutputError, ResumeError
from instructmining.reading.compression import is_pipe
from instructmining.reading.values import dumps
from instructmining.types import SCORE_COLUMNS, Example, Reject, ScoredRow, Turn
from instructmining.writing import partial_folder
from instructmining.writing.atomic import check_apart, check_place, claimed, sync_folder, write_whole
from instructmining.writing.journal import STATE, WRITTEN, Journal, close_quietly, opened_at
from instructmining.writing.parquet import Kind
from instructmining.writing.provenance import of_run
from instructmining.writing.spool import EMBEDDINGS, WINDOWS
from instructmining.writing.standard_streams import standard_error, standard_output
from instructmining.writing.tables import SUFFIXES, TABLES, ZSTD_LEVEL, About, TableLines, is_table, packed, write_table

_FINISHED = "finished"
_ROWS, _JOINED, _REJECTS, _RUN = "rows", "rows.joined", "rejects", "run"
_COPIED = 1 << 20  # bytes copied at a time
_WHOLE = (".zst", *TABLES)  # suffixes of which OUT is made at the end, from the rows so far


def splice(row: ScoredRow, prefix: str = "") -> bytes:
    """Return the row as it was read, with the added columns after its own fields; one JSON line without newline."""
    columns = dumps(added_fields(row, prefix))
    source = row.example.row
    if source is None:
        return orjson.dumps(_own_fields(row.example))[:-1] + b"," + columns[1:]
    return source.raw.rstrip()[:-1] + b"," + columns[1:]


def _own_fields(example: Example) -> dict[str, object]:
    """Build the row of an example that came from no file."""

    def messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
        return [{"role": turn.role, "content": turn.text} for turn in turns]

    if example.rejected is None:
        return {"messages": messages(example.turns)}
    return {"chosen": messages(example.turns), "rejected": messages(example.rejected)}


def added_fields(row: ScoredRow, prefix: str = "") -> dict[str, object]:
    """Return what scoring adds to a row: its columns, the roles that saw a truncated text, and why a column is null."""
    added: dict[str, object] = {f"{prefix}{name}": value for name, value in row.columns.items()}
    added[f"{prefix}truncated"] = list(row.truncated)
    added[f"{prefix}score_notes"] = {f"{prefix}{name}": reason for name, reason in row.notes.items()}
    return added


def added_names(columns: tuple[str, ...], prefix: str = "") -> list[str]:
    """Return all names that :func:`splice` adds."""
    return [f"{prefix}{name}" for name in (*columns, "truncated", "score_notes")]


def reject_line(reject: Reject) -> bytes:
    """Return a reject as one JSON line: its place, the reason, and the row as text, or base64 where it is not UTF-8."""
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


def known_kinds(prefix: str = "") -> dict[str, Kind]:
    """Return the types of the added columns, fixed so that they do not depend on the rows."""
    kinds: dict[str, Kind] = {f"{prefix}{name}": "number" for name in SCORE_COLUMNS}
    kinds |= {f"{prefix}{name}": "whole" for name in SCORE_COLUMNS if name.endswith("_length")}
    return kinds | {f"{prefix}truncated": "texts", f"{prefix}score_notes": "json"}


def compressed(stream: BinaryIO, name: str, *, prefix: str = "", about: About | None = None) -> BinaryIO:
    """Wrap the stream to compress JSON lines as the file's name says, or to convert them to a table.

    The caller closes the wrapper when all is well, and then the stream. For a table the stream must be a named file.

    Args:
        stream: a file, open for writing.
        name: final name of the file.
        prefix: prefix of the added columns.
        about: what a Parquet file says about itself.
    """
    if is_table(name):
        return TableLines(stream, name, known_kinds(prefix), about)  # type: ignore[return-value]
    return packed(stream, name)


class RunWriter:
    """OUT, its rejects and its run file, written in a folder next to OUT and moved into place at the end.

    An interrupted run leaves the folder, ``OUT.partial``, in the state of its last commit or later; a run with
    ``resume`` continues there.
    """

    def __init__(
        self,
        out: str,
        *,
        prefix: str = "",
        overwrite: bool = False,
        resume: bool = False,
        inputs: Sequence[str] = (),
        reads: Sequence[str | Path | None] = (),
        spools: bool = False,
        restarts: bool = False,
    ) -> None:
        """Check that OUT can be written, and claim the folder for this run.

        Args:
            out: a path ending in one of :data:`SUFFIXES`, or "-" for standard output; there, rejects
                go to standard error, there is no run file, and no run can be resumed.
            prefix: prefix of each column's name.
            overwrite: replace OUT, and what another run left.
            resume: resume an interrupted run, if there is one.
            inputs: files of rows; neither OUT nor a file next to it may be one of them.
            reads: other files and folders that are read, such as a bundle; the same holds.
            spools: OUT is the file of a spool, which the caller writes into the run's folder, with OUT.embeddings.f32
                next to it; it has no rows and no rejects of its own.
            restarts: what an interrupted run left is removed, since none can be resumed.

        Raises:
            OutputError: the suffix is not known, OUT exists, OUT or a file next to it is an input, another run writes
                there or was interrupted there, or the folder was not made by a run or cannot be made.
            ResumeError: what the other run left is damaged.
        """
        self._restarts = restarts
        self.spools = spools  # OUT is the file of a spool
        self.finished = False  # OUT is complete; a run that finished before needs no more work
        self._taken_over = False  # another run's files are there, and stay where this run is refused
        self.journal: Journal | None = None  # the run's journal; set once it has begun, or had begun before
        self._prefix = prefix
        self._resumable = not any(map(is_pipe, inputs))
        self._final = None if out == "-" else Path(out)
        self._open: list[BinaryIO] = []
        if self._final is None:
            if resume:
                raise OutputError("standard output cannot be resumed; give -o a file")
            self._rows, self._rejects = standard_output(), standard_error()
            return
        if resume and not self._resumable:
            raise OutputError("standard input and pipes cannot be read again, so the run cannot be resumed; give files")
        if not spools and not out.endswith(SUFFIXES):
            raise OutputError(f"{out}: wanted a name ending in {', '.join(SUFFIXES)}, or - for standard output")
        self._folder = Path(f"{out}.partial")
        beside = EMBEDDINGS if spools else "rejects.jsonl"
        sidecars = [Path(f"{out}.{beside}"), Path(f"{out}.run.json")]
        check_apart([out, *sidecars, self._folder], [*inputs, *reads])
        with ExitStack() as stack:
            stack.enter_context(claimed(self._final))
            check_place(self._final, overwrite=overwrite or resume)
            for sidecar in sidecars:
                check_place(sidecar, overwrite=True)
            self._take_over(self._final, overwrite=overwrite, resume=resume)
            self._claim = stack.pop_all()

    def _take_over(self, out: Path, *, overwrite: bool, resume: bool) -> None:
        exists = out.exists()
        if exists and resume and not partial_folder.is_of_a_run(self._folder):
            self.finished = True
            return
        partial_folder.take(self._folder)
        if resume:
            self.journal = Journal.resume(self._folder)
            if self.journal is not None:
                self._taken_over = True
                if _FINISHED in self.journal.marks:
                    self._put_in_place()
                return
        elif (self._folder / STATE).exists() and not overwrite and not self._restarts:
            raise OutputError(
                f"{self._folder}: a run was interrupted there; give --resume to resume it, --overwrite to start over"
            )
        try:
            if exists and resume:  # interrupted while it removed the folder
                partial_folder.remove(self._folder)
                self.finished = True
            else:
                partial_folder.clear(self._folder)
        except OSError as error:
            raise OutputError(f"{self._folder}: {error.strerror}") from error

    @property
    def identity(self) -> Mapping[str, Any] | None:
        """The identity of the run that is resumed or had finished before; None where there is none.

        Raises:
            ResumeError: a run finished before, and no run file describes it.
        """
        if not self.finished or self._final is None:
            return self.journal.identity if self.journal is not None else None
        path = Path(f"{self._final}.run.json")
        try:
            identity: Mapping[str, Any] = orjson.loads(path.read_bytes())["identity"]
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise ResumeError(
                f"{self._final}: exists, but {path} does not say which run wrote it; give --overwrite to start over"
            ) from error
        return identity

    def begin(self, identity: Mapping[str, object] = MappingProxyType({})) -> None:
        """Open the files, at their beginning or where the resumed run left them.

        Args:
            identity: everything that the results depend on, as JSON; kept for a later resume.

        Raises:
            ResumeError: the files are shorter than the journal says.
            OutputError: the disk refuses them.
        """
        if self._final is None:
            return
        if self.journal is None:
            self.journal = Journal.begin(self._folder, identity)
        mark = self.journal.marks.get(WRITTEN, {})
        self._rows = self._opened(_ROWS, mark.get("rows_bytes", 0))
        self._rejects = self._opened(_REJECTS, mark.get("rejects_bytes", 0))

    def _opened(self, name: str, size: int) -> BinaryIO:
        file = opened_at(self._folder / name, size)
        self._open.append(file)
        return file

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files; keeps the folder where a run can be resumed from it."""
        if self._final is None:
            self._rows.flush()
            return
        with self._claim:
            if self.finished:
                return
            kept = self.resumable or self._taken_over
            self._close()
            if not kept:
                with suppress(OSError):
                    partial_folder.remove(self._folder)

    @property
    def resumable(self) -> bool:
        """Whether there is anything that a later run can resume."""
        return self._resumable and not self.finished and self.journal is not None and not self.journal.empty

    def write(self, rows: Iterable[ScoredRow], rejects: Iterable[Reject] = ()) -> None:
        """Write the rows of a window, and its rejects.

        In a compressed OUT each window is a frame of its own, so a run can resume between windows.

        Raises:
            OutputError: the disk refuses them.
        """
        lines = b"".join([splice(row, self._prefix) + b"\n" for row in rows])
        if lines:
            self._put(self._rows, _packed(lines, self._final.name) if self._final is not None else lines)
        for reject in rejects:
            self._put(self._rejects, reject_line(reject))

    def write_lines(self, lines: bytes, *, is_packed: bool = False) -> None:
        """Write rows that were written before, as JSON lines.

        Args:
            lines: whole lines, or whole members or frames of them.
            is_packed: whether they are compressed as OUT's suffix says.

        Raises:
            OutputError: the disk refuses them.
        """
        is_plain = self._final is not None and not is_packed and lines
        self._put(self._rows, _packed(lines, self._final.name) if self._final is not None and is_plain else lines)

    def write_rejects(self, lines: bytes) -> None:
        """Write rejects that were written before, as JSON lines.

        Raises:
            OutputError: the disk refuses them.
        """
        self._put(self._rejects, lines)

    def commit(self, mark: dict[str, object]) -> None:
        """Record that all rows so far are done; see :meth:`Journal.commit`.

        Args:
            mark: kept with the sizes of the files, as JSON.

        Raises:
            OutputError: the disk refuses it.
        """
        if self.journal is None:
            return
        sizes = {"rows_bytes": self._rows.tell(), "rejects_bytes": self._rejects.tell()}
        self.journal.commit(WRITTEN, sizes | mark, [self._rows, self._rejects])

    def finish(self, run: dict[str, object], *, with_digests: bool = False) -> None:
        """Move everything into place, OUT last.

        Args:
            run: content of the run file.
            with_digests: the run file gets ``files``: what the name of each other file has after OUT, its bytes and
                SHA-256.

        Raises:
            OutputError: the disk refuses it.
        """
        if self._final is None:
            self._put(self._rejects, b"", flush=True)
            self._put(self._rows, b"", flush=True)
            return
        assert self.journal is not None
        try:
            name = self._final.name
            if name.endswith(".gz") and not self._rows.tell():
                self._rows.write(_packed(b"", name))  # an empty gzip file is not zero bytes
            self._rows.flush()
            if is_table(name):
                self._make_table(name, run)
            elif name.endswith(".zst"):
                self._join_frames()
        except OSError as error:
            raise OutputError(f"{self._final}: {error.strerror}") from error
        if with_digests:
            run = run | {"files": self._digests()}
        write_whole(self._folder / _RUN, orjson.dumps(run, option=orjson.OPT_INDENT_2) + b"\n")
        self.journal.commit(_FINISHED, {}, self._open)
        self._put_in_place()

    def _digests(self) -> list[tuple[str, int, str]]:
        for file in self._open:
            file.flush()
        out, found = str(self._final), []
        for name, target in self._targets().items():
            if name != _RUN:
                with (self._folder / name).open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    found.append((target.removeprefix(out), file.tell(), digest))
        return found

    def _targets(self) -> dict[str, str]:
        """Return where each file of the folder belongs, OUT last."""
        out = str(self._final)
        if self.spools:
            return {EMBEDDINGS: f"{out}.{EMBEDDINGS}", _RUN: f"{out}.run.json", WINDOWS: out}
        rows = _JOINED if out.endswith(_WHOLE) else _ROWS
        return {_REJECTS: f"{out}.rejects.jsonl", _RUN: f"{out}.run.json", rows: out}

    def _join_frames(self) -> None:
        """Join all frames to one, since many readers stop after the first."""
        joined = (self._folder / _JOINED).open("wb")
        self._open.append(joined)
        with (
            (self._folder / _ROWS).open("rb") as parts,
            zstandard.ZstdDecompressor().stream_reader(parts, read_across_frames=True) as plain,
            zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(joined, closefd=False) as packed,
        ):
            shutil.copyfileobj(plain, packed, _COPIED)

    def _make_table(self, name: str, run: Mapping[str, object]) -> None:
        target = (self._folder / _JOINED).open("wb")
        self._open.append(target)
        with (self._folder / _ROWS).open("rb") as lines:
            try:
                write_table(lines, target, name, known_kinds(self._prefix), lambda: of_run(run))
            except OutputError as error:
                self._taken_over = True  # keeps the folder
                raise OutputError(f"{error}; the rows are kept as JSON lines, {self._folder / _ROWS}") from error

    def _put_in_place(self) -> None:
        assert self._final is not None
        self._close()
        try:
            for name, target in self._targets().items():
                if (self._folder / name).exists():  # a run interrupted here has moved some of them
                    (self._folder / name).replace(target)
            sync_folder(self._final.parent)
            partial_folder.remove(self._folder)
        except OSError as error:
            raise OutputError(f"{self._final}: {error.strerror}") from error
        self.finished = True

    def _put(self, stream: BinaryIO, line: bytes, *, flush: bool = False) -> None:
        try:
            stream.write(line)
            if flush:
                stream.flush()
        except BrokenPipeError:  # the reader of standard output went away, which is no error
            raise
        except OSError as error:
            raise OutputError(f"{self._final or 'standard output'}: {error.strerror}") from error

    def _close(self) -> None:
        for file in self._open:
            close_quietly(file)
        if self.journal is not None:
            self.journal.close()


def _packed(lines: bytes, name: str) -> bytes:
    """Compress lines as a gzip member or a zstd frame, where the file's name says so and it is no table."""
    if is_table(name):
        return lines
    if name.endswith(".gz"):
        return gzip.compress(lines, compresslevel=6, mtime=0)
    if name.endswith(".zst"):
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(lines)
    return lines
