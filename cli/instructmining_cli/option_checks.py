"""Values of options that are checked while the command line is read: wrong ones are wrong usage, before any work."""

from __future__ import annotations

import typer


def known_format(name: str | None) -> str | None:
    """The name of a format of rows, or None.

    Raises:
        BadParameter: there is no such format.
    """
    if name is None:
        return None
    from instructmining.errors import InputError
    from instructmining.reading.formats import format_name

    try:
        return format_name(name)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error


def known_indicators(names: str | None) -> str | None:
    """Comma-separated names of columns, "all", or None.

    Raises:
        BadParameter: one is no column that is computed; the message lists those that are.
    """
    if names is None or names.strip() == "all":
        return names
    from instructmining.indicators import INDICATORS
    from instructmining.names import no_such
    from instructmining.records import known_columns

    asked = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in asked if name not in INDICATORS]:
        raise typer.BadParameter(no_such("indicator", unknown, INDICATORS, listed=known_columns()))
    return names
