"""Keeps windows that wait for the corpus pass on disk: rows, columns and embeddings do not stay in memory."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.errors import OutputError
from instructmining.reading.values import loads
from instructmining.types import Column, EarlierScores, Example, Position, Reject, ScoredWindow, Side, SourceRow, Turn
from instructmining.writing.journal import opened_at

_SIZES = struct.Struct("<QQ")  # sizes of a window's head and body


class Vectors:
    """Embeddings in a file, in order; a context manager."""

    def __init__(self, path: Path, rows: int = 0, size: int = 0) -> None:
        """Open the file.

        Args:
            path: path of the file.
            rows: embeddings to keep of an existing file.
            size: dimensions of each.

        Raises:
            OutputError: the file cannot be opened.
            ResumeError: the file is shorter than ``rows`` embeddings.
        """
        self.rows = rows
        self._size = size
        with ExitStack() as stack:
            self.file = stack.enter_context(opened_at(path, 4 * size * rows))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Return the vectors."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self._stack.close()

    def mark(self) -> dict[str, int]:
        """Return how much is in the file."""
        return {"rows": self.rows, "size": self._size}

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Append vectors, float32 (rows, size).

        Raises:
            OutputError: the disk refuses them.
        """
        try:
            self.file.write(np.ascontiguousarray(vectors, dtype=np.float32).tobytes())
        except OSError as error:
            raise OutputError(f"{self.file.name}: {error.strerror}") from error
        self.rows, self._size = self.rows + len(vectors), vectors.shape[1]

    def mapped(self) -> NDArray[np.float32]:
        """Return all vectors, float32 (rows, size), mapped from the file.

        Raises:
            OutputError: the disk refuses the last of them.
        """
        try:
            self.file.flush()
        except OSError as error:
            raise OutputError(f"{self.file.name}: {error.strerror}") from error
        if not self.rows:
            return np.empty((0, 0), dtype=np.float32)
        return np.memmap(self.file.name, dtype=np.float32, mode="r", shape=(self.rows, self._size))


WINDOWS, EMBEDDINGS = "windows", "embeddings.f32"  # names of a spool's files


class Spool:
    """Scored windows and their embeddings in a folder, read back in order."""

    def __init__(self, folder: Path | None = None, mark: dict[str, int] | None = None) -> None:
        """Open the files.

        Args:
            folder: folder of the files, kept on exit; by default a temporary folder, removed on exit.
            mark: what :meth:`mark` returned; anything after it is cut off.

        Raises:
            OutputError: the files cannot be opened.
            ResumeError: the files are shorter than the mark says.
        """
        mark = mark or {"windows": 0, "pairs": 0, "rows": 0, "size": 0, "bytes": 0}
        self.count = mark["windows"]
        self.pairs = mark["pairs"]  # preference pairs in all windows
        with ExitStack() as stack:
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="instructmining-")))
            self._windows = stack.enter_context(opened_at(folder / WINDOWS, mark["bytes"]))
            self._vectors = stack.enter_context(Vectors(folder / EMBEDDINGS, mark["rows"], mark["size"]))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Return the spool."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files; removes a temporary folder."""
        self._stack.close()

    @property
    def files(self) -> tuple[BinaryIO, BinaryIO]:
        """The files, open for writing."""
        return self._windows, self._vectors.file

    @property
    def rows(self) -> int:
        """Rows in all windows."""
        return self._vectors.rows

    def mark(self) -> dict[str, int]:
        """Return how much is in the files; this part no longer changes."""
        return {"windows": self.count, "pairs": self.pairs, "bytes": self._windows.tell(), **self._vectors.mark()}

    def append(self, window: ScoredWindow, embedding: NDArray[np.float32] | None) -> None:
        """Append a window and the float32 (rows, size) embeddings of its rows; None where it has no rows.

        Raises:
            OutputError: the disk refuses it.
        """
        head, body = _packed(window)
        try:
            self._windows.write(_SIZES.pack(len(head), len(body)) + head + body)
        except OSError as error:
            raise OutputError(f"{self._windows.name}: {error.strerror}") from error
        if len(window) and embedding is not None:
            self._vectors.append(embedding)
        self.count += 1
        self.pairs += len(window) - window.rows

    def embeddings(self) -> NDArray[np.float32]:
        """Return all embeddings, float32 (rows, size), mapped from the file.

        Raises:
            OutputError: the disk refuses the last of them.
        """
        try:
            self._windows.flush()
        except OSError as error:
            raise OutputError(f"{self._windows.name}: {error.strerror}") from error
        return self._vectors.mapped()

    def windows(self, first: int = 0) -> Iterator[tuple[int, ScoredWindow]]:
        """Yield each window with the place of its first row, from the window of this number on."""
        yield from windows_in(self._windows, self.count, first)


def windows_in(file: BinaryIO, count: int, first: int = 0) -> Iterator[tuple[int, ScoredWindow]]:
    """Yield the windows in a file that :class:`Spool` wrote, each with the place of its first row.

    Args:
        file: open for reading.
        count: windows in it.
        first: number of the first window to yield.
    """
    file.seek(0)
    begin = 0
    for number in range(count):
        head_size, body_size = _SIZES.unpack(file.read(_SIZES.size))
        head = orjson.loads(file.read(head_size))
        if number < first:
            file.seek(body_size, os.SEEK_CUR)
        else:
            yield begin, _unpacked(head, file.read(body_size))
        begin += len(head["truncated"])


def _packed(window: ScoredWindow) -> tuple[bytes, bytes]:
    """Pack a window as a JSON head, and a body of rows as they were read and columns as float64."""
    body: list[bytes] = []

    def example(scored: Example) -> list[object]:
        turns = [[turn.role, turn.text] for turn in scored.turns]
        scores = None if scored.scores is None else asdict(scored.scores)
        if scored.row is None:
            return [turns, scored.side, scores]
        raw = b"" if scored.side == "rejected" else scored.row.raw  # the chosen side, just before it, has the row
        body.append(raw)
        return [turns, scored.side, scores, scored.row.source, scored.row.line, scored.row.offset, len(raw)]

    def reject(rejected: Reject) -> list[object]:
        body.append(rejected.raw)
        if rejected.example is None:
            return [rejected.source, rejected.line, rejected.offset, rejected.reason, len(rejected.raw), None]
        texts = [turn.text.encode("utf-8", "surrogatepass") for turn in rejected.example.turns]  # it may be no Unicode
        body.extend(texts)
        turns = [[turn.role, len(text)] for turn, text in zip(rejected.example.turns, texts, strict=True)]
        return [rejected.source, rejected.line, rejected.offset, rejected.reason, len(rejected.raw), turns]

    head = {
        "examples": [example(item) for item in window.examples],
        "truncated": window.truncated,
        "rejects": [reject(item) for item in window.rejects],
        # The reader's formats and counts stand in the journal once, not in each window.
        "end": None if window.end is None else asdict(replace(window.end, formats={}, unread={})),
        "columns": [[name, list(column.notes.items()), column.whole] for name, column in window.columns.items()],
    }
    body += [column.values.astype(np.float64).tobytes() for column in window.columns.values()]
    return orjson.dumps(head), b"".join(body)


def _unpacked(head: dict[str, Any], body: bytes) -> ScoredWindow:
    offset = 0
    row: SourceRow | None = None

    def take(size: int) -> bytes:
        nonlocal offset
        offset += size
        return body[offset - size : offset]

    def example(turns: list[Any], side: Side | None, scores: dict[str, Any] | None, *place: object) -> Example:
        nonlocal row
        said = tuple(Turn(role, text) for role, text in turns)
        if side != "rejected":
            row = source_row(*place) if place else None  # type: ignore[arg-type]
        earlier = None
        if scores is not None:
            earlier = EarlierScores(scores["columns"], scores["notes"], tuple(scores["truncated"]))
        return Example(said, row, scores=earlier, side=side)

    def source_row(source: str, line: int, at: int, size: int) -> SourceRow:
        raw = take(size)
        return SourceRow(source, line, at, raw, loads(raw))

    def reject(source: str, line: int, at: int, reason: str, size: int, turns: list[Any] | None) -> Reject:
        raw = take(size)
        if turns is None:
            return Reject(source, line, at, reason, raw)
        row = SourceRow(source, line, at, raw, loads(raw)) if source else None
        said = tuple(Turn(role, take(length).decode("utf-8", "surrogatepass")) for role, length in turns)
        return Reject(source, line, at, reason, raw, Example(said, row))

    examples = [example(*values) for values in head["examples"]]
    rejects = [reject(*values) for values in head["rejects"]]
    columns = {
        name: Column(np.frombuffer(take(8 * len(examples)), dtype=np.float64), dict(notes), whole)
        for name, notes, whole in head["columns"]
    }
    end = None if head["end"] is None else Position(**head["end"])
    return ScoredWindow(examples, [tuple(roles) for roles in head["truncated"]], columns, rejects, end)
