"""Prints results of commands as JSON."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from instructmining.errors import InputError
from instructmining.reading.small_files import read_small
from instructmining.reading.values import all_utf8
from instructmining_cli.process.terminal import echo


def as_document(figures: Mapping[str, object]) -> bytes:
    """Return figures as a JSON document with a newline at the end."""
    return orjson.dumps(all_utf8(figures), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def print_document(figures: Mapping[str, object]) -> None:
    """Print figures as one JSON document on standard output."""
    echo(as_document(figures).decode(), nl=False)


def print_record(out: str, suffix: str) -> None:
    """Print the record that a command wrote next to OUT, with the path of OUT.

    Args:
        out: path of OUT.
        suffix: suffix of the record, such as ``.run.json``.

    Raises:
        InputError: the record was removed or changed.
    """
    try:
        record = orjson.loads(read_small(f"{out}{suffix}"))
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{out}{suffix}: {error}") from error
    print_document({"out": out, **record})
