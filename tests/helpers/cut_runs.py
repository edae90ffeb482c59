"""Runs of ``score`` that are killed at random moments and gone on with, against one that nothing disturbs."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, BinaryIO

from instructmining.inference.batching import Batching
from instructmining.scorer import scorer
from instructmining.writing import journal
from instructmining_cli.main import main

CUT = -signal.SIGKILL
_WINDOW_ROWS, _BUDGET_TOKENS = 16, 512
_COMMIT_S = 0.02  # in place of seconds: many commits, so that many kills meet one
_START_S = 30.0
_MOST_RUNS = 100
_FORKING = multiprocessing.get_context("forkserver")  # which has no threads that a fork would lose
_FORKING.set_forkserver_preload(
    ["instructmining.scorer.scorer", "instructmining_scale.runs.scoring", "instructmining_cli.run.terminal_host"]
)


def small_batching(kind: str, roles: list[str], *, max_batch_tokens: int | None = None) -> Batching:  # noqa: ARG001
    """Windows of a few rows, so that a short run has many."""
    return Batching(_WINDOW_ROWS, dict.fromkeys(roles, _BUDGET_TOKENS))  # type: ignore[arg-type]


BAD: dict[str, Callable[[int], bool]] = {
    "some": lambda number: number % 11 == 5,
    "long stretches": lambda number: number % (5 * _WINDOW_ROWS) >= 2 * _WINDOW_ROWS,
    "all": lambda _: True,
}


def write_rows(path: Path, rows: int, seed: int = 0, *, bad_rows: str = "some") -> None:
    """Good rows of many lengths, and bad ones, in each of the ways that are found at different stages."""
    rng = random.Random(seed)
    words = ["the", "of", "to", "and", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with", "as"]
    bad = (b'{"instruction": "cut', b'{"instruction": "x", "output": ""}', b'{"instruction": "x"}', b"\xff\xfe", b"[1]")
    with path.open("wb") as file:
        for number in range(rows):
            if BAD[bad_rows](number):
                file.write(bad[(number if bad_rows != "some" else number // 11) % len(bad)] + b"\n")
                continue
            prompt, answer = (" ".join(rng.choices(words, k=rng.randint(1, most))) for most in (20, 60))
            row = {"instruction": f"{number} {prompt}", "input": "", "output": answer}
            file.write(json.dumps(row).encode() + b"\n" + b"\n" * (number % 29 == 0))


@dataclass(frozen=True)
class Command:
    """One command line, in processes of its own; forked from one that has all loaded, they start at once."""

    arguments: tuple[str, ...]
    file_size: int | None = None  # bytes that a file may have: beyond, the system refuses to write
    pause_after: int = 0  # commits, one a window; then it waits to be cut
    counts: tuple[str, ...] = (journal.WRITTEN,)  # the marks of the commits that count
    said: Path = Path(os.devnull)  # takes standard error

    def run(self, kill_after: float | None = None, signal_number: int = signal.SIGKILL) -> int:
        """The exit code; :data:`CUT` where it was killed."""
        paused = _FORKING.Event()
        child = _FORKING.Process(target=self._child, args=(paused,))
        child.start()
        seconds = kill_after if kill_after is not None else _START_S * 10
        if self.pause_after:
            assert paused.wait(seconds)
        else:
            child.join(seconds)
        if child.is_alive() and child.pid is not None:
            os.kill(child.pid, signal_number)
            child.join()
        assert child.exitcode is not None
        return child.exitcode

    def _child(self, paused: Event) -> None:
        Batching.usual = small_batching  # type: ignore[method-assign, assignment]
        scorer.Batching.usual = small_batching  # type: ignore[method-assign, assignment]
        journal.COMMIT_S = 0 if self.pause_after else _COMMIT_S
        if self.pause_after:
            self._pause(paused)
        if self.file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_size, self.file_size))
        sys.stderr = self.said.open("w", encoding="utf-8")  # until the process ends
        sys.argv = ["instructmining", *self.arguments]
        main()

    def _pause(self, paused: Event) -> None:
        commit, commits = journal.Journal.commit, count(1)

        def counted(kept: journal.Journal, name: str, mark: dict[str, Any], files: Iterable[BinaryIO] = ()) -> None:
            commit(kept, name, mark, files)
            if name in self.counts and next(commits) == self.pause_after:
                paused.set()
                time.sleep(_START_S)

        journal.Journal.commit = counted  # type: ignore[method-assign]


@dataclass
class Tally:
    """What a series of cut runs came to."""

    kills: int = 0
    runs: int = 0  # that ended, each compared to the byte
    from_before: int = 0  # rows that the last part of those did not read again
    commits_met: int = 0  # kills after which a state was there to go on from


def outputs(out: Path) -> dict[str, bytes]:
    """OUT and the rejects."""
    return {name: Path(f"{out}{name}").read_bytes() for name in ("", ".rejects.jsonl")}


def cut_until(kills: int, arguments: list[str], folder: Path, suffix: str, rng: random.Random) -> Tally:
    """Kill runs at random moments, go on with each until it ends, and compare; until there were so many kills."""
    whole = folder / f"whole{suffix}"
    Command(("--version",)).run()  # the first one waits until all is loaded
    begin = time.perf_counter()
    code = Command((*arguments, "-o", str(whole))).run()
    seconds = time.perf_counter() - begin
    assert code in {0, 3}
    wanted = outputs(whole)
    tally = Tally()
    while tally.kills < kills or (not tally.commits_met and tally.runs < _MOST_RUNS):
        out = folder / f"cut-{tally.runs}{suffix}"
        patience = 1.3 * seconds
        while (found := Command((*arguments, "-o", str(out), "--resume")).run(rng.uniform(0, patience))) == CUT:
            patience *= 1.02  # a machine that has become busy gets to the end too
            tally.kills += 1
            tally.commits_met += (Path(f"{out}.partial") / journal.STATE).exists()
        assert found in {code, 0}, found  # 0 where the kill came after all was in place
        assert outputs(out) == wanted, f"{out} differs from {whole}"
        assert not Path(f"{out}.partial").exists()
        counts = json.loads(Path(f"{out}.run.json").read_bytes())["counts"]
        undisturbed = json.loads(Path(f"{whole}.run.json").read_bytes())["counts"]
        tally.from_before += counts.pop("rows_from_before")
        undisturbed.pop("rows_from_before")
        assert counts == undisturbed
        tally.runs += 1
    return tally
