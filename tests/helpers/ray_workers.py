"""What tests of a pool score with, on nodes that import it by its name."""

from __future__ import annotations

import os
import signal

from instructmining.errors import InputError


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
