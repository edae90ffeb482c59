"""The files of one selection: each is written beside its place, and all are moved there at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import orjson

from instructmining.errors import OutputError
from instructmining.linefiles import check_out
from instructmining.writers import compressed


class FileSet:
    """Files that appear together or not at all, as far as a file system allows; a context manager."""

    def __init__(
        self, scored: Path | None, targets: Iterable[str | Path | None], *, prefix: str = "", overwrite: bool = False
    ) -> None:
        """Check that all can be written.

        Args:
            scored: the file that is read, None for a table in memory.
            targets: the files, OUT the last; None and "-", standard output, are passed over.
            prefix: what ``score`` put before its columns' names.
            overwrite: whether they may exist.

        Raises:
            OutputError: one exists, has another suffix, or is the scored file; or two are one.
        """
        self._prefix = prefix
        self._partials: dict[Path, Path] = {}
        self._targets = [Path(str(target)) for target in targets if target not in {None, "-"}]
        for target in self._targets:
            check_out(target, overwrite=overwrite, sources=[scored])
            if sum(other.absolute() == target.absolute() for other in self._targets) > 1:
                raise OutputError(f"{target}: is named for two files; name another file")

    def __enter__(self) -> Self:
        """The files themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was not put in place."""
        for partial in self._partials:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def write(self, name: str | Path, lines: Iterable[bytes]) -> None:
        """Write lines, compressed as the name says.

        Raises:
            OutputError: the disk does not take them.
        """
        target = Path(name)
        partial = Path(f"{target}.partial")
        with _as_output_error(target), ExitStack() as stack:
            self._partials[partial] = target
            file = stack.enter_context(partial.open("wb"))
            stream = compressed(file, target.name, prefix=self._prefix)
            for line in lines:
                stream.write(line + b"\n")
            if stream is not file:
                stream.close()

    def describe(self, out: str | Path, said: Mapping[str, object]) -> None:
        """Write the selection file of OUT, JSON.

        Raises:
            OutputError: the disk does not take it.
        """
        target = Path(f"{out}.selection.json")
        partial = Path(f"{target}.partial")
        with _as_output_error(target):
            self._partials[partial] = target
            partial.write_bytes(orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")

    def put_in_place(self) -> None:
        """Move all to where they belong, OUT the last.

        Raises:
            OutputError: the file system does not do it.
        """
        last = self._targets[-1] if self._targets else None
        for partial, target in sorted(self._partials.items(), key=lambda item: item[1] == last):
            with _as_output_error(target):
                partial.replace(target)


@contextmanager
def _as_output_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}") from error
