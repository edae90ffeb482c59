"""Rows of shards that wait for the neighbours among all of them: their windows and embeddings on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import OutputError
from instructmining.types import Reject, ScoredWindow
from instructmining.writing.spool import EMBEDDINGS, windows_in

_CHUNK = 1 << 24


class WaitingPart:
    """The windows of one shard on disk, and the embeddings of their rows."""

    def __init__(self, path: Path, run: Mapping[str, Any], lines: int, of_file: str) -> None:
        """Take what the shard's run file says.

        Args:
            path: the file of windows.
            run: its run file.
            lines: of the file that the part begins in, before the part.
            of_file: that file, as rejects name it.
        """
        mark = run["spool"]
        self.key: str = next(digest for end, _, digest in run["files"] if end == f".{EMBEDDINGS}")  # of the embeddings
        self.path = path
        self.embeddings = Path(f"{path}.{EMBEDDINGS}")
        self.rows: int = mark["rows"]
        self.size: int = mark["size"]  # of an embedding
        self.pairs: int = mark["pairs"]  # preference pairs
        self._count: int = mark["windows"]
        self._lines, self._of_file = lines, of_file

    def mapped(self) -> NDArray[np.float32]:
        """Return the embeddings, float32 (rows, size), mapped from the file."""
        if not self.rows:
            return np.empty((0, 0), dtype=np.float32)
        return np.memmap(self.embeddings, dtype=np.float32, mode="r", shape=(self.rows, self.size))

    def windows(self) -> Iterator[ScoredWindow]:
        """Yield the windows; the lines of rejects count from the beginning of their file.

        Raises:
            OSError: the file cannot be read.
        """
        with self.path.open("rb") as file:
            for _, window in windows_in(file, self._count):
                window.rejects = [self._later(reject) for reject in window.rejects]
                yield window

    def _later(self, reject: Reject) -> Reject:
        if not self._lines or reject.source != self._of_file:
            return reject
        return replace(reject, line=reject.line + self._lines)


class WaitingRows:
    """The windows and embeddings of all shards, as one run has them."""

    def __init__(self, parts: Sequence[WaitingPart], folder: Path) -> None:
        """Take the parts.

        Args:
            parts: in order.
            folder: where the embeddings of all are put together.
        """
        self.pairs = sum(part.pairs for part in parts)
        self._parts = parts
        self._joined = folder / EMBEDDINGS

    def embeddings(self) -> NDArray[np.float32]:
        """Return all embeddings, float32 (rows, size), mapped from a file.

        Raises:
            OutputError: the disk refuses them.
        """
        rows = sum(part.rows for part in self._parts)
        if not rows:
            return np.empty((0, 0), dtype=np.float32)
        try:
            with self._joined.open("wb") as joined:
                for part in self._parts:
                    with part.embeddings.open("rb") as file:
                        while some := file.read(_CHUNK):
                            joined.write(some)
        except OSError as error:
            raise OutputError(f"{self._joined}: {error.strerror}") from error
        size = next(part.size for part in self._parts if part.rows)
        return np.memmap(self._joined, dtype=np.float32, mode="r", shape=(rows, size))

    def windows(self, first: int = 0) -> Iterator[tuple[int, ScoredWindow]]:
        """Yield each window with the place of its first row, from the window of this number on."""
        begin = 0
        for number, window in enumerate(window for part in self._parts for window in part.windows()):
            if number >= first:
                yield begin, window
            begin += len(window)
