"""The command line in processes of its own, next to a store that holds the same files as its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SETTINGS = ("--indicators", "perplexity,mtld", "--device", "cpu", "--block-bytes", "3000", "--max-batch-tokens", "256")


@dataclass(frozen=True)
class Ended:
    """A process that ended: its exit code, and what it said on both streams."""

    code: int
    said: str

    @property
    def errors(self) -> list[str]:
        """The lines that begin with "error:"."""
        return [line for line in self.said.splitlines() if line.startswith("error:")]


@dataclass(frozen=True)
class Client:
    """Runs commands.

    Attributes:
        folder: in which they run.
        cache: of the commands; another one is another machine.
        environment: further variables, such as those of a store.
        secrets: that no command may say or write.
    """

    folder: Path
    cache: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "instructmining", *map(str, arguments)],
            cwd=self.folder,
            env=os.environ | {**self.environment, "INSTRUCTMINING_CACHE": str(self.cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self, process: subprocess.Popen[str], number: signal.Signals | None = None, seconds: float = 400) -> Ended:
        """Wait until a command ends, after a signal if there is one."""
        if number is not None:
            process.send_signal(number)
        try:
            said = process.communicate(timeout=seconds)[0]
        finally:
            process.kill()
        self.check("what was said", said.encode())
        assert "Traceback" not in said, said
        return Ended(process.returncode, said)

    def run(self, *arguments: str | Path) -> Ended:
        """Run a command."""
        return self.end(self.start(*arguments))

    def check(self, name: str, content: bytes) -> None:
        """Check that there is no secret in what was written or said."""
        for secret in self.secrets:
            assert secret.encode() not in content, f"{name} has a secret"

    def check_cache(self) -> None:
        """Check that there is no secret in what was kept on this machine."""
        for path in self.cache.rglob("*"):
            if path.is_file():
                self.check(str(path), path.read_bytes())


@dataclass(frozen=True)
class Scored:
    """A folder of inputs, and what a run without a store makes of them.

    Attributes:
        folder: has ``in/``.
        bundle: that the rows were scored with.
        rows: OUT.
        rejects: of the run, for inputs at another address.
    """

    folder: Path
    bundle: Path
    rows: bytes
    _rejects: bytes

    def rejects(self, store: str) -> bytes:
        """Return the rejects of a run over the same files below an address."""
        return self._rejects.replace(b'"source":"in/', f'"source":"{store}/in/'.encode())
