"""Former names of options, accepted for one more release."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from instructmining_cli.process.terminal import warn

# command → its options' former names → their names
RENAMED: Mapping[str, Mapping[str, str]] = {
    "score": {"--budget-tokens": "--max-batch-tokens", "--max-tokens": "--max-length"},
    "bench": {"--budget-tokens": "--max-batch-tokens"},
    "inspect": {"--max-tokens": "--max-length"},
    "export": {"--max-tokens": "--max-length"},
}
JSON_FILE = {"bench": "--out", "fit": "--figures"}  # command → the option that replaces its ``--json FILE``
_JSON = "--json"


def by_new_names(command: str, arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments with renamed options under their new names, and warn about each.

    Args:
        command: its name; other commands may have options by names that this one no longer has.
        arguments: without the command's name; those after ``--`` are not changed.
    """
    return list(_renamed(arguments, RENAMED.get(command, {})))


def _renamed(arguments: Sequence[str], names: Mapping[str, str]) -> Iterator[str]:
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            yield argument
            yield from rest
            return
        name, equals, value = argument.partition("=")
        new = names.get(name)
        if new is not None:
            warn(f"{name} is now {new}; the next release removes the old name")
        yield f"{new or name}{equals}{value}"


def json_file_by_new_name(
    arguments: Sequence[str], positional: Callable[[list[str]], Sequence[str]], option: str
) -> list[str]:
    """Return a command's arguments with ``--json FILE`` replaced by ``OPTION FILE``, and warn about it.

    ``--json`` no longer takes a value. The argument after it is taken for one if another input is given, and it ends in
    ``.json`` or names no existing file.

    Args:
        arguments: arguments of the command, without its name.
        positional: returns those of the given arguments that are neither options nor values of options.
        option: the new name.
    """
    rest, file = list(arguments), None
    end = rest.index("--") if "--" in rest else len(rest)
    for index, argument in enumerate(rest[:end]):
        if argument.startswith(f"{_JSON}="):
            file = rest.pop(index).partition("=")[2]
            break
        if argument == _JSON and index + 1 < end:
            following = rest[index + 1]
            if following == "-" or (_was_a_value(following) and len(positional(list(rest))) > 1):
                file = following
                del rest[index : index + 2]
            break
    if file is None:
        return rest
    if file == "-":
        warn(f"{_JSON} - is now {_JSON}; the next release removes the old form")
        return [_JSON, *rest]
    warn(f"{_JSON} FILE is now {option} FILE; the next release removes the old form")
    return [option, file, *rest]


def _was_a_value(argument: str) -> bool:
    return not argument.startswith("-") and (argument.endswith(".json") or not Path(argument).exists())
