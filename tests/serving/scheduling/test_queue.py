from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from instructmining.bundle import Bundle, Role
from instructmining.inference.batching import Batching
from instructmining.scorer.requests import Texts
from instructmining.tokenizing.truncation import Tokens
from instructmining_serving.scheduling.queue import TextQueue
from instructmining_serving.scheduling.work import Work


@pytest.fixture
def role(small_bundle: Path) -> Role:
    return Bundle.open(small_bundle).role("perplexity", wanted_by="a test")


def work(role: Role, length: int) -> Work:
    return Work([Texts(role, ("nll",), [Tokens(np.ones(length, dtype=np.int64), np.arange(1, length))])])


def taken(queue: TextQueue) -> list[list[int]]:
    """The lengths of each batch, until nothing waits."""
    found = []
    while len(queue):
        found.append([entry.length for entry in queue.take()[1]])
    return found


@pytest.mark.parametrize(
    ("lengths", "on_a_cpu", "on_a_gpu"),
    [
        ([120, 60], [[60], [120]], [[60, 120]]),  # 60 tokens of padding cost more than a run of its own
        ([120, 100], [[100, 120]], [[100, 120]]),
        ([40, 30, 20], [[20, 30, 40]], [[20, 30, 40]]),
        ([120, 118, 110, 50], [[50], [110, 118, 120]], [[50, 110, 118, 120]]),
    ],
)
def test_where_small_batches_are_fast_too_a_text_that_adds_much_padding_has_a_batch_of_its_own(
    role: Role, lengths: Sequence[int], on_a_cpu: list[list[int]], on_a_gpu: list[list[int]]
) -> None:
    for enough, expected in ((128, on_a_cpu), (None, on_a_gpu)):
        queue = TextQueue(Batching(512, {"perplexity": 512}, enough_tokens=enough))
        for length in lengths:
            queue.add(work(role, length))
        assert taken(queue) == expected
