"""Says one line for each run, with the time left over all runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from instructmining_experiments.state.runs import Result

Report: TypeAlias = Callable[[str], None]


class Progress:
    """Counts the runs of an experiment; those finished by earlier calls too."""

    def __init__(self, runs: int, base_loss: float, report: Report) -> None:
        """Prepare.

        Args:
            runs: all of the experiment, those of the sweep too.
            base_loss: on the first evaluation set, before training.
            report: called with each line.
        """
        self._runs = runs
        self._base_loss = base_loss
        self._report = report
        self._seconds: list[float] = []
        self._failed = 0

    def known(self, seconds: float) -> None:
        """Count a run that an earlier call finished."""
        self._seconds.append(seconds)

    def begun(self, name: str, steps: int) -> None:
        """Say that a run begins, or goes on at its checkpoint."""
        self._report(f"{name}: training, {steps} steps")

    def finished(self, found: Result, loss: float) -> None:
        """Say what came of a run."""
        seconds = found.train_seconds + found.evaluation_seconds
        self._seconds.append(seconds)
        self._report(
            f"{found.name} ({self._done} of {self._runs}): loss {loss:.4f}, before {self._base_loss:.4f}; "
            f"{found.tokens:,} tokens in {_words(seconds)}; {self._left()}"
        )

    def failed(self, name: str, reason: str) -> None:
        """Say that a run failed."""
        self._failed += 1
        self._report(f"{name} ({self._done} of {self._runs}): {reason}; {self._left()}")

    @property
    def _done(self) -> int:
        return len(self._seconds) + self._failed

    def _left(self) -> str:
        left = self._runs - self._done
        if not left:
            return "no run is left"
        if not self._seconds:
            return f"{left} left"
        return f"about {_words(left * sum(self._seconds) / len(self._seconds))} left"


def _words(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
