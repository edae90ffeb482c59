"""Calls of a few rows on a warm scorer."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from instructmining import Example, Scorer


@pytest.mark.benchmark(group="latency")
@pytest.mark.parametrize("rows", [1, 8])
def test_score_a_call(benchmark: BenchmarkFixture, bundle: Path, examples: list[Example], rows: int) -> None:
    with Scorer.open(bundle, indicators=["perplexity"], device="cpu", batches_at_once=1) as scorer:
        assert len(benchmark(lambda: list(scorer.score(examples[:rows])))) == rows
