"""The command line as the host of a scoring run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from instructmining_cli.process.stopping import stopping
from instructmining_cli.process.terminal import say, voice, warn
from instructmining_cli.run.demo_bundle import demo_bundle
from instructmining_cli.run.display import Display
from instructmining_scale.runs.host import Host
from instructmining_scale.runs.scoring_run import Run


class TerminalHost(Host):
    """Says everything on standard error, and notes for a signal what a run leaves."""

    def say(self, text: str) -> None:
        """Write a line of progress or of a summary, unless ``--quiet`` is given."""
        say(text)

    def warn(self, text: str) -> None:
        """Write a caution."""
        warn(text)

    def view(self, run: Run) -> Display:
        """Return the display of a run."""
        return Display(run)

    def noting(self, note: Callable[[], str | None], *, on_error: bool = True) -> AbstractContextManager[None]:
        """Add what the block leaves to the line that reports a stop, and say it if the block fails."""
        return stopping().noting(note, say=warn if on_error else lambda _: None)

    def default_bundle(self) -> Path:
        """Return the demo bundle; put it together first, once.

        Raises:
            ExportError: its weights cannot be fetched, or this machine computes other values than its maintainers'.
            OutputError: the cache cannot be written.
        """
        return demo_bundle(say)


def quiet_host() -> TerminalHost:
    """Return the host of the runs of a worker; from then on its process says errors and cautions only."""
    voice().quiet = True
    return TerminalHost()
