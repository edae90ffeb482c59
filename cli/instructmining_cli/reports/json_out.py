"""Results of commands as JSON on standard output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson

from instructmining.errors import InputError
from instructmining.reading.values import all_utf8
from instructmining_cli.process.terminal import echo


def as_document(figures: Mapping[str, object]) -> bytes:
    """A JSON document of figures, with its last newline."""
    return orjson.dumps(all_utf8(figures), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def print_document(figures: Mapping[str, object]) -> None:
    """Print figures as the one document on standard output."""
    echo(as_document(figures).decode(), nl=False)


def print_record(out: str, suffix: str) -> None:
    """Print what a command recorded beside OUT, and where OUT is.

    Args:
        out: that was written.
        suffix: of the record, as ``.run.json``.

    Raises:
        InputError: the record is gone or was changed meanwhile.
    """
    try:
        record = orjson.loads(Path(f"{out}{suffix}").read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{out}{suffix}: {error}") from error
    print_document({"out": out, **record})
