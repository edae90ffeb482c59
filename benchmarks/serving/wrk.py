"""wrk, a closed loop of connections over loopback: https://github.com/wg/wrk, in Debian the package ``wrk``."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("bodies.lua")
_MARK = "figures "


@dataclass(frozen=True, slots=True)
class Load:
    """What a number of clients found, each with one request at a time."""

    clients: int
    requests: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    refused: int  # answers other than 2xx and 3xx
    failed: int  # connections, reads, writes, time-outs

    @property
    def per_second(self) -> float:
        """Requests answered in a second."""
        return (self.requests - self.refused) / self.seconds


def load(wrk: str, url: str, bodies: Path, *, clients: int, seconds: int) -> Load:
    """Send the bodies in turn for some seconds.

    Args:
        wrk: the program.
        url: that is posted to.
        bodies: a file with a body a line.
        clients: connections, each with one request at a time.
        seconds: for which new requests are sent.
    """
    command = [wrk, "--threads", "1", "--connections", str(clients), "--duration", f"{seconds}s", "--timeout", "120s"]
    done = subprocess.run(
        [*command, "--latency", "--script", str(_SCRIPT), url],
        env={**os.environ, "BODIES": str(bodies)},
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith(_MARK))
    return Load(clients, **json.loads(line.removeprefix(_MARK)))
