"""Values of options that are checked while the command line is read: wrong ones are wrong usage, before any work."""

from __future__ import annotations

import typer

_ALWAYS_KNOWN = frozenset({"auto", "cpu", "cuda"})


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


def known_device(asked: str) -> str:
    """The name of a device that could be there.

    Raises:
        BadParameter: nothing is called so.
    """
    if asked in _ALWAYS_KNOWN:  # without waiting for onnxruntime
        return asked
    from instructmining.devices import named_devices
    from instructmining.errors import DeviceError

    try:
        named_devices(asked)
    except DeviceError as error:
        raise typer.BadParameter(str(error)) from error
    return asked


def known_indicators(names: str | None) -> str | None:
    """Comma-separated names of columns, "all", or None.

    Raises:
        BadParameter: one is no column that is computed; the message lists those that are.
    """
    if names is None or names.strip() == "all":
        return names
    from instructmining.errors import RuleError
    from instructmining.plans import check_columns

    try:
        check_columns(None, [name.strip() for name in names.split(",") if name.strip()])
    except RuleError as error:
        raise typer.BadParameter(str(error)) from error
    return names


def known_rule(name: str | None) -> str | None:
    """The name or the file of a rule whose terms can be computed, or None.

    Raises:
        RuleError: it cannot be read, or a term is no indicator: the file is wrong, not the usage.
    """
    if name is not None:
        from instructmining.plans import check_columns
        from instructmining.rules import Rule

        check_columns(Rule.load(name), [])
    return name
