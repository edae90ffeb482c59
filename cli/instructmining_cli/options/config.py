"""Reads the options of a command from a TOML file, and writes them as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import orjson
import typer

from instructmining.errors import InputError
from instructmining.errors.names import no_such

_NEVER = frozenset({"help", "config", "print-config"})  # a file cannot set these
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list of texts"}
_FILE = "config file"  # key of the file's name in a context


def values_of(file: str, context: typer.Context) -> dict[str, object]:
    """Return the values in the command's table of a file, by the names of the command's parameters.

    Args:
        file: TOML with a table for each command; ``[experiment.design]`` for ``experiment design``.
        context: context of the command.

    Raises:
        InputError: the file cannot be read.
        BadParameter: it is not TOML, or a table, key or type of value is wrong.
    """
    table, command = tables_of(file), table_of(context)
    for group, name in zip(_groups(context), command.split("."), strict=True):
        commands = getattr(group.command, "commands", {name: None}) if group is not None else {name: None}
        for found, inner in table.items():
            if not isinstance(inner, dict):
                raise typer.BadParameter(f"{file}: {found!r} is outside a table; put it under [{command}]")
            if found not in commands:
                raise typer.BadParameter(f"{file}: [{found}]: {no_such('command', found, list(commands))}")
        table = table.get(name, {})
    return values_in(table, context, file)


def values_in(
    table: Mapping[str, object], context: typer.Context, file: str, *, without: Collection[str] = ()
) -> dict[str, object]:
    """Return the values in a command's table, by the names of its parameters; the context keeps the file's name.

    Args:
        table: of the command.
        context: context of the command.
        file: that has the table.
        without: long names of options that are not taken from it.

    Raises:
        BadParameter: a key or type of value is wrong.
    """
    command = table_of(context)
    options = {name: option for option in _options(context) if (name := long_name(option)) not in without}
    types = get_type_hints(context.command.callback)
    values: dict[str, object] = {}
    for key, value in table.items():
        place = f"{file}: [{command}] {key}"
        option = options.get(key.replace("_", "-"))
        if option is None:
            raise typer.BadParameter(f"{file}: [{command}]: {no_such('option', key, list(options))}")
        if option.name in values:
            raise typer.BadParameter(f"{place}: is given twice, with - and with _")
        values[option.name] = checked(value, types[option.name], place)
    context.meta[_FILE] = file
    return values


def from_file(context: typer.Context, parameter: Any) -> str | None:  # noqa: ANN401 - click's, of which typer has a copy
    """Return the place of a parameter's value in a config file; None if it came from elsewhere."""
    source = context.get_parameter_source(parameter.name) if parameter is not None and parameter.name else None
    if source is None or source.name != "DEFAULT_MAP":
        return None
    return f"{context.meta[_FILE]}: [{table_of(context)}] {long_name(parameter)}"


def as_toml(context: typer.Context) -> str:
    """Return the options in effect as a table for :func:`values_of`, without options that have no value.

    Raises:
        BadParameter: a value has bytes that are not UTF-8, which TOML does not allow.
    """
    lines = [f"[{table_of(context)}]"]
    for option in _options(context):
        value = context.params[option.name]
        if value is not None and value not in ([], ()):
            try:
                lines.append(f"{long_name(option)} = {_written(value)}")
            except orjson.JSONEncodeError as error:
                raise typer.BadParameter(f"--{long_name(option)}: has bytes that are not UTF-8") from error
    return "\n".join(lines) + "\n"


def table_of(context: typer.Context) -> str:
    """Return the name of a command's table: its groups and its name, joined with dots."""
    groups = [str(group.info_name) for group in _groups(context)[1:] if group is not None]
    return ".".join([*groups, str(context.info_name)])


def _groups(context: typer.Context) -> list[Any]:
    """Return the contexts of the groups that a command is in, the outermost first; None stands for no group."""
    groups: list[Any] = []
    group = context.parent
    while group is not None:
        groups.insert(0, group)
        group = group.parent
    return groups or [None]


def long_name(option: Any) -> str:  # noqa: ANN401 - click's, of which typer has a copy
    """Return an option's long name without the dashes."""
    return str(max(option.opts, key=len)).removeprefix("--")


def _options(context: typer.Context) -> Iterator[Any]:
    for parameter in context.command.params:
        if parameter.param_type_name == "option" and long_name(parameter) not in _NEVER:
            yield parameter


def tables_of(file: str) -> Mapping[str, Any]:
    """Return the tables and keys of a TOML file.

    Raises:
        InputError: the file cannot be read.
        BadParameter: it is not TOML.
    """
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file}: is not TOML: {error}") from error


def checked(value: object, hint: Any, place: str) -> object:  # noqa: ANN401 - a type hint
    """Return a value of the option's type; a text stands for a list of one.

    Raises:
        BadParameter: it has another type than the option.
    """
    kind = _kind(hint)
    if kind is list:
        values = value if isinstance(value, list) else [value]
        fits = all(isinstance(one, str) for one in values)
        value = values
    else:
        fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits:
        raise typer.BadParameter(f"{place}: found {orjson.dumps(value, default=str).decode()}, wanted {_KINDS[kind]}")
    return value


def _kind(hint: Any) -> type:  # noqa: ANN401
    """Return the type that an option's value has in TOML."""
    plain = next((part for part in get_args(hint) if part is not NoneType), hint) if _is_optional(hint) else hint
    if get_origin(plain) is list:
        return list
    return plain if plain in _KINDS else str  # choices and paths are texts


def _is_optional(hint: Any) -> bool:  # noqa: ANN401
    return get_origin(hint) is not Literal and NoneType in get_args(hint)


def _written(value: object) -> str:
    """Return a value as TOML."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, float):
        return repr(value)  # JSON has no infinity
    text = orjson.dumps(value, default=str).decode()
    return text.replace("\x7f", "\\u007f")  # JSON and TOML escape all other characters the same way
