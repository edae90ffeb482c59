"""Temporary files, whose errors name their folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom

from instructmining.errors import OutputError


@contextmanager
def temporary_file() -> Iterator[BufferedRandom]:
    """Yield a file without a name in the system's temporary folder; it is gone at the end.

    Raises:
        OutputError: the folder refuses it.
    """
    with in_temporary_folder():
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    try:
        yield file
    finally:
        with suppress(OSError):  # nobody wants what is not written yet
            file.close()


@contextmanager
def in_temporary_folder() -> Iterator[None]:
    """Report the system's errors as errors of the temporary folder.

    Raises:
        OutputError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()}: {error.strerror}; TMPDIR names another folder for temporary files"
        ) from error
