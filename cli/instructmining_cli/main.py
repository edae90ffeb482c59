"""The entry point: commands, and errors as one line with an exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from instructmining import __version__
from instructmining.errors import InstructMiningError
from instructmining_cli.bench import bench
from instructmining_cli.compare import compare
from instructmining_cli.describe import describe
from instructmining_cli.doctor import doctor
from instructmining_cli.export import export
from instructmining_cli.fit import fit
from instructmining_cli.inspect import inspect
from instructmining_cli.rescore import rescore
from instructmining_cli.score import score
from instructmining_cli.select import select

app = typer.Typer(
    name="instructmining",
    help="Score instruction-tuning data and keep the best: the InstructMining indicators and rule on ONNX Runtime.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"instructmining {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(score)
app.command()(inspect)
app.command()(select)
app.command()(describe)
app.command()(compare)
app.command()(rescore)
app.command()(fit)
app.command()(export)
app.command()(bench)
app.command()(doctor)


class Terminated(BaseException):
    """SIGTERM. No KeyboardInterrupt, which the command framework would turn into its own abort."""


def main() -> None:
    """Run a command; exit codes: 0 done, 1 error, 2 wrong usage, 3 rows were rejected, 130 and 143 interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(prog_name=app.info.name, standalone_mode=False)
    except InstructMiningError as error:
        typer.echo(f"error: {error}", err=True)
        code = 1
    except typer.Exit as error:
        code = error.exit_code
        if code == 130:  # the command framework's own answer to Ctrl-C
            typer.echo("interrupted", err=True)
    except Terminated:
        typer.echo("terminated", err=True)
        code = 143
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        code = 130
    except SystemExit as error:
        # The command framework's own answer where the reader of standard output went away, as in `… | head`; nothing
        # more can be said there.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        typer.echo(f"error: {error}", err=True)
        code = 1
    except Exception as error:
        if not _is_usage_error(error):
            raise
        error.show()  # type: ignore[attr-defined]
        code = 2
    sys.exit(code or 0)


def _is_usage_error(error: Exception) -> bool:
    return hasattr(error, "show") and hasattr(error, "exit_code")


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated
