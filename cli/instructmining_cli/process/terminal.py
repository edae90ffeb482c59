"""Lines on standard output and standard error, in which what came from a file cannot command the terminal."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cache

import typer

# Control characters but for tab and new line, and what turns the direction of writing.
_COMMANDING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""The text with what a terminal obeys written as JSON does: ``\u001b`` for what begins its commands."""
    return _COMMANDING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class VisibleFormatter(logging.Formatter):
    """Writes records as :func:`visible` shows them: they name files and fields too."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return visible(super().format(record))


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Write a line as :func:`visible` shows it.

    Args:
        text: one line or more.
        err: on standard error.
        nl: whether the line ends with it.
    """
    typer.echo(visible(text), err=err, nl=nl)


@dataclass(slots=True)
class Voice:
    """How much this process says on standard error."""

    quiet: bool = False  # errors and cautions only


@cache
def voice() -> Voice:
    """Of this process."""
    return Voice()


def say(text: str) -> None:
    """Write a line of progress or a closing word to standard error, unless ``--quiet`` is given."""
    if not voice().quiet:
        echo(text, err=True)


def warn(text: str) -> None:
    """Write a caution to standard error, also where ``--quiet`` is given."""
    echo(text, err=True)
