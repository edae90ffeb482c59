"""Writes lines to standard output and standard error, with control characters escaped."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache

import typer

from instructmining.tables.controls import visible


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
