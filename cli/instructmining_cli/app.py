"""The commands; an error becomes one line and an exit code."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from instructmining import __version__
from instructmining.errors import InstructMiningError
from instructmining_cli.commands.bench import bench
from instructmining_cli.commands.card import card
from instructmining_cli.commands.compare import compare
from instructmining_cli.commands.describe import describe
from instructmining_cli.commands.doctor import doctor
from instructmining_cli.commands.experiment import COMMANDS as EXPERIMENT
from instructmining_cli.commands.export import export
from instructmining_cli.commands.fit import fit
from instructmining_cli.commands.inspect import inspect
from instructmining_cli.commands.merge import merge
from instructmining_cli.commands.neighbours import neighbours
from instructmining_cli.commands.report import report
from instructmining_cli.commands.rescore import rescore
from instructmining_cli.commands.score import score
from instructmining_cli.commands.select import select
from instructmining_cli.commands.serve import serve
from instructmining_cli.options.command import Command, sharing
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


_COMMANDS = (
    score,
    merge,
    neighbours,
    inspect,
    select,
    describe,
    compare,
    report,
    rescore,
    card,
    fit,
    serve,
    export,
    bench,
    doctor,
)
for _command in _COMMANDS:
    app.command(cls=Command)(sharing(_command))

_experiment = typer.Typer(
    name="experiment",
    help="Fine-tune on many subsets, fit a rule to their losses, and test a selection by it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for _step in EXPERIMENT:
    _experiment.command(cls=Command)(sharing(_step))
app.add_typer(_experiment)


_MAX_ERROR_CHARS = 4000
_READER_GONE = 141  # the exit code that a shell reports after SIGPIPE


def run() -> int:
    """Run the command given by the arguments of this process and return the exit code."""
    return_large_blocks()
    log = logging.StreamHandler()
    log.setFormatter(VisibleFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[log])
    try:
        code = app(args=sys.argv[1:], prog_name=app.info.name, standalone_mode=False)
    except InstructMiningError as error:
        echo(f"error: {_bounded(str(error))}", err=True)
        code = 1
    except typer.Exit as error:
        code = error.exit_code
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        code = _READER_GONE  # how the command framework answers a broken pipe
    except BrokenPipeError:
        code = _READER_GONE
    except OSError as error:
        echo(f"error: {_os_error_text(error)}", err=True)
        code = 1
    except Exception as error:
        if not _is_usage_error(error):
            raise
        error.show()  # type: ignore[attr-defined]
        code = 2
    return int(code or 0)


def _os_error_text(error: OSError) -> str:
    if error.filename:
        return str(error)
    if isinstance(error, FileNotFoundError):  # from os.getcwd(), which names no file
        return "the current folder was deleted; change to one that exists"
    # Errors from the engine name their file; one without a file is about standard output.
    return f"standard output: {error.strerror}"


def _bounded(text: str) -> str:
    """Return the message, without its middle if it quotes too much of a file."""
    return (
        text if len(text) <= _MAX_ERROR_CHARS else f"{text[: _MAX_ERROR_CHARS // 2]} … {text[-_MAX_ERROR_CHARS // 2 :]}"
    )


def _is_usage_error(error: Exception) -> bool:
    return hasattr(error, "show") and hasattr(error, "exit_code")
