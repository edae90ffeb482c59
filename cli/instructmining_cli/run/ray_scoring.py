"""Scores the shards of a run on the workers of a Ray cluster."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from instructmining import __version__
from instructmining_cli.process.terminal import say, voice
from instructmining_cli.reports.wording import duration, rows_of
from instructmining_cli.run.demo_bundle import demo_bundle
from instructmining_cli.run.scoring import OpenScorers, ScoreRequest, score_files
from instructmining_scale.plan import Plan
from instructmining_scale.ray_pool import Pool, PoolOptions, RayError, connected

_SHARDS_EACH = 4  # of a worker, by default: what a lost one costs is a quarter of its work


@dataclass(frozen=True, slots=True)
class ScoredShard:
    """What a worker says of a shard that it scored."""

    rows: int
    rejected: int
    version: str


class ShardWorker:
    """Scores shards in a process of its own; models stay open from one to the next."""

    def __init__(self, request: ScoreRequest, shards: int, folder: str) -> None:
        """Open nothing yet.

        Args:
            request: of the run.
            shards: how many there are.
            folder: that paths are relative to.
        """
        os.chdir(folder)
        voice().quiet = True
        self._request, self._shards = request, shards
        self._scorers = OpenScorers()

    def score(self, shard: int) -> ScoredShard:
        """Score a shard, or what is left of it."""
        run = score_files(replace(self._request, shard=(shard, self._shards)), scorers=self._scorers)
        return ScoredShard(run.rows_written, run.rejected, __version__)


@dataclass(slots=True)
class Progress:
    """Counts what is done, and says it."""

    shards: int
    done: int
    began: float
    rows: int = 0
    rejected: int = 0
    new: int = 0

    @classmethod
    def of(cls, shards: int, *, done: int) -> Self:
        """Begin."""
        return cls(shards, done, time.monotonic())

    def take(self, shard: int, scored: ScoredShard) -> None:
        """Take a shard.

        Raises:
            RayError: the worker has another version.
        """
        if scored.version != __version__:
            raise RayError(f"a worker has instructmining {scored.version}, this process {__version__}; install one")
        self.done, self.new = self.done + 1, self.new + 1
        self.rows, self.rejected = self.rows + scored.rows, self.rejected + scored.rejected
        left = (time.monotonic() - self.began) / self.new * (self.shards - self.done)
        say(f"shard {shard} ({self.done:,} of {self.shards:,}): {rows_of(scored.rows)}; about {duration(left)} left")


def score_on_ray(request: ScoreRequest, options: PoolOptions, shards: int | None) -> Progress:
    """Score all shards of an input that are not done yet.

    Args:
        request: with a folder as ``out``.
        options: of the workers.
        shards: how many there are; by default four for each worker, or as many as the folder's plan has.

    Raises:
        RayError: Ray is missing, or workers are lost again and again.
        InstructMiningError: as for :func:`score_files`.
    """
    request = replace(request, bundle=str(Path(request.bundle or demo_bundle(say)).absolute()))
    plan = Plan.load(request.out)
    with connected(options.address):
        count = shards or (plan.shards if plan is not None else None)
        pool = Pool(options)
        count = count or _SHARDS_EACH * pool.workers
        missing = _missing(request, count, plan)
        progress = Progress.of(count, done=count - len(missing))
        say(f"{count:,} shards, {len(missing):,} to score, on {pool.workers:,} workers")
        for shard, scored in pool.run(missing, ShardWorker, (request, count, str(Path.cwd()))):
            progress.take(shard, scored)
    return progress


def _missing(request: ScoreRequest, count: int, plan: Plan | None) -> list[int]:
    """Return the shards whose run file is not there; a worker checks that the others are of this run when asked to."""
    shards = range(1, count + 1)
    if plan is None or request.overwrite or plan.shards != count:
        return list(shards)
    folder = Path(request.out)
    return [shard for shard in shards if not (folder / plan.part(shard, spooled=plan.waits)).exists()]
