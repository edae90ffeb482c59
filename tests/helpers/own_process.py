"""A server that a test runs in a process of its own, which ends with the test, whatever ends that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a command until the end of the block; yield the line that it prints when it is ready.

    Args:
        command: that ends with its standard input.
        environment: further variables.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | dict(environment or {})
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        assert line, f"{command[0]} ended with exit code {process.wait()}"
        yield line
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def end_with_standard_input(line: str) -> None:
    """Say that the server is ready; return never, but end the process where the one that started it has ended."""
    print(line, flush=True)  # noqa: T201 - read by started()
    sys.stdin.read()
    os._exit(0)
