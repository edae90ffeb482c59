"""Writes lines to standard output and standard error, with control characters escaped."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cache

import typer

# Control characters except tab and newline, and characters that change the text direction.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""Return the text with control characters escaped as in JSON, so that a file cannot control the terminal."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class VisibleFormatter(logging.Formatter):
    """Formats log records with control characters escaped; they name files and fields too."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return visible(super().format(record))


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Write text with control characters escaped.

    Args:
        text: one line or more.
        err: write to standard error.
        nl: add a newline.
    """
    typer.echo(visible(text), err=err, nl=nl)


@dataclass(slots=True)
class Voice:
    """How much this process writes to standard error."""

    quiet: bool = False  # errors and cautions only


@cache
def voice() -> Voice:
    """Return the setting of this process."""
    return Voice()


def say(text: str) -> None:
    """Write a line of progress or of a summary to standard error, unless ``--quiet`` is given."""
    if not voice().quiet:
        echo(text, err=True)


def warn(text: str) -> None:
    """Write a caution to standard error, even with ``--quiet``."""
    echo(text, err=True)
