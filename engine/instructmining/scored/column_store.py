"""Keeps columns of numbers in temporary files; memory holds only the columns in use."""

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
_BYTES = 8  # per number


class ColumnStore:
    """One temporary file per column, 8 bytes per row; a context manager, which removes them.

    Attributes:
        names: names of the columns.
        rows: number of rows in each column.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Open a file per column.

        Raises:
            OutputError: the temporary folder refuses it.
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
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the files."""
        self._open.close()

    def add(self, columns: Mapping[str, NDArray[np.float64]]) -> None:
        """Append rows.

        Args:
            columns: float64 (rows,) for each name.

        Raises:
            OutputError: the disk refuses them.
        """
        with in_temporary_folder():
            for name, file in self._files.items():
                file.write(columns[name].tobytes())
        self.rows += len(columns[self.names[0]]) if self.names else 0

    def put(self, name: str, values: NDArray[np.float64]) -> None:
        """Store a whole column, float64 (rows,); every column must be stored so, with the same length.

        Raises:
            OutputError: the disk refuses it.
        """
        with in_temporary_folder():
            self._files[name].write(values.tobytes())
        self.rows = len(values)

    def column(self, name: str) -> NDArray[np.float64]:
        """Read a column, (rows,); the array is the caller's to change.

        Raises:
            OutputError: the disk refuses buffered values.
        """
        values = np.empty(self.rows)
        with in_temporary_folder():
            self._files[name].seek(0)
            if self.rows:  # an empty view cannot be cast
                self._files[name].readinto(values.data.cast("B"))
        return values

    def known(self, name: str) -> NDArray[np.float64]:
        """Read a column's values that are not NaN."""
        values = self.column(name)
        is_known = ~np.isnan(values)
        return values if is_known.all() else values[is_known]

    def chunks(self, names: Sequence[str]) -> Iterator[NDArray[np.float64]]:
        """Yield chunks of rows of some columns, each (rows, columns)."""
        for begin in range(0, self.rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, self.rows - begin)
            chunk = np.empty((count, len(names)))
            for place, name in enumerate(names):
                with in_temporary_folder():
                    self._files[name].seek(begin * _BYTES)
                    chunk[:, place] = np.frombuffer(self._files[name].read(count * _BYTES))
            yield chunk


def moments(known: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return mean and sample standard deviation (n − 1); None where undefined, with no value or a single one."""
    mean = float(known.mean()) if len(known) else None
    return mean, float(known.std(ddof=1)) if len(known) > 1 else None
