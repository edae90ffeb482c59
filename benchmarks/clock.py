"""Checks what a peer computes, then times it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

from pytest_benchmark.fixture import BenchmarkFixture

Result = TypeVar("Result")


class Clock:
    """Times one peer of a group, after its result was checked."""

    def __init__(self, benchmark: BenchmarkFixture) -> None:
        self._benchmark = benchmark

    def __call__(
        self,
        group: str,
        peer: str,
        run: Callable[[], Result],
        check: Callable[[Result], None],
        *,
        rounds: int,
    ) -> None:
        """Run once to warm up and check what comes out, then time ``rounds`` runs; with timing off only the first."""
        self._benchmark.group = group
        self._benchmark.extra_info["peer"] = peer
        if self._benchmark.disabled:
            check(self._benchmark.pedantic(run))
            return
        check(run())
        gc.collect()
        self._benchmark.pedantic(run, rounds=rounds)
