from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructmining_experiments.training.schedule import rate_at, schedule, steps_per_epoch


@given(
    tokens=st.lists(st.integers(1, 2000), min_size=1, max_size=60),
    steps=st.integers(1, 10),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_each_epoch_has_every_row_once_in_the_same_number_of_steps(
    tokens: list[int], steps: int, epochs: int, seed: int
) -> None:
    steps = min(steps, len(tokens))
    found = schedule(np.array(tokens), steps=steps, epochs=epochs, seed=seed)
    assert len(found) == epochs * steps
    for epoch in range(epochs):
        dealt = found[epoch * steps : (epoch + 1) * steps]
        assert sorted(np.concatenate(dealt).tolist()) == list(range(len(tokens)))
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_steps_have_nearly_equal_tokens_and_another_seed_deals_otherwise() -> None:
    tokens = np.arange(1, 201)
    found = schedule(tokens, steps=10, epochs=1, seed=0)
    sums = [tokens[rows].sum() for rows in found]
    assert max(sums) - min(sums) < 0.05 * np.mean(sums)
    again = schedule(tokens, steps=10, epochs=1, seed=0)
    assert all((one == other).all() for one, other in zip(found, again, strict=True))
    assert any(
        (one != other).any() for one, other in zip(found, schedule(tokens, steps=10, epochs=1, seed=1), strict=True)
    )


def test_every_run_has_as_many_steps_as_the_run_with_the_fewest_rows_allows() -> None:
    runs = [np.full(50, 100), np.full(10, 500)]
    assert steps_per_epoch(runs, step_tokens=1000) == 5
    assert steps_per_epoch(runs, step_tokens=100) == 10
    assert steps_per_epoch(runs, step_tokens=10**6) == 1


def test_the_rate_rises_then_falls_linearly() -> None:
    assert [rate_at(step, steps=6, warmup=1 / 3) for step in range(6)] == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    assert rate_at(0, steps=1, warmup=0.1) == 1
