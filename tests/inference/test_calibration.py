"""The fastest batch size, found on a clock that the test owns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import cast

import numpy as np
import pytest
from windows_by_hand import CONVERSATIONS, DOCUMENTS, EXAMPLE, RESPONSES, part, text

from instructmining.inference.batching import Batching
from instructmining.inference.calibration import calibrated, one_budget
from instructmining.inference.devices import Device
from instructmining.inference.executor import Done, Executor, Job
from instructmining.tokenizing.windows import TokenizedWindow

BATCHING = Batching(512, {"perplexity": 100, "embedding": 100}, width_multiple=1)


class TimedExecutor:
    """Takes for a batch the time that a rule of the test says, and a byte a token, as the largest so far."""

    def __init__(self, seconds: Callable[[Job], float], memory: int | None = None, *, free: int | None = None) -> None:
        self._seconds = seconds
        self._memory = memory
        self._free = free
        self.splits = 0
        self.now = 0.0
        self.widest: set[int] = set()

    def run(self, jobs: Iterable[Job]) -> Iterator[Done]:
        for job in jobs:
            self.widest.add(job.batch.ids.size)
            self.splits += self._memory is not None and job.batch.ids.size > self._memory
            self.now += self._seconds(job)
            yield Done(job, {}, 0.0, Device("cpu"))

    def free_bytes(self) -> int | None:
        return None if self._free is None else self._free - max(self.widest, default=0)


def found(
    seconds: Callable[[Job], float], *, candidates: tuple[int, ...] = (64, 128, 256), texts: int = 200
) -> Batching:
    executor = TimedExecutor(seconds)
    words = [text(*range(1, 9)) for _ in range(texts)]
    window = TokenizedWindow(
        [EXAMPLE] * texts, [part(CONVERSATIONS, words), part(DOCUMENTS, words), part(RESPONSES, words)], None, None
    )
    return calibrated(window, cast(Executor, executor), BATCHING, candidates=candidates, clock=lambda: executor.now)


def test_each_role_gets_the_budget_that_is_fastest_for_it() -> None:
    def seconds(job: Job) -> float:
        best = 128 if job.graph == CONVERSATIONS.role.graph else 256
        return job.batch.ids.size * (1.0 if job.batch.ids.size == best else 2.0) / 1e5

    chosen = found(seconds)
    assert chosen.max_batch_tokens == {"perplexity": 128, "embedding": 256}
    assert (chosen.window_rows, chosen.width_multiple) == (512, 1)


def test_of_equally_fast_budgets_the_smallest_is_taken() -> None:
    assert set(found(lambda job: job.batch.ids.size / 1e5).max_batch_tokens.values()) == {64}


def test_a_gain_within_the_noise_is_none() -> None:
    assert set(found(lambda job: job.batch.ids.size / 1e5 + 0.02 * 64 / 1e5).max_batch_tokens.values()) == {64}


def test_a_constant_cost_of_a_batch_wants_large_ones() -> None:
    assert set(found(lambda _: 1e-3).max_batch_tokens.values()) == {256}


def test_a_budget_larger_than_all_texts_is_not_tried() -> None:
    assert set(found(lambda _: 1e-3, texts=20).max_batch_tokens.values()) == {128}


def test_a_slow_model_is_not_tried_for_long() -> None:
    calls = 0

    def seconds(_: Job) -> float:
        nonlocal calls
        calls += 1
        return 100.0

    found(seconds, texts=16)
    once = 2 * 3  # two roles of 128 tokens: two batches of 64, one of 128
    assert calls == once


def test_one_budget_is_for_all_roles() -> None:
    assert one_budget(BATCHING, 7).max_batch_tokens == {"perplexity": 7, "embedding": 7}


def of_memory(executor: TimedExecutor) -> Batching:
    words = [text(*range(1, 9)) for _ in range(200)]
    window = TokenizedWindow([EXAMPLE] * 200, [part(CONVERSATIONS, words)], None, None)
    clock = lambda: executor.now  # noqa: E731
    return calibrated(window, cast(Executor, executor), BATCHING, candidates=(64, 128, 256), clock=clock)


@pytest.mark.parametrize(("free", "largest"), [(1000, 256), (285, 256), (284, 128), (143, 128), (141, 64), (10, 64)])
def test_a_budget_that_the_free_memory_cannot_hold_is_not_tried(free: int, largest: int) -> None:
    executor = TimedExecutor(lambda _: 1e-3, free=free)
    assert of_memory(executor).max_batch_tokens["perplexity"] == largest
    assert max(executor.widest) == largest


@pytest.mark.parametrize(("memory", "chosen"), [(256, 256), (200, 128), (100, 64), (10, 64)])
def test_a_budget_whose_batches_were_split_for_memory_is_not_chosen(memory: int, chosen: int) -> None:
    executor = TimedExecutor(lambda _: 1e-3, memory)
    assert of_memory(executor).max_batch_tokens["perplexity"] == chosen


@pytest.mark.parametrize("texts", [1, 3])
def test_a_short_window_still_gives_budgets(texts: int) -> None:
    chosen = found(lambda job: float(np.sqrt(job.batch.ids.size)), texts=texts)
    assert set(chosen.max_batch_tokens.values()) == {64}
