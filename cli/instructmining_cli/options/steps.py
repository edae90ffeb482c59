"""Prepares commands from the tables of one file, so that all are checked before any of them runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import typer
from typer.main import get_command

from instructmining_cli.options.command import Command, sharing
from instructmining_cli.options.config import checked, long_name, values_in

_FOLDER, _OUT = "folder", "out"  # the parameter that names the experiment: an argument, or in its place an option


def name_of(step: Callable[..., None]) -> str:
    """Return the name of a command."""
    return step.__name__.replace("_", "-")


def prepared(
    step: Callable[..., None], table: Mapping[str, object], *, file: str, out: str, flags: Sequence[str] = ()
) -> typer.Context:
    """Parse and check a command with the values of its table; does not run it.

    Args:
        step: the command.
        table: its options by long names, and its arguments by their names.
        file: that has the table.
        out: folder of the experiment, which the table does not name.
        flags: of the command line, such as ``--quiet``.

    Raises:
        BadParameter: a key is unknown, required and not there, or its value is wrong; the message names file and table.
    """
    context, parameters = _context_of(step)
    arguments = [one.name for one in parameters if one.param_type_name == "argument" and one.name != _FOLDER]
    takes_folder = any(one.name == _FOLDER for one in parameters)
    place = f"{file}: [{context.info_name}]"
    options = {key: value for key, value in table.items() if key not in arguments}
    values = values_in(options, context, file, without=["json"] if takes_folder else ["json", _OUT])
    named = {key: _texts(value, f"{place} {key}") for key, value in table.items() if key in arguments}
    given = {_FOLDER if takes_folder else _OUT, *values, *(key for key, texts in named.items() if texts)}
    if missing := [one for one in parameters if one.required and one.name not in given]:
        raise typer.BadParameter(f"{place}: has no {long_name(missing[0])!r}, which it needs")
    positional = [text for name in arguments for text in named.get(name, [])]
    words = [*flags, "--", out, *positional] if takes_folder else [*flags, f"--{_OUT}={out}", "--", *positional]
    context.default_map = values
    with context.scope(cleanup=False):
        context.command.parse_args(context, words)
    return context


def _texts(value: object, place: str) -> list[str]:
    return cast("list[str]", checked(value, list[str], place))


def _context_of(step: Callable[..., None]) -> tuple[typer.Context, Sequence[Any]]:
    made = typer.Typer(add_completion=False, rich_markup_mode=None)
    made.command(cls=Command)(sharing(step))
    command = get_command(made)
    return typer.Context(command, info_name=name_of(step)), command.params
