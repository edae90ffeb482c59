"""Options by their former names, which work for one release more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from instructmining_cli.process.terminal import echo

RENAMED = {"--budget-tokens": "--max-batch-tokens", "--max-tokens": "--max-length"}


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
            echo(f"{name} is called {new} now; the old name goes with the next release", err=True)
        yield f"{new or name}{equals}{value}"
