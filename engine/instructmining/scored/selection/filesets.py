"""Writes the files of a selection and puts them in place together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from instructmining.scored.line_files import check_row_file, row_file
from instructmining.writing.atomic import STANDARD, Placement
from instructmining.writing.tables import About


class FileSet:
    """Files of a selection, put in place together; a context manager."""

    def __init__(
        self,
        targets: Sequence[str | Path | None],
        *,
        reads: Iterable[str | Path | None] = (),
        prefix: str = "",
        overwrite: bool = False,
    ) -> None:
        """Check that all targets can be written.

        Args:
            targets: the files, OUT last; None and "-", standard output, are skipped.
            reads: files that are read; no target may be one of them.
            prefix: prefix of the columns of ``score``.
            overwrite: whether the targets may exist.

        Raises:
            OutputError: a target exists, has another suffix, is read, is named twice, or another process writes it.
        """
        self._prefix = prefix
        for target in targets:
            if target is not None and target != "-":
                check_row_file(target)
        self._selection_path = None if targets[-1] in STANDARD else f"{targets[-1]}.selection.json"
        sidecars = [] if self._selection_path is None else [self._selection_path]
        self._files = Placement(targets, overwrite=overwrite, sidecars=sidecars, reads=reads)

    def __enter__(self) -> Self:
        """Return the files."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not put in place."""
        self._files.__exit__(kind, error, trace)

    def write(self, name: str | Path, lines: Iterable[bytes], about: About | None = None) -> None:
        """Write lines, compressed as the suffix says; those for standard output at once.

        Args:
            name: one of the targets, or "-".
            lines: JSON objects, without newlines.
            about: what a Parquet file says about itself, asked after the last line.

        Raises:
            OutputError: the disk refuses them.
        """
        with row_file(self._files, name, prefix=self._prefix, about=about) as stream:
            for line in lines:
                stream.write(line + b"\n")

    def put_in_place(self, selection: Mapping[str, object]) -> None:
        """Write the selection file, and put all files in place, OUT last.

        Args:
            selection: content of the selection file.

        Raises:
            OutputError: the file system refuses.
        """
        if self._selection_path is not None:
            content = orjson.dumps(selection, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n"
            self._files.write(self._selection_path, content)
        self._files.put()
