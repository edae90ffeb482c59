"""Finds the fastest batch size on a device with a short calibration on a run's own texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from instructmining.bundle import RoleName
from instructmining.inference.batching import Batching
from instructmining.inference.executor import Executor, Job
from instructmining.tokenizing.truncation import Tokens
from instructmining.tokenizing.windows import StreamTexts, TokenizedWindow

CANDIDATES = {"cpu": (256, 512, 1024), "cuda": (4096, 8192, 16384, 32768, 65536)}  # padded tokens per batch
_ROUNDS = 3  # over all candidates; the best time counts, since other programs can only add to it
_ROLE_S = 10.0  # seconds per role, after which no new round starts
_FULL = 0.9  # share of the free memory that a budget may be expected to take
_GAIN = 0.03  # a larger batch takes more memory and must be faster by this share


def calibrated(
    window: TokenizedWindow,
    executor: Executor,
    batching: Batching,
    *,
    candidates: Sequence[int],
    clock: Callable[[], float] = time.perf_counter,
) -> Batching:
    """Return the batching with the fastest budget of each role on these texts.

    A role's texts are sampled from the window at even steps of length. The smallest budget within 3 % of the fastest
    wins. A budget that does not fit into the device's free memory, judging by what a smaller one took, is not tried.

    Args:
        window: tokenized rows like those to come; a candidate larger than their tokens is skipped.
        executor: runs the batches.
        batching: all other settings.
        candidates: budgets to try, ascending.
        clock: returns seconds.
    """
    found: dict[RoleName, int] = dict(batching.max_batch_tokens)
    tried: set[object] = set()
    for part in window.streams:
        if part.stream.role.name in tried:
            continue
        tried.add(part.stream.role.name)
        texts = _sample(part.texts, 2 * max(candidates))
        tokens = sum(len(text.ids) for text in texts)
        possible = [budget for budget in candidates if budget <= tokens] or [min(candidates)]
        found[part.stream.role.name] = _fastest(part, texts, executor, batching, possible, clock)
    return replace(batching, max_batch_tokens=found)


def one_budget(batching: Batching, max_batch_tokens: int) -> Batching:
    """Return the batching with one budget for all roles."""
    return replace(batching, max_batch_tokens=dict.fromkeys(batching.max_batch_tokens, max_batch_tokens))


def _fastest(
    part: StreamTexts,
    texts: Sequence[Tokens],
    executor: Executor,
    batching: Batching,
    possible: Sequence[int],
    clock: Callable[[], float],
) -> int:
    best: dict[int, float] = {}
    free_before = executor.free_bytes()
    begin = clock()
    for number in range(_ROUNDS):
        if number and clock() - begin > _ROLE_S:
            break
        for budget in possible:
            if best and (number == 0 and not _fits(budget, max(best), free_before, executor.free_bytes())):
                break  # larger ones neither
            splits = executor.splits
            seconds = _seconds(part, texts, executor, one_budget(batching, budget), clock)
            if executor.splits > splits and best:
                break
            best[budget] = min(seconds, best.get(budget, np.inf))
        possible = [budget for budget in possible if budget in best]
    fastest = min(best.values())
    return min(budget for budget in best if best[budget] <= fastest * (1 + _GAIN))


def _fits(budget: int, tried: int, free_before: int | None, free: int | None) -> bool:
    """Return whether a budget fits, judging by the memory that a smaller one took; true where that is not known."""
    if free_before is None or free is None:
        return True
    return (free_before - free) * budget / tried <= _FULL * free_before


def _seconds(
    part: StreamTexts, texts: Sequence[Tokens], executor: Executor, batching: Batching, clock: Callable[[], float]
) -> float:
    role = part.stream.role
    jobs = (Job(role.graph, batch, part.stream.outputs) for batch in batching.of(role, texts))
    begin = clock()
    for _ in executor.run(jobs):
        pass
    return clock() - begin


def _sample(texts: Sequence[Tokens], tokens: int) -> list[Tokens]:
    """Sample texts at even steps of length, of about so many tokens in all."""
    by_length = sorted(texts, key=lambda text: len(text.ids))
    total = sum(len(text.ids) for text in texts)
    count = max(1, min(len(texts), round(len(texts) * tokens / total))) if total else 0
    return [by_length[int((step + 0.5) * len(texts) / count)] for step in range(count)]
