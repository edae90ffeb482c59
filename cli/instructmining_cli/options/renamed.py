"""Options by their former names, which work for one release more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from instructmining_cli.process.terminal import warn

RENAMED = {"--budget-tokens": "--max-batch-tokens", "--max-tokens": "--max-length"}
JSON_FILE = {"bench": "--out", "fit": "--figures"}  # command → the option that ``--json FILE`` was
_JSON = "--json"


def by_new_names(arguments: Sequence[str]) -> list[str]:
    """Arguments with each renamed option by its new name; standard error says so.

    Args:
        arguments: of the command line; what follows ``--`` is left as it is.
    """
    return list(_renamed(arguments))


def _renamed(arguments: Sequence[str]) -> Iterator[str]:
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            yield argument
            yield from rest
            return
        name, equals, value = argument.partition("=")
        new = RENAMED.get(name)
        if new is not None:
            warn(f"{name} is called {new} now; the old name goes with the next release")
        yield f"{new or name}{equals}{value}"


def json_file_by_new_name(
    arguments: Sequence[str], positional: Callable[[list[str]], Sequence[str]], option: str
) -> list[str]:
    """Arguments of a command with ``--json FILE`` as ``OPTION FILE``; standard error says so.

    ``--json`` takes no value now. What follows it was meant as its value where another input is given, and it ends in
    ``.json`` or is no file.

    Args:
        arguments: of the command, without its name.
        positional: what of arguments stands by itself.
        option: the new name.
    """
    rest, file = list(arguments), None
    end = rest.index("--") if "--" in rest else len(rest)
    for place, argument in enumerate(rest[:end]):
        if argument.startswith(f"{_JSON}="):
            file = rest.pop(place).partition("=")[2]
            break
        if argument == _JSON and place + 1 < end:
            follows = rest[place + 1]
            if follows == "-" or (_was_a_value(follows) and len(positional(list(rest))) > 1):
                file = follows
                del rest[place : place + 2]
            break
    if file is None:
        return rest
    if file == "-":
        warn(f"{_JSON} - is called {_JSON} now; the old form goes with the next release")
        return [_JSON, *rest]
    warn(f"{_JSON} FILE is called {option} FILE now; the old form goes with the next release")
    return [option, file, *rest]


def _was_a_value(argument: str) -> bool:
    return not argument.startswith("-") and (argument.endswith(".json") or not Path(argument).exists())
