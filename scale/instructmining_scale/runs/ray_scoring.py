"""Scores the shards of a run on the workers of a Ray cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from instructmining import __version__
from instructmining.stores.addresses import is_address
from instructmining_scale.plan import Plan
from instructmining_scale.ray_pool import Pool, RayError
from instructmining_scale.runs.host import Host
from instructmining_scale.runs.scoring import OpenScorers, ScoreRequest, score_files
from instructmining_scale.wording import duration, rows_of

_SHARDS_EACH = 4  # of a worker, by default: what a lost one costs is a quarter of its work


@dataclass(frozen=True, slots=True)
class ScoredShard:
    """What a worker says of a shard that it scored."""

    rows: int
    rejected: int
    version: str
    was_there: bool  # finished before, and whole


class ShardWorker:
    """Scores shards in a process of its own; models stay open from one to the next."""

    def __init__(self, request: ScoreRequest, shards: int, folder: str, host: Callable[[], Host] = Host) -> None:
        """Open nothing yet.

        Args:
            request: of the run.
            shards: how many there are.
            folder: that paths are relative to.
            host: makes, in this process, the host of the runs.
        """
        os.chdir(folder)
        self._request, self._shards, self._host = request, shards, host()
        self._scorers = OpenScorers()

    def score(self, shard: int) -> ScoredShard:
        """Score a shard, or what is left of it; of one that is finished, check that it is of this run and whole."""
        request = replace(self._request, shard=(shard, self._shards))
        run = score_files(request, scorers=self._scorers, host=self._host)
        return ScoredShard(run.rows_written, run.rejected, __version__, run.was_finished)


@dataclass(slots=True)
class Progress:
    """Counts what is done, and says it."""

    shards: int
    say: Callable[[str], None]
    rows: int = 0  # of the shards that were scored now
    rejected: int = 0  # likewise
    scored: int = 0  # shards
    there: int = 0  # shards that were finished before
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> int:
        """Shards that no worker has looked at yet."""
        return self.shards - self.scored - self.there

    def take(self, shard: int, scored: ScoredShard) -> None:
        """Take a shard.

        Raises:
            RayError: the worker has another version.
        """
        if scored.version != __version__:
            raise RayError(f"a worker has instructmining {scored.version}, this process {__version__}; install one")
        if scored.was_there:
            self.there += 1
            return
        self.scored += 1
        self.rows, self.rejected = self.rows + scored.rows, self.rejected + scored.rejected
        left_s = (time.monotonic() - self.began) / self.scored * self.left
        done = f"{self.shards - self.left:,} of {self.shards:,}"
        self.say(f"shard {shard} ({done}): {rows_of(scored.rows)}; at most about {duration(left_s)} left")


def score_shards(
    request: ScoreRequest,
    pool: Pool,
    shards: int | None,
    *,
    say: Callable[[str], None],
    host: Callable[[], Host] = Host,
) -> Progress:
    """Score all shards of an input on the cluster that this process is connected to.

    Workers are given all shards, and themselves find out which are finished, whole and of this run.

    Args:
        request: with a bundle, and a folder as ``out``.
        pool: of workers.
        shards: how many there are; by default four for each worker, or as many as the folder's plan has.
        say: called with lines of progress.
        host: makes the host of a worker's runs, in the worker's process.

    Raises:
        RayError: workers are lost again and again.
        InstructMiningError: as for :func:`score_files`.
    """
    bundle = str(request.bundle)
    request = replace(request, bundle=bundle if is_address(bundle) else str(Path(bundle).absolute()))
    plan = Plan.load(request.out)
    count = shards or (_SHARDS_EACH * pool.workers if plan is None else plan.shards)
    progress = Progress(count, say)
    say(f"{count:,} shards on {pool.workers:,} workers")
    for shard, scored in pool.run(range(1, count + 1), ShardWorker, (request, count, str(Path.cwd()), host)):
        progress.take(shard, scored)
    if progress.there:
        say(f"{progress.there:,} of {count:,} shards were finished before, and are whole")
    return progress
