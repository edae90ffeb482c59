"""The files of one selection, put in place together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from instructmining.scored.line_files import check_row_file, row_file
from instructmining.writing.atomic import STANDARD, Placement


class FileSet:
    """Files that appear together or not at all, as far as a file system allows; a context manager."""

    def __init__(
        self,
        targets: Sequence[str | Path | None],
        *,
        reads: Iterable[str | Path | None] = (),
        prefix: str = "",
        overwrite: bool = False,
    ) -> None:
        """Check that all can be written.

        Args:
            targets: the files, OUT the last; None and "-", standard output, are passed over.
            reads: the files that are read.
            prefix: what ``score`` put before its columns' names.
            overwrite: whether they may exist.

        Raises:
            OutputError: one exists, has another suffix, is read, or is written by another process; or two are one.
        """
        self._prefix = prefix
        for target in targets:
            if target is not None and target != "-":
                check_row_file(target)
        self._said = None if targets[-1] in STANDARD else Path(f"{targets[-1]}.selection.json")
        sidecars = [] if self._said is None else [self._said]
        self._files = Placement(targets, overwrite=overwrite, sidecars=sidecars, reads=reads)

    def __enter__(self) -> Self:
        """The files themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not put in place."""
        self._files.__exit__(kind, error, trace)

    def write(self, name: str | Path, lines: Iterable[bytes]) -> None:
        """Write lines, compressed as the name says; at once where that is standard output.

        Raises:
            OutputError: the disk does not take them.
        """
        with row_file(self._files, name, prefix=self._prefix) as stream:
            for line in lines:
                stream.write(line + b"\n")

    def put_in_place(self, said: Mapping[str, object]) -> None:
        """Put all in place, OUT the last, with what is said beside it.

        Raises:
            OutputError: the file system does not do it.
        """
        if self._said is not None:
            content = orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n"
            self._files.write(self._said, content)
        self._files.put()
