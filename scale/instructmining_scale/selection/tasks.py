"""Does tasks on the Ray cluster that this process is connected to, or in this process where it is to none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from instructmining.errors import InstructMiningError
from instructmining_scale.ray_pool import RayError

Item = TypeVar("Item")
Result = TypeVar("Result")
_MOST_TRIES = 4  # of a task whose worker was lost


def cpus() -> int:
    """Return the processors for tasks."""
    ray = _connected()
    return 1 if ray is None else max(1, int(ray.cluster_resources().get("CPU", 1)))


def mapped(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
    """Yield the number and the result of each item, as they are done; a few more are at work than there are CPUs.

    Args:
        function: of a module that all nodes import; done again where a worker or node is lost.
        items: small.

    Raises:
        RayError: a task ends its worker again and again.
        InstructMiningError: as the function raised it.
    """
    ray = _connected()
    if ray is None:
        yield from enumerate(map(function, items))
        return
    task = ray.remote(function).options(num_cpus=1, max_retries=_MOST_TRIES - 1, scheduling_strategy="SPREAD")
    at_once = 2 * cpus()
    at_work: dict[Any, int] = {}
    waiting = iter(enumerate(items))
    try:
        while True:
            for number, item in waiting:
                at_work[task.remote(item)] = number
                if len(at_work) >= at_once:
                    break
            if not at_work:
                return
            done, _ = ray.wait(list(at_work), num_returns=1)
            for reference in done:
                yield at_work.pop(reference), ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InstructMiningError):
            raise error.cause from None
        raise RayError(f"a task of the selection failed: {type(error.cause).__name__}: {error.cause}") from None
    except ray.exceptions.RayError as error:
        raise RayError(f"a task of the selection was lost {_MOST_TRIES} times: {type(error).__name__}") from None
    finally:
        for reference in at_work:
            ray.cancel(reference, force=True)


def _connected() -> Any:  # noqa: ANN401 - Ray is an extra; its module, where this process is connected
    ray = sys.modules.get("ray")
    return ray if ray is not None and ray.is_initialized() else None
