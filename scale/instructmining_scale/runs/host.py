"""What a scoring run needs of the program that starts it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from instructmining.errors import BundleError
from instructmining.writing.statistics import Statistics
from instructmining_scale.runs.scoring_run import Run

_log = logging.getLogger(__name__)


class View:
    """Shows a run; this one shows nothing."""

    def showing(self) -> AbstractContextManager[None]:
        """Show the run's beginning, and its progress inside the block."""
        return nullcontext()

    def say_room(self) -> None:
        """Show the disk space that the run needs."""

    def progress(self, statistics: Statistics) -> None:
        """Show the current state; called after each batch and each block of neighbours."""

    def say_result(self) -> None:
        """Show the result of a run that has ended."""


class Host:
    """The program that starts a run; this one logs cautions, and says nothing else."""

    def say(self, text: str) -> None:
        """Say a line of progress or of the summary."""

    def warn(self, text: str) -> None:
        """Say a caution."""
        _log.warning("%s", text)

    def view(self, run: Run) -> View:  # noqa: ARG002
        """Return what shows a run."""
        return View()

    def noting(
        self,
        note: Callable[[], str | None],  # noqa: ARG002
        *,
        on_error: bool = True,  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        """Inside the block, be ready to say what it leaves if it does not end.

        Args:
            note: returns a line, or None if nothing is left; called from any thread.
            on_error: say it if the block fails, too, and not only if the process is stopped.
        """
        return nullcontext()

    def default_bundle(self) -> Path:
        """Return the bundle of a run that names none.

        Raises:
            BundleError: there is none.
        """
        raise BundleError("no bundle is given, and there is none by default; name the folder of one")
