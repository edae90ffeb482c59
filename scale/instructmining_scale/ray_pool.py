"""Runs shards on a fixed pool of Ray actors. What a lost worker, node or driver costs is the shards that it was at."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from instructmining.errors import InstructMiningError

_MOST_TRIES = 4  # of a shard whose worker was lost; then it is taken to be what kills the workers
_ANSWERS_S = 5.0  # in which a cluster's address must answer
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # in the messages of Ray's errors
_WAIT_S = 10.0  # between two looks at whether the cluster still has room for a worker
_NO_ROOM_S = 120.0  # without a worker at work, after which the run ends


class RayError(InstructMiningError):
    """Ray is not installed, has no cluster at the address, no room for a worker, or loses workers again and again."""


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Where shards are scored, and by how many."""

    address: str  # "auto", "local" or HOST:PORT
    workers: int | None = None  # by default one for each GPU, or for each node where there is none
    uses_gpus: bool | None = None  # whether each has a GPU of its own; None: where the cluster has any


class Pool:
    """Actors of one class, each with its own scorer.

    Attributes:
        workers: how many.
    """

    def __init__(self, options: PoolOptions) -> None:
        """Count the room of the cluster that this process is connected to, see :func:`connected`.

        Raises:
            RayError: the cluster has no room for a worker.
        """
        import ray  # noqa: PLC0415 - an extra

        self._ray = ray
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        uses_gpus = bool(gpus) if options.uses_gpus is None else options.uses_gpus
        if uses_gpus and not gpus:
            raise RayError("the cluster has no GPU; give --device cpu, or another address")
        nodes = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())
        self.workers = options.workers or (gpus if uses_gpus else nodes)
        room = gpus if uses_gpus else int(there.get("CPU", 0))
        if not 0 < self.workers <= room:
            what = "GPUs" if uses_gpus else "CPUs"
            raise RayError(f"the cluster has {room} {what}, and {max(1, self.workers)} workers were asked for")
        self._gpus = 1 if uses_gpus else 0

    def run(self, shards: Sequence[int], worker: type, arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Score shards in any order; yields each with what the worker returned, as they are done.

        A shard whose worker is lost is given to another one.

        Args:
            shards: their numbers.
            worker: a class with a method ``score(shard)``, importable on every node.
            arguments: of its constructor.

        Raises:
            RayError: the workers of one shard are lost again and again, or there is no room for any worker.
            InstructMiningError: the error of a shard itself, as the worker raised it.
        """
        ray = self._ray
        actors = ray.remote(worker).options(
            num_gpus=self._gpus, num_cpus=1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        waiting, tries = deque(shards), Counter[int]()
        idle: list[Any] = []
        at_work: dict[Any, tuple[Any, int]] = {}
        waited_s = 0.0
        try:
            while waiting or at_work:
                while waiting and (idle or len(at_work) < self.workers):
                    actor = idle.pop() if idle else actors.remote(*arguments)
                    shard = waiting.popleft()
                    at_work[actor.score.remote(shard)] = (actor, shard)
                done, _ = ray.wait(list(at_work), num_returns=1, timeout=_WAIT_S)
                waited_s = 0.0 if done else self._check_room(waited_s + _WAIT_S)
                for reference in done:
                    actor, shard = at_work.pop(reference)
                    try:
                        result = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        raise _cause(error, shard) from None
                    except ray.exceptions.RayError as error:  # the worker, its node or its result is lost
                        self._end(actor)
                        tries[shard] += 1
                        if tries[shard] == _MOST_TRIES:
                            raise RayError(
                                f"shard {shard}: its worker was lost {_MOST_TRIES} times, last: {_first_line(error)}"
                            ) from None
                        waiting.append(shard)
                        continue
                    idle.append(actor)
                    yield shard, result
        finally:
            for actor in [*idle, *(actor for actor, _ in at_work.values())]:
                self._end(actor)

    def _check_room(self, waited_s: float) -> float:
        """Return the seconds waited; 0 while a node is alive that could have a worker.

        Raises:
            RayError: there was none for too long.
        """
        if any(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in self._ray.nodes()):
            return 0.0
        if waited_s >= _NO_ROOM_S:
            raise RayError(f"for {waited_s:.0f} s the cluster has had no node for a worker; what is done is kept")
        return waited_s

    def _end(self, actor: Any) -> None:  # noqa: ANN401 - Ray's handles have no type of their own
        with suppress(Exception):  # it may be gone
            self._ray.kill(actor, no_restart=True)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine for "local"; inside, handlers of signals are as before.

    Raises:
        RayError: Ray is not installed, or there is no cluster at the address.
    """
    # A driver under uv would upload its folder; a cluster of ours reports nothing to anybody.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise RayError("--ray needs Ray: pip install 'instructmining[ray]'") from error
    _check_address(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    local = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RayError(
            f"no Ray cluster at {address!r}: {_first_line(error)}; start one (ray start --head), or give --ray local"
        ) from error
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Check that something listens at HOST:PORT; Ray itself would try for a minute and then end the process.

    Raises:
        RayError: nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWERS_S).close()
    except OSError as error:
        raise RayError(
            f"no Ray cluster at {address!r}: {error.strerror or error}; start one (ray start --head), or give --ray "
            "local"
        ) from error


def _cause(error: Any, shard: int) -> Exception:  # noqa: ANN401 - an error of Ray's, which is not imported here
    """Return the error that a worker raised, as its own kind where it is one of ours."""
    cause = error.cause
    if isinstance(cause, InstructMiningError):
        return cause
    return RayError(f"shard {shard}: {type(cause).__name__}: {_first_line(cause)}")


def _first_line(error: BaseException) -> str:
    return next(iter(_COLOURS.sub("", str(error)).strip().splitlines()), type(error).__name__)
