"""What tests of a pool score with, on nodes that import it by its name."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from instructmining.errors import InputError

STORE = 80 << 20  # bytes of a node's object store, which is hardly used


class Worker:
    """A shard's number says what happens."""

    def score(self, shard: int) -> int:
        if shard == 66:
            os.kill(os.getpid(), signal.SIGKILL)
        if shard == 77:
            raise InputError("rows.jsonl: No such file or directory")
        if shard == 88:
            raise ZeroDivisionError("a fault")
        return 10 * shard


def workers_at(name: str) -> list[int]:
    """The processes of actors of a class, or of tasks of a function."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if (folder / "cmdline").read_bytes().startswith(f"ray::{name}".encode()):
                    found.append(int(folder.name))
    return found
