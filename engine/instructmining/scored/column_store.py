"""Columns of numbers in temporary files: all rows are kept, and memory holds the columns that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from io import BufferedRandom
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import OutputError
from instructmining.writing.temporary import in_temporary_folder, temporary_file

CHUNK_ROWS = 1 << 16
_BYTES = 8  # of a number


class ColumnStore:
    """A file for each column in the system's temporary folder, 8 bytes a row; gone when the block is left.

    Attributes:
        names: of the columns.
        rows: in each.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Open a file for each name.

        Raises:
            OutputError: the temporary folder does not take it.
        """
        self.names = tuple(names)
        self.rows = 0
        self._open = ExitStack()
        self._files: dict[str, BufferedRandom] = {}
        try:
            for name in self.names:
                self._files[name] = self._open.enter_context(temporary_file())
        except OutputError:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the files go."""
        self._open.close()

    def add(self, columns: Mapping[str, NDArray[np.float64]]) -> None:
        """Put rows behind those there.

        Args:
            columns: float64 (rows,) for each name.

        Raises:
            OutputError: the disk does not take them.
        """
        with in_temporary_folder():
            for name, file in self._files.items():
                file.write(columns[name].tobytes())
        self.rows += len(columns[self.names[0]]) if self.names else 0

    def put(self, name: str, values: NDArray[np.float64]) -> None:
        """One whole column, float64 (rows,); all columns of a store that is filled so must be of one length.

        Raises:
            OutputError: the disk does not take it.
        """
        with in_temporary_folder():
            self._files[name].write(values.tobytes())
        self.rows = len(values)

    def column(self, name: str) -> NDArray[np.float64]:
        """All of one column in memory, (rows,), free to be changed.

        Raises:
            OutputError: the disk does not take what is still to be written.
        """
        values = np.empty(self.rows)
        with in_temporary_folder():
            self._files[name].seek(0)
            if self.rows:  # a view of nothing cannot be cast
                self._files[name].readinto(values.data.cast("B"))
        return values

    def known(self, name: str) -> NDArray[np.float64]:
        """The numbers of one column, without those that are NaN."""
        values = self.column(name)
        there = ~np.isnan(values)
        return values if there.all() else values[there]

    def chunks(self, names: Sequence[str]) -> Iterator[NDArray[np.float64]]:
        """Some columns side by side, (rows, columns), a chunk of rows at a time."""
        for begin in range(0, self.rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, self.rows - begin)
            chunk = np.empty((count, len(names)))
            for place, name in enumerate(names):
                with in_temporary_folder():
                    self._files[name].seek(begin * _BYTES)
                    chunk[:, place] = np.frombuffer(self._files[name].read(count * _BYTES))
            yield chunk


def moments(known: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Mean and standard deviation of a sample (n - 1); None where not defined: no value, or a single one."""
    mean = float(known.mean()) if len(known) else None
    return mean, float(known.std(ddof=1)) if len(known) > 1 else None
