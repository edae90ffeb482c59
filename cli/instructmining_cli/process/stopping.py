"""Ctrl-C and SIGTERM: a command ends within a second, whatever its threads wait for; standard library alone.

Before a command begins and after its end a signal ends the process at once. In between the first one raises
:class:`Stopped` in the main thread, so that files are put in order; where that takes too long, as with a read that the
system does not break off, a thread that only waits for signals ends the process. So does a second signal. That loses
nothing that a kill would not lose.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from threading import Event, Lock, Thread
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_PATIENCE_S = 0.7  # for the files to be put in order
_SHOW_CURSOR = b"\r\x1b[K\x1b[?25h"  # which a progress bar hides


class Stopped(BaseException):
    """A signal asks the command to end. No KeyboardInterrupt, which the command framework answers itself."""


class Stopping:
    """What signals do to this process.

    Attributes:
        number: the first signal that came.
    """

    def __init__(self) -> None:
        """Nothing is changed before :meth:`install`."""
        self.number: int | None = None
        self._raises = False
        self._note: Callable[[], str | None] = lambda: None
        self._said = Lock()  # taken by whoever says it, and never given back
        self._wakeup = -1

    def install(self) -> None:
        """Take the signals over, but for those that the process was started to ignore."""
        if os.name == "posix" and self._wakeup < 0:
            reader, self._wakeup = os.pipe()
            os.set_blocking(self._wakeup, False)
            Thread(target=self._watch, args=(reader,), name="signals of instructmining", daemon=True).start()
        if self._wakeup >= 0:
            signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        for number in _WORDS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)
        sys.unraisablehook = _silent_about_stops

    @contextmanager
    def unwinding(self) -> Iterator[None]:
        """Within, a signal raises :class:`Stopped`."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    @contextmanager
    def noting(self, note: Callable[[], str | None], *, say: Callable[[str], None]) -> Iterator[None]:
        """Say what is left behind where the block fails; where it is stopped, in the one line that says so.

        Args:
            note: gives a line, or None where nothing is left; called from any thread.
            say: takes the line.
        """
        self._note = note
        try:
            yield
        except BaseException:
            left = note()
            self._note = lambda: left
            if self.number is None and left is not None:
                say(left)
            raise

    def end(self, number: int = signal.SIGINT) -> NoReturn:
        """Say in one line that the process was stopped, and end it.

        Args:
            number: of the signal, where none came before it.
        """
        if not self._said.acquire(blocking=False):
            Event().wait()  # for the thread that is ending the process
        number = self.number or number
        note = self._note()
        _write_now(f"{_WORDS[signal.Signals(number)]}{f'; {note}' if note else ''}\n".encode())
        os._exit(128 + number)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None or not self._raises:
            self.end(number)
        self.number = number
        raise Stopped

    def _watch(self, reader: int) -> None:
        """Wait for signals without the main thread, which may be unable to answer them."""
        number = _next_of_ours(reader)
        select.select([reader], [], [], _PATIENCE_S)  # until a second one comes
        self.end(number)


@cache
def stopping() -> Stopping:
    """Of this process."""
    return Stopping()


def open_standard_streams() -> None:
    """Open those of the three standard streams that are closed, as nothing at all.

    Files opened later would take their numbers otherwise, and what is meant for a stream would go into them. Writing to
    standard output that was closed is an error then as of any Unix tool; standard error takes all and forgets it.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        with suppress(OSError):
            os.fstat(number)
            continue
        nothing = os.open(os.devnull, flags)  # the smallest number that is free
        if nothing != number:
            os.dup2(nothing, number)
            os.close(nothing)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def end_output(code: int) -> int:
    """Write what waits for standard output, so that the end of the process has nothing left to fail at.

    Args:
        code: the exit code so far.

    Returns:
        The exit code: 141 where whoever read it went away, 1 where it takes no more and that was not said before.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
        if isinstance(error, BrokenPipeError):
            return 141
        if code in {0, 3}:
            sys.stderr.write(f"error: standard output: {error.strerror}\n")
            return 1
    return code


def _next_of_ours(reader: int) -> int:
    while True:
        (number,) = os.read(reader, 1)
        if number in _WORDS:
            return int(number)


def _write_now(line: bytes) -> None:
    """A line on standard error, unless that takes none now; past its lock, which the main thread may hold."""
    with suppress(OSError, ValueError):
        if os.name != "posix" or select.select([], [2], [], 0)[1]:
            os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + line)


def _silent_about_stops(unraisable: UnraisableHookArgs) -> None:
    """A stop that no code can take, as in a destructor, is answered by the thread that waits for signals."""
    if not issubclass(unraisable.exc_type, Stopped):
        sys.__unraisablehook__(unraisable)
