"""Turns the errors of stores into errors of files with one plain line, without addresses and keys."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_AWS = re.compile(r"AWS Error ([A-Z_]+)")
_SAID = {
    "ACCESS_DENIED": (errno.EACCES, "the store denies access; check the credentials in the environment"),
    "INVALID_ACCESS_KEY_ID": (errno.EACCES, "the store does not know the access key"),
    "SIGNATURE_DOES_NOT_MATCH": (errno.EACCES, "the store refuses the secret key"),
    "EXPIRED_TOKEN": (errno.EACCES, "the credentials have expired"),
    "NO_SUCH_BUCKET": (errno.ENOENT, "no such bucket"),
    "NETWORK_CONNECTION": (errno.EHOSTUNREACH, "the store cannot be reached"),
    "SLOW_DOWN": (errno.EBUSY, "the store asks for fewer requests"),
    "SERVICE_UNAVAILABLE": (errno.EBUSY, "the store is not available"),
    "INTERNAL_FAILURE": (errno.EIO, "the store fails"),
}
_NO_ANSWER = re.compile(r"curlCode: (?:6|7|28)\b")
_LONGEST = 200


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of pyarrow's file systems as OSError, whose ``strerror`` says what the store said.

    Raises:
        OSError: what pyarrow or the hub's client raised.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where a store is used

    try:
        yield
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise as_os_error(error) from None  # its text may have an address with keys


def as_os_error(error: Exception) -> OSError:
    """Return an error of a store as one of a file."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if isinstance(error, OSError) and error.strerror and error.errno:
        return OSError(error.errno, error.strerror)
    text = str(error)
    match = _AWS.search(text)
    code = match[1] if match else ""
    if code == "NETWORK_CONNECTION" and not _NO_ANSWER.search(text):
        return OSError(errno.EIO, "the connection to the store breaks off again and again")
    if code in _SAID:
        return OSError(*_SAID[code])
    said = f"the store says {code.lower().replace('_', ' ')}" if code and code != "UNKNOWN" else _plain(text)
    return OSError(errno.EIO, said)


def _plain(text: str) -> str:
    """Return the first line of a message without anything that looks like an address with a query, or like a key."""
    line = next(iter(text.strip().splitlines()), "the store fails")
    line = re.sub(r"\S+://\S+", "…", line)
    line = re.sub(r"\S*[?&][\w.-]+=\S*", "…", line)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
