"""Identifies the files of an input by their content, or the part of a file that is read."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass
from io import BufferedReader
from typing import Self

from instructmining.errors import InputError
from instructmining.reading.compression import is_pipe, opened
from instructmining.reading.file_kinds import HEAD_BYTES, table_by_head
from instructmining.reading.file_states import State, state_of
from instructmining.reading.values import utf8
from instructmining.stores.addresses import is_address
from instructmining.stores.files import open_file

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class InputPart:
    """A file, or what a run reads of it, as it was when the run began."""

    path: str
    state: State | None
    begin: int = 0  # as in a Cut: bytes of the text, or rows of a table
    end: int | None = None  # None for the end of the file

    @classmethod
    def of(cls, path: str, begin: int = 0, end: int | None = None) -> Self:
        """Note the state of a file as it is now."""
        return cls(path, state_of(path), begin, end)

    @property
    def changed(self) -> bool:
        """Whether the file was written, replaced or removed since."""
        return state_of(self.path) != self.state

    def digest(self) -> dict[str, object]:
        """Identify what is read by its path as given, size and SHA-256; a pipe by its path alone.

        A store's file is identified by its time of change instead of a digest, since it would be fetched once more for
        one. Of a part of a text its own bytes count, up to the end of its last line; of a part of a table, the
        beginning and the end of the file, which says what the file holds and where; of a part of a compressed file all.

        Raises:
            InputError: the file cannot be read.
        """
        if is_pipe(self.path):
            return {"path": utf8(self.path)}
        is_whole = not self.begin and self.end is None
        try:
            if is_address(self.path):
                return self._said_by_store()
            with open_file(self.path) as file:
                if is_whole:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    return {"path": utf8(self.path), "bytes": file.tell(), "sha256": digest}
                digest, is_of_all = self._digest_of_part(file)
                size = file.seek(0, 2)
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}") from error
        found = {"path": utf8(self.path), "bytes": size, "begin": self.begin, "end": self.end, "sha256": digest}
        return found | {"of_all": is_of_all}

    def _said_by_store(self) -> dict[str, object]:
        now = state_of(self.path)
        if now is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        *_, size, modified_ns = now
        found = {"path": utf8(self.path), "bytes": size, "modified_ns": modified_ns}
        return found if not self.begin and self.end is None else found | {"begin": self.begin, "end": self.end}

    def _digest_of_part(self, file: BufferedReader) -> tuple[str, bool]:
        """Return the digest, and whether all bytes of the file are in it."""
        if table_by_head(file.read(HEAD_BYTES)) is not None:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(_CHUNK)
            file.seek(max(0, size - _CHUNK))
            return hashlib.sha256(head + file.read(_CHUNK)).hexdigest(), False
        file.seek(0)
        with opened(self.path) as source:
            if source.is_packed:
                return hashlib.file_digest(file, "sha256").hexdigest(), True
        digest = hashlib.sha256()
        file.seek(self.begin)
        left = None if self.end is None else self.end - self.begin
        while part := file.read(_CHUNK if left is None else min(_CHUNK, left)):
            digest.update(part)
            if left is not None and (left := left - len(part)) <= 0:
                digest.update(file.readline())
                break
        return digest.hexdigest(), False


def input_digest(path: str) -> dict[str, object]:
    """Identify a whole file; see :meth:`InputPart.digest`.

    Raises:
        InputError: the file cannot be read.
    """
    return InputPart.of(path).digest()
