"""Workers in turn: each in a process of its own, one computing at a time, every ratio from paired rounds of one run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

WORKERS = Path(__file__).parent / "workers"
_CLOSE = 1.3  # settings within this of the fastest are tried once more
_SETTLE_S = 0.05  # for the last worker's threads to be stopped before the next begins


class WorkerError(Exception):
    """A worker ended; the message is the last of what it wrote."""


@dataclass(frozen=True, slots=True)
class Side:
    """One way of doing a job: a task of a worker's script."""

    name: str
    environment: str  # of :mod:`material`; "ours" is this one
    script: str
    task: str
    material: dict[str, Any]


@dataclass(slots=True)
class Timed:
    """What one side was found to take."""

    side: str
    setting: dict[str, Any]
    seconds: list[float] = field(default_factory=list)  # of each round
    cpu_seconds: list[float] = field(default_factory=list)
    searched: list[dict[str, Any]] = field(default_factory=list)  # every setting tried, with its seconds
    versions: dict[str, str] = field(default_factory=dict)
    facts: list[dict[str, Any]] = field(default_factory=list)  # of each round
    values: Any = None  # of the first run at the setting
    every: list[Any] = field(default_factory=list)  # values of each round, where they are measurements
    peak_mb: float | None = None

    @property
    def median(self) -> float:
        return median(self.seconds)


class Worker:
    """A process that is stopped (SIGSTOP) whenever it is not asked, so that no idle thread of it can spin."""

    def __init__(self, side: Side, python: Path) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            [str(python), str(WORKERS / f"{side.script}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"},
        )
        try:
            loaded = self._ask({"task": side.task, "material": side.material})
        except BaseException:
            self.close()
            raise
        self.settings: list[dict[str, Any]] = loaded["settings"]
        self.versions: dict[str, str] = loaded["versions"]

    def run(self, setting: dict[str, Any], *, values: bool = False) -> dict[str, Any]:
        """One run: ``seconds``, ``cpu_seconds``, ``peak_mb``, ``facts`` and, if wanted, ``values``."""
        return self._ask({"setting": setting, "values": values})

    def close(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            raise WorkerError(lines[-1] if lines else f"ended with {self._process.returncode}")
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(_SETTLE_S)
        found: dict[str, Any] = json.loads(answer)
        return found


@contextmanager
def opened(sides: Sequence[Side], pythons: dict[str, Path]) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """A worker for each side, and for those that there is none for the reason."""
    workers, missing = {}, {}
    with ExitStack() as stack:
        for side in sides:
            if side.environment not in pythons:
                missing[side.name] = f"no environment {side.environment}: make peers"
                continue
            try:
                workers[side.name] = Worker(side, pythons[side.environment])
            except WorkerError as error:
                missing[side.name] = str(error)
                continue
            stack.callback(workers[side.name].close)
        yield workers, missing


def found_settings(workers: dict[str, Worker], *, search: bool) -> dict[str, Timed]:
    """Each worker at its best setting, warm, with the values that it gives there; without search at its first."""
    return {name: _found_setting(name, worker, search=search) for name, worker in workers.items()}


def _found_setting(name: str, worker: Worker, *, search: bool) -> Timed:
    """Each setting runs once; those close to the fastest run again, and the best time of each counts."""
    timed = Timed(name, {}, versions=worker.versions)
    if not search:
        timed.setting = worker.settings[0]
        timed.values = worker.run(timed.setting, values=True)["values"]
        return timed
    best: list[float] = []
    answers = []
    for setting in worker.settings:
        answers.append(worker.run(setting, values=True))
        best.append(answers[-1]["seconds"])
    if len(best) > 1:
        fastest = min(best)
        for number, setting in enumerate(worker.settings):
            if best[number] <= _CLOSE * fastest:
                best[number] = min(best[number], worker.run(setting)["seconds"])
    chosen = best.index(min(best))
    timed.setting, timed.values = worker.settings[chosen], answers[chosen]["values"]
    timed.searched = [
        {**setting, "seconds": round(seconds, 4)} for setting, seconds in zip(worker.settings, best, strict=True)
    ]
    return timed


def in_turn(workers: dict[str, Worker], timed: dict[str, Timed], rounds: int, *, every: bool = False) -> None:
    """Rounds of all sides, A B C A B C …, each at its setting; ``every`` keeps what each round gives."""
    for number in range(rounds):
        for name, worker in workers.items():
            of = timed[name]
            answer = worker.run(of.setting, values=every or of.values is None)
            of.seconds.append(answer["seconds"])
            of.cpu_seconds.append(answer["cpu_seconds"])
            of.facts.append(answer["facts"])
            of.peak_mb = answer["peak_mb"]
            if of.values is None:
                of.values = answer["values"]
            if every:
                of.every.append(answer["values"])
        say(f"  round {number + 1} of {rounds}: " + ", ".join(f"{n} {t.seconds[-1]:.3g} s" for n, t in timed.items()))


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The median of what each round's pair gives: above 1 ours is the faster."""
    return median(their / our for their, our in zip(theirs, ours, strict=True))


def processes_in_turn(commands: dict[str, list[str]], rounds: int) -> dict[str, Timed]:
    """Whole processes, timed from outside: one to warm the disk's cache, then rounds.

    Raises:
        WorkerError: one failed.
    """
    timed = {name: Timed(name, {}) for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            begin = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - begin
            if done.returncode:
                raise WorkerError(f"{name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
            if number:
                timed[name].seconds.append(seconds)
    return timed


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)
