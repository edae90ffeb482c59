"""The entry point: signals and streams first, then the command.

It imports next to nothing itself, so that a signal finds its handler also while all the rest is imported.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run a command; exit codes: 0 done, 1 error, 2 wrong usage, 3 rows were rejected, 130 and 143 interrupted.

    And 141 where whoever reads standard output went away.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which shows no traceback, until our own handler is there
    from instructmining_cli.process.stopping import Stopped, end_output, open_standard_streams, stopping

    open_standard_streams()
    stops = stopping()
    stops.install()
    from instructmining_cli.app import run

    code = 0
    try:
        with stops.unwinding():
            code = end_output(run())
    except Stopped:
        pass
    except BaseException:  # what a stop became on its way
        if stops.number is None:
            raise
    if stops.number is not None:
        end_output(1)
        stops.end()
    sys.exit(code)
