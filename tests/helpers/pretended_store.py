"""A store that is a folder: the four calls of pyarrow's file systems that the engine makes, without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyarrow import fs


class PretendedStore:
    """A store whose buckets are folders; each call can be made to fail.

    Attributes:
        folder: that holds the buckets.
        fails: called with the name of each call and its path before it is made; may raise.
        ranges: the position and size of each read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fails: Callable[[str, str], None] = lambda _call, _path: None
        self.ranges: list[tuple[int, int]] = []
        self._disk = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())

    def get_file_info(self, wanted: Any) -> Any:  # noqa: ANN401 - as pyarrow's
        self.fails("list" if isinstance(wanted, fs.FileSelector) else "head", str(wanted))
        return self._disk.get_file_info(wanted)

    def open_input_file(self, path: str) -> _File:
        self.fails("open", path)
        return _File(self._disk.open_input_file(path), self, path)

    def open_output_stream(self, path: str) -> Any:  # noqa: ANN401 - as pyarrow's
        self.fails("write", path)
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        return self._disk.open_output_stream(path)

    def delete_file(self, path: str) -> None:
        self.fails("delete", path)
        self._disk.delete_file(path)

    def put(self, path: str, content: bytes) -> None:
        """Put an object in place."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content)


class _File:
    def __init__(self, file: Any, store: PretendedStore, path: str) -> None:  # noqa: ANN401 - pyarrow's
        self._file, self._store, self._path = file, store, path

    def size(self) -> int:
        return int(self._file.size())

    def seek(self, at: int) -> None:
        self._file.seek(at)

    def read(self, size: int) -> bytes:
        self._store.fails("read", self._path)
        self._store.ranges.append((self._file.tell(), size))
        return bytes(self._file.read(size))

    def close(self) -> None:
        self._file.close()
