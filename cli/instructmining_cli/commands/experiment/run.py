"""``instructmining experiment run``: the whole experiment, from one file."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from instructmining_cli.options.output import Json
from instructmining_cli.process.terminal import say, voice

STEPS = ("design", "train", "fit", "compare")
_ASKED = frozenset({"compare"})  # left out where the file has no table for it
_FAILED_RUNS = 3
_POOLS = ("pool", "newpool", "evaluation")  # keys that name files of rows


def run(
    file: Annotated[
        str, typer.Argument(metavar="CONFIG.toml", help="The folder as out, and a table of options for each step.")
    ],
    json: Json = False,
) -> None:
    """Do all steps of an experiment, with the options in one file: design, train, fit, compare.

    Everything in the file is checked before anything runs. Each step leaves what is done as it is, so that the same
    call continues after an interruption. Exits with 3 where a run failed; the other steps are done all the same.

    Examples:
        instructmining experiment run experiment.toml
        instructmining experiment run experiment.toml --json
    """
    from instructmining_cli.reports.json_out import print_document

    quiet = voice().quiet
    out, steps = _read(file, flags=[flag for flag, asked in (("--quiet", quiet), ("--json", json)) if asked])
    printed: dict[str, object] = {}
    code = 0
    for number, step in enumerate(steps, 1):
        voice().quiet = quiet  # the step before may have set its own
        say(f"{step.info_name}, step {number} of {len(steps)}")
        ended, document = _done(step, captured=json)
        code = code or ended
        printed[str(step.info_name)] = document
    if json:
        print_document({"out": out, "steps": printed})
    if code:
        raise typer.Exit(code)


def _done(step: typer.Context, *, captured: bool) -> tuple[int, object]:
    """Run a step; return its exit code, 0 or 3, and the document that it prints if it is captured.

    Raises:
        Exit: it ended with another code.
    """
    import orjson

    text, code = io.StringIO(), 0
    with ExitStack() as stack:
        if captured:
            stack.enter_context(redirect_stdout(text))
        stack.enter_context(step)
        try:
            step.command.invoke(step)
        except typer.Exit as ended:
            code = ended.exit_code
    if code not in {0, _FAILED_RUNS}:
        raise typer.Exit(code)
    return code, orjson.loads(text.getvalue()) if captured else None


def _read(file: str, *, flags: list[str]) -> tuple[str, list[typer.Context]]:
    """Read the file, and return the folder and the steps that it asks for, checked.

    Raises:
        InputError: the file, or one that it names, cannot be read.
        BadParameter: a key, table or value is wrong.
    """
    from instructmining.errors.names import no_such
    from instructmining_cli.commands.experiment import COMMANDS
    from instructmining_cli.options.config import checked, tables_of
    from instructmining_cli.options.steps import name_of, prepared

    content = tables_of(file)
    commands = {name_of(command): command for command in COMMANDS}
    names = [name for name in STEPS if name in commands]
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    if unknown := [name for name in tables if name not in names]:
        raise typer.BadParameter(f"{file}: [{unknown[0]}]: {no_such('step', unknown[0], names)}")
    if unknown := [name for name in content if name not in tables and name != "out"]:
        raise typer.BadParameter(f"{file}: {no_such('key', unknown[0], ['out'])} outside a table")
    if not content.get("out"):
        raise typer.BadParameter(f"{file}: has no 'out', the folder of the experiment; put it before the tables")
    out = str(checked(content["out"], str, f"{file}: out"))
    steps = [
        prepared(commands[name], tables.get(name, {}), file=file, out=out, flags=flags)
        for name in names
        if name in tables or name not in _ASKED
    ]
    for step in steps:
        _check_there(step.params, f"{file}: [{step.info_name}]")
    return out, steps


def _check_there(values: Mapping[str, Any], place: str) -> None:
    """Check that the files of rows and the model's folder exist.

    Raises:
        InputError: one does not.
    """
    from instructmining.errors import InputError
    from instructmining.reading.sources import expand

    for key in _POOLS:
        for path in expand(list(values.get(key) or ())).paths:
            if not Path(path).is_file():
                raise InputError(f"{place} {key}: {path}: No such file; paths are relative to the current folder")
    for folder in _folders(values):
        if not Path(folder).expanduser().is_dir():
            raise InputError(f"{place}: {folder}: No such folder; paths are relative to the current folder")
    if (model := values.get("model")) and not Path(model).expanduser().is_dir():
        say(f"{place} model: no folder {model} is here; it is taken for an id on the Hugging Face hub")


def _folders(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values that can only be folders: of a bundle, and of a model with a name that no id on the hub has."""
    if bundle := values.get("bundle"):
        yield bundle
    model = values.get("model") or ""
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        yield model
