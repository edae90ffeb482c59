"""Ends a command within a second of Ctrl-C or SIGTERM, whatever its threads wait for; needs only the standard library.

Before a command starts and after it ends, a signal ends the process at once. During the command, the first signal
raises :class:`Stopped` in the main thread, so that files are closed. If that takes too long, as in a read that the
system does not interrupt, a thread that only waits for signals ends the process; so does a second signal. This loses no
more than a kill would. A server is asked to end by the first signal, and takes its time; a second one ends the process.
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
_PATIENCE_S = 0.7  # time to close files
_SHOW_CURSOR = b"\r\x1b[K\x1b[?25h"  # the live view hides it


class Stopped(BaseException):
    """A signal asks the command to end. Not a KeyboardInterrupt, which the command framework would handle."""


class Stopping:
    """Handles the signals of this process.

    Attributes:
        number: the first signal received, or None.
    """

    def __init__(self) -> None:
        """Prepare; handlers are set by :meth:`install`."""
        self.number: int | None = None
        self._raises = False
        self._ask: Callable[[], None] | None = None  # asks a server to end
        self._asked = False
        self._note: Callable[[], str | None] = lambda: None
        self._said = Lock()  # taken by the thread that ends the process, and never released
        self._wakeup = -1

    def install(self) -> None:
        """Install the handlers, except for signals that the process was started to ignore."""
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
        """Inside the block, a signal raises :class:`Stopped`."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    @contextmanager
    def noting(self, note: Callable[[], str | None], *, say: Callable[[str], None]) -> Iterator[None]:
        """If the block fails, say what it leaves; if it is stopped, add that to the line that reports the stop.

        Args:
            note: returns a line, or None if nothing is left; called from any thread.
            say: writes the line.
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

    @contextmanager
    def asking(self, server: Callable[[], None]) -> Iterator[None]:
        """Inside the block, the first signal asks a server to end in its own time; the process then goes on to its end.

        Args:
            server: is called in the main thread, between two instructions of whatever runs there.
        """
        self._ask = server
        try:
            yield
        finally:
            self._ask = None

    def end(self, number: int = signal.SIGINT) -> NoReturn:
        """Report the stop in one line and end the process.

        Args:
            number: the signal to report if none was received.
        """
        if not self._said.acquire(blocking=False):
            Event().wait()  # wait while the other thread ends the process
        number = self.number or number
        note = self._note()
        _write_now(f"{_WORDS[signal.Signals(number)]}{f'; {note}' if note else ''}\n".encode())
        os._exit(128 + number)

    def abandon(self, line: str) -> NoReturn:
        """Report an error in one line, and end the process at once: threads that never end are not waited for."""
        _write_now(f"{line}\n".encode())
        os._exit(1)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None or self._asked or not self._raises:
            self.end(number)
        if self._ask is not None:
            self._asked = True
            self._ask()
            return
        self.number = number
        raise Stopped

    def _watch(self, reader: int) -> None:
        """Wait for signals in a separate thread; the main thread may be blocked."""
        number = _next_handled_signal(reader)
        if self._ask is not None or self._asked:
            number = _next_handled_signal(reader)
        else:
            select.select([reader], [], [], _PATIENCE_S)  # or until a second signal
        self.end(number)


@cache
def stopping() -> Stopping:
    """Return the signal handling of this process."""
    return Stopping()


def open_standard_streams() -> None:
    """Open closed standard streams on the null device.

    Otherwise files opened later would get their numbers, and output for a stream would go into them. Writing to a
    closed standard output is an error, as in any Unix tool; a closed standard error discards what is written.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        with suppress(OSError):
            os.fstat(number)
            continue
        nothing = os.open(os.devnull, flags)  # gets the smallest free number
        if nothing != number:
            os.dup2(nothing, number)
            os.close(nothing)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def end_output(code: int) -> int:
    """Flush standard output, so that the interpreter cannot fail at it on exit.

    Args:
        code: the exit code so far.

    Returns:
        The exit code: 141 if the reader went away, 1 if writing failed and no error was reported before.
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


def _next_handled_signal(reader: int) -> int:
    while True:
        (number,) = os.read(reader, 1)
        if number in _WORDS:
            return int(number)


def _write_now(line: bytes) -> None:
    """Write to standard error if it does not block, without the stream's lock, which the main thread may hold."""
    with suppress(OSError, ValueError):
        if os.name != "posix" or select.select([], [2], [], 0)[1]:
            os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + line)


def _silent_about_stops(unraisable: UnraisableHookArgs) -> None:
    """Print no traceback for a stop raised in a destructor; the thread that waits for signals ends the process."""
    if not issubclass(unraisable.exc_type, Stopped):
        sys.__unraisablehook__(unraisable)
