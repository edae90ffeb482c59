"""Temporary files, whose errors name the folder that they lie in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom

from instructmining.errors import OutputError


@contextmanager
def temporary_file() -> Iterator[BufferedRandom]:
    """A file without a name in the system's temporary folder, gone at the end.

    Raises:
        OutputError: the folder does not take it.
    """
    with in_temporary_folder():
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    try:
        yield file
    finally:
        with suppress(OSError):  # what waits to be written is wanted by nobody
            file.close()


@contextmanager
def in_temporary_folder() -> Iterator[None]:
    """Tell the system's errors as those of the temporary folder.

    Raises:
        OutputError: there was one.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()}: {error.strerror}; TMPDIR names another folder for temporary files"
        ) from error
