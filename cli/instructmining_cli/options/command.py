"""What every command shares: ``--quiet``, ``--config``, ``--print-config``, and ``--no-X`` for each flag ``--X``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from instructmining_cli.options.config import as_toml, from_file, long_name, values_of
from instructmining_cli.options.renamed import JSON_FILE, by_new_names, json_file_by_new_name
from instructmining_cli.process.terminal import echo, voice


def _take_config(context: typer.Context, file: str | None) -> str | None:
    """Use the values of a file as defaults of the command that is being parsed."""
    if file is not None:
        context.default_map = values_of(file, context)
    return file


def _require_nothing(context: typer.Context, asked: bool) -> bool:
    """Make all options optional if they are only printed."""
    for parameter in context.command.params if asked else ():
        parameter.required = False
    return asked


# Parameters that every command has, by name: annotation and default.
_SHARED: dict[str, tuple[Any, object]] = {
    "quiet": (
        Annotated[bool, typer.Option("-q", "--quiet", help="Write only errors and cautions to standard error.")],
        False,
    ),
    "config": (
        Annotated[
            str | None,
            typer.Option(
                metavar="FILE",
                is_eager=True,
                callback=_take_config,
                help="Read options from the command's table in a TOML file; the command line overrides it.",
            ),
        ],
        None,
    ),
    "print_config": (
        Annotated[
            bool,
            typer.Option(
                "--print-config",
                is_eager=True,
                callback=_require_nothing,
                help="Print the options in effect as a table for --config, and exit.",
            ),
        ],
        False,
    ),
}


def sharing(command: Callable[..., None]) -> Callable[..., None]:
    """Add the parameters that every command has to a command."""
    signature = inspect.signature(command, eval_str=True)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _SHARED.items()
    ]
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]

    @wraps(command)
    def with_shared(
        context: typer.Context, *, quiet: bool, config: str | None, print_config: bool, **options: object
    ) -> None:
        del config  # its values are already the defaults of the options
        voice().quiet = quiet
        if print_config:
            echo(as_toml(context), nl=False)
            return
        command(**options)

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *own, *shared]
    with_shared.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    with_shared.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_shared


class Command(TyperCommand):
    """A command whose options can come from a file; the help ends with the examples of its docstring."""

    def __init__(self, name: str | None, *, help: str, **settings: Any) -> None:  # noqa: ANN401 - typer's
        """Take the examples out of the help."""
        text, _, examples = help.partition("\n\nExamples:\n")
        super().__init__(name, help=text, **settings)
        self._examples = [line.strip() for line in examples.splitlines()]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - click's types
        """Write the examples, each on one line, so that they can be copied."""
        with formatter.section("Examples"):
            for line in self._examples:
                formatter.write(f"  {line}\n")

    def make_parser(self, ctx: Any) -> Any:  # noqa: ANN401 - click's types, of which typer may ship a copy
        """Add ``--no-X`` for each flag ``--X``, so that the command line can unset a flag that a file sets."""
        parser = super().make_parser(ctx)
        for option in self.params:
            if getattr(option, "is_flag", False) and not option.is_eager:
                parser.add_option(
                    option,  # type: ignore[arg-type]
                    [f"--no-{long_name(option)}"],
                    dest=option.name,
                    action="store_const",
                    const=False,
                )
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse the command line; an error in a value from a file names the file.

        Raises:
            UsageError: an argument or a value in the file is wrong.
        """
        args = by_new_names(self.name or "", args)
        if (option := JSON_FILE.get(self.name or "")) is not None:
            args = json_file_by_new_name(args, lambda given: self._positional(ctx, given), option)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            if (where := from_file(ctx, error.param)) is not None:
                error.message = f"{where}: {error.message}"
            raise

    def _positional(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Return the arguments that are neither options nor values of options."""
        found, more, _ = self.make_parser(ctx).parse_args(args)
        values = [found[parameter.name] for parameter in self.params if parameter.param_type_name == "argument"]
        return [*more, *(one for value in values for one in ([value] if isinstance(value, str) else value or ()))]
