"""The commands, and their errors as one line with an exit code."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from instructmining import __version__
from instructmining.errors import InstructMiningError
from instructmining_cli.commands.bench import bench
from instructmining_cli.commands.compare import compare
from instructmining_cli.commands.describe import describe
from instructmining_cli.commands.doctor import doctor
from instructmining_cli.commands.export import export
from instructmining_cli.commands.fit import fit
from instructmining_cli.commands.inspect import inspect
from instructmining_cli.commands.rescore import rescore
from instructmining_cli.commands.score import score
from instructmining_cli.commands.select import select
from instructmining_cli.options.command import Command, sharing
from instructmining_cli.options.renamed import by_new_names
from instructmining_cli.process.memory import return_large_blocks
from instructmining_cli.process.terminal import VisibleFormatter, echo

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
        echo(f"instructmining {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for _command in (score, inspect, select, describe, compare, rescore, fit, export, bench, doctor):
    app.command(cls=Command)(sharing(_command))


_MOST_SHOWN = 4000  # characters of an error
_READER_GONE = 141  # what a shell shows of a command that SIGPIPE ended


def run() -> int:
    """Run the command of this process's arguments; the exit code."""
    return_large_blocks()
    log = logging.StreamHandler()
    log.setFormatter(VisibleFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[log])
    try:
        code = app(args=by_new_names(sys.argv[1:]), prog_name=app.info.name, standalone_mode=False)
    except InstructMiningError as error:
        echo(f"error: {_bounded(str(error))}", err=True)
        code = 1
    except typer.Exit as error:
        code = error.exit_code
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        code = _READER_GONE  # the command framework's own answer to it
    except BrokenPipeError:
        code = _READER_GONE
    except OSError as error:
        echo(f"error: {_said_of(error)}", err=True)
        code = 1
    except Exception as error:
        if not _is_usage_error(error):
            raise
        error.show()  # type: ignore[attr-defined]
        code = 2
    return int(code or 0)


def _said_of(error: OSError) -> str:
    if error.filename:
        return str(error)
    if isinstance(error, FileNotFoundError):  # of os.getcwd(), which names no file
        return "the current folder is gone; change to one that is there"
    # The engine names the file of its errors; what has no file is the stream that we write to.
    return f"standard output: {error.strerror}"


def _bounded(text: str) -> str:
    """A message with its middle left out where it holds a file's own words without end."""
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN // 2]} … {text[-_MOST_SHOWN // 2 :]}"


def _is_usage_error(error: Exception) -> bool:
    return hasattr(error, "show") and hasattr(error, "exit_code")
