"""Deals the rows of a run to its steps: equally many steps in every run, of nearly equal tokens and lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def steps_per_epoch(runs: Sequence[NDArray[np.int64]], *, step_tokens: int) -> int:
    """Return into how many steps each run divides an epoch.

    Args:
        runs: tokens of each row, int64 (rows,), by run.
        step_tokens: wanted of a step.
    """
    mean = float(np.mean([tokens.sum() for tokens in runs]))
    return max(1, min(round(mean / step_tokens), *(len(tokens) for tokens in runs)))


def schedule(tokens: NDArray[np.int64], *, steps: int, epochs: int, seed: int) -> list[NDArray[np.int64]]:
    """Return the rows of each step, over all epochs; each epoch sees every row once.

    In each epoch the rows, sorted by length, are dealt out ``steps`` at a time, each to another step drawn at random.
    So every step has short and long rows in the same shares, and no step is of long rows alone.

    Args:
        tokens: of each row, int64 (rows,).
        steps: of an epoch; at most the number of rows.
        epochs: how often each row is seen.
        seed: of the draws.

    Returns:
        int64 (n,) indices into ``tokens``, for each of the ``epochs * steps`` steps.
    """
    generator = np.random.default_rng(seed)
    found: list[NDArray[np.int64]] = []
    for _ in range(epochs):
        shuffled = generator.permutation(len(tokens))
        by_length = shuffled[np.argsort(-tokens[shuffled], kind="stable")]
        dealt: list[list[int]] = [[] for _ in range(steps)]
        for begin in range(0, len(by_length), steps):
            for step, row in zip(generator.permutation(steps), by_length[begin : begin + steps], strict=False):
                dealt[step].append(int(row))
        found += [np.array(rows, dtype=np.int64) for rows in dealt]
    return found


def rate_at(step: int, *, steps: int, warmup: float) -> float:
    """Return the share of the highest learning rate: a linear rise, then a linear fall that ends after the last step.

    Args:
        step: from 0.
        steps: of the whole run.
        warmup: share of the steps that rise.
    """
    rising = max(1, round(warmup * steps))
    return (step + 1) / rising if step < rising else (steps - step) / (steps - rising)
