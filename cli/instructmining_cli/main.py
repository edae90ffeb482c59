"""The entry point: sets up signals and streams, then runs the command.

It imports almost nothing itself, so that signals are handled while everything else is imported.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run a command and exit with its code.

    0 done, 1 error, 2 wrong usage, 3 rows were rejected, 130 and 143 interrupted, 141 the reader of standard output
    went away.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # shows no traceback; used until our handler is installed
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
    except BaseException:  # a library may raise its own error in place of Stopped
        if stops.number is None:
            raise
    if stops.number is not None:
        end_output(1)
        stops.end()
    sys.exit(code)
