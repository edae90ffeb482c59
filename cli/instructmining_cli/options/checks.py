"""Callbacks that check option values while the command line is parsed, before any work."""

from __future__ import annotations

import math
from pathlib import Path

import typer

_LARGEST = 2**53  # every JSON reader reads whole numbers up to this one exactly
_MAX_GIB = 1 << 20
_ALWAYS_KNOWN = frozenset({"auto", "cpu", "cuda"})


def known_format(name: str | None) -> str | None:
    """Return the name of a row format, or None.

    Raises:
        BadParameter: the format is not known.
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
    """Return the name of a device, which need not exist here.

    Raises:
        BadParameter: the name is not one of a device.
    """
    if asked in _ALWAYS_KNOWN:  # onnxruntime, slow to import, is not needed
        return asked
    from instructmining.errors import DeviceError
    from instructmining.inference.devices import named_devices

    try:
        named_devices(asked)
    except DeviceError as error:
        raise typer.BadParameter(str(error)) from error
    return asked


def known_indicators(names: str | None) -> str | None:
    """Return comma-separated column names, "all", or None.

    Raises:
        BadParameter: a column cannot be computed; the message lists those that can.
    """
    if names is None or names.strip() == "all":
        return names
    from instructmining.errors import RuleError
    from instructmining.indicators.plan import check_columns

    try:
        check_columns(None, [name.strip() for name in names.split(",") if name.strip()])
    except RuleError as error:
        raise typer.BadParameter(str(error)) from error
    return names


def known_roles(names: str) -> str:
    """Return comma-separated roles.

    Raises:
        BadParameter: one is not known.
    """
    if not names:
        return names
    from instructmining.errors import RuleError
    from instructmining.indicators.plan import role_names

    try:
        role_names(names)
    except RuleError as error:
        raise typer.BadParameter(str(error)) from error
    return names


def named_rule(name: str | None) -> str | None:
    """Return the name of a preset, or of a file that may be a rule, or None.

    Raises:
        BadParameter: there is no such preset or file, and the name has neither a folder nor the suffix ``.json``.
    """
    if name is None or Path(name).exists() or Path(name).name != name or name.endswith(".json"):
        return name
    from instructmining.errors.names import no_such
    from instructmining.rules import PRESETS

    if name not in PRESETS:
        raise typer.BadParameter(f"{no_such('rule', name, PRESETS)}; or give a JSON file")
    return name


def known_rule(name: str | None) -> str | None:
    """Return the name or file of a rule whose terms can be computed, or None.

    Raises:
        BadParameter: there is no rule with this name.
        RuleError: the file cannot be read, or a term is not an indicator; the file is wrong, not the usage.
    """
    if named_rule(name) is not None:
        from instructmining.indicators.plan import check_columns
        from instructmining.rules import Rule

        check_columns(Rule.load(str(name)), [])
    return name


def known_target(name: str | None) -> str | None:
    """Return the name of a shape that rows are written in, or None.

    Raises:
        BadParameter: there is no such shape.
    """
    if name is None:
        return None
    from instructmining.errors import OutputError
    from instructmining.writing.shapes import target_name

    try:
        return target_name(name)
    except OutputError as error:
        raise typer.BadParameter(str(error)) from error


def rows_out(name: str | None) -> str | None:
    """Return the name of a file to write rows to, "-", or None.

    Raises:
        BadParameter: the suffix is not a known one.
    """
    if name is None or name == "-":
        return name
    from instructmining.writing.tables import SUFFIXES

    name = known_place(name)
    if not name.endswith(SUFFIXES):
        raise typer.BadParameter(f"{name}: wanted a name ending in {', '.join(SUFFIXES)}")
    return name


def page_out(name: str | None) -> str | None:
    """Return the name of a page to write, "-" for standard output, or None.

    Raises:
        BadParameter: its suffix is not one of a page.
    """
    if name not in {None, "-"} and not str(name).lower().endswith((".html", ".htm")):
        raise typer.BadParameter(f"{name}: wanted a name ending in .html, or - for standard output")
    return name


def known_place(name: str) -> str:
    """Return a path, or an address of a store in its one form.

    Raises:
        BadParameter: the address is wrong, or holds secrets, which the message leaves out.
    """
    from instructmining.errors import StoreError
    from instructmining.stores.addresses import plain

    try:
        return plain(name)
    except StoreError as error:
        raise typer.BadParameter(str(error)) from None


def folder_out(name: str) -> str:
    """Return the name of a folder to write the parts of a run to.

    Raises:
        BadParameter: the name is that of a file.
    """
    from instructmining.writing.tables import SUFFIXES

    name = known_place(name)
    if name == "-" or name.endswith(SUFFIXES) or Path(name).is_file():
        raise typer.BadParameter(f"{name}: with --shard, wanted a folder; merge writes one file of its parts")
    return name


def conditions(texts: list[str] | None) -> list[str] | None:
    """Return conditions on rows, or None.

    Raises:
        BadParameter: a condition cannot be parsed.
    """
    from instructmining.errors import SelectionError
    from instructmining.scored.selection.conditions import Condition

    try:
        for text in texts or ():
            Condition.parse(text)
    except SelectionError as error:
        raise typer.BadParameter(str(error)) from error
    return texts


def a_share(value: float | None) -> float | None:
    """Return a share of a whole, or None.

    Raises:
        BadParameter: it is not above 0 and at most 1.
    """
    if value is not None and not 0 < value <= 1:
        hint = f"; {value:g}% is {value / 100:g}" if 1 < value <= 100 else ""
        raise typer.BadParameter(f"{value:g}: wanted more than 0 and at most 1{hint}")
    return value


def a_part(value: float) -> float:
    """Return a share that leaves something.

    Raises:
        BadParameter: it is not at least 0 and below 1.
    """
    if not 0 <= value < 1:
        raise typer.BadParameter(f"{value}: wanted at least 0 and less than 1")
    return value


def a_speed(value: float | None) -> float | None:
    """Return a finite speed, or None.

    Raises:
        BadParameter: it is not above 0, or infinite.
    """
    if value is not None and not (0 < value < math.inf):
        raise typer.BadParameter(f"{value}: wanted a number above 0")
    return value


def a_span(value: float) -> float:
    """Return a finite time.

    Raises:
        BadParameter: it is below 0, or infinite.
    """
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"{value}: wanted a number of at least 0")
    return value


def a_port(value: int) -> int:
    """Return a port's number; 0 lets the system choose.

    Raises:
        BadParameter: it is none.
    """
    if not 0 <= value < 1 << 16:
        raise typer.BadParameter(f"{value}: wanted a port, 0 to 65535")
    return value


def a_distance(value: float | None) -> float | None:
    """Return a distance between unit vectors, or None.

    Raises:
        BadParameter: it is not above 0 and at most 2.
    """
    if value is not None and not 0 < value <= 2:
        raise typer.BadParameter(f"{value}: wanted more than 0 and at most 2, a distance between unit vectors")
    return value


def a_rate(value: float | None) -> float | None:
    """Return a learning rate, or None.

    Raises:
        BadParameter: it is not above 0 and at most 1.
    """
    if value is not None and not 0 < value <= 1:
        raise typer.BadParameter(f"{value}: wanted a learning rate above 0 and at most 1, such as 3e-5")
    return value


def some_rates(text: str) -> str:
    """Return comma-separated learning rates.

    Raises:
        BadParameter: one is no rate, or is given twice.
    """
    try:
        rates = [float(rate) for rate in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: wanted learning rates such as 1e-5,3e-5") from error
    for rate in rates:
        a_rate(rate)
        if rates.count(rate) > 1:
            raise typer.BadParameter(f"{rate:g} is given twice")
    return text


def a_number(value: float | None) -> float | None:
    """Return a number, or None.

    Raises:
        BadParameter: it is NaN.
    """
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan: wanted a number")
    return value


def a_count(value: int | None) -> int | None:
    """Return a whole number, or None.

    Raises:
        BadParameter: it is too large.
    """
    if value is not None and value > _LARGEST:
        raise typer.BadParameter(f"wanted at most {_LARGEST}")
    return value


def a_size(value: float | None) -> float | None:
    """Return a size in GiB, or None.

    Raises:
        BadParameter: it is too large or NaN.
    """
    if value is not None and not value <= _MAX_GIB:
        raise typer.BadParameter(f"{value}: wanted at most {_MAX_GIB}, in GiB")
    return value


def as_utf8(text: str) -> str:
    """Return a text that can be written to files.

    Raises:
        BadParameter: it has bytes that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise typer.BadParameter("has bytes that are not UTF-8") from error
    return text


def some_methods(asked: str) -> str:
    """Return comma-separated methods of a comparison, or "all".

    Raises:
        BadParameter: one is not known.
    """
    if asked.strip() == "all":
        return asked
    from instructmining.errors import InputError
    from instructmining_experiments.comparing.selections import checked_methods

    try:
        checked_methods([name.strip() for name in asked.split(",")])
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    return asked
