"""Rows waiting for the corpus pass, on disk: their columns and embeddings do not stay in memory."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from instructmining.records import ScoredWindow


class Spool:
    """Scored rows and their embeddings in a temporary folder, read back once in order; removed on exit."""

    def __init__(self) -> None:
        """Open the folder, in the system's place for temporary files."""
        self._folder = tempfile.TemporaryDirectory(prefix="instructmining-")
        path = Path(self._folder.name)
        self._rows = (path / "rows").open("w+b")
        self._vectors = (path / "embeddings.f32").open("w+b")
        self._size = 0
        self.rows = 0

    def __enter__(self) -> Self:
        """The spool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close and remove the folder."""
        self._rows.close()
        self._vectors.close()
        self._folder.cleanup()

    def append(self, window: ScoredWindow, embedding: NDArray[np.float32]) -> None:
        """Add a window of rows and their float32 (rows, size) embeddings."""
        pickle.dump(window, self._rows, protocol=5)  # our own objects in our own folder, read back by this process
        self._vectors.write(np.ascontiguousarray(embedding).tobytes())
        self._size = embedding.shape[1]
        self.rows += len(window)

    def embeddings(self) -> NDArray[np.float32]:
        """All embeddings, float32 (rows, size), mapped from the file."""
        self._vectors.flush()
        if not self.rows:
            return np.empty((0, 0), dtype=np.float32)
        return np.memmap(self._vectors.name, dtype=np.float32, mode="r", shape=(self.rows, self._size))

    def windows(self) -> Iterator[ScoredWindow]:
        """The rows as they were appended."""
        self._rows.seek(0)
        done = 0
        while done < self.rows:
            window: ScoredWindow = pickle.load(self._rows)
            done += len(window)
            yield window
