from __future__ import annotations

import orjson
import pytest

from instructmining import Statistics
from instructmining.types import Approximation


@pytest.mark.parametrize("approximation", [None, Approximation("faiss-cpu 1", "HNSW", 512, 0.98, 0.001, 0.04)])
def test_a_run_that_goes_on_counts_from_what_was_kept(approximation: Approximation | None) -> None:
    counts = Statistics(rows_taken=7, rows_computed=6.5, rows_scored=6, rows_rejected=1, approximation=approximation)
    counts.tokens["reward"] += 30
    counts.padded["reward"] += 40
    counts.seconds["read"] += 0.5
    kept = orjson.loads(orjson.dumps(counts.as_json()))
    again = Statistics()
    again.restore(kept)
    assert again == counts
    again.tokens["reward"] += 6
    again.seconds["spool"] += 1.0
    assert again.tokens["reward"] == 36
    assert again.padding_share == pytest.approx(0.1)
    assert counts.tokens["reward"] == 30


def test_the_seconds_of_a_stage_add_up_also_where_it_fails() -> None:
    counts = Statistics()
    for _ in range(2):
        with pytest.raises(KeyError), counts.timed("read"):
            raise KeyError
    first = counts.seconds["read"]
    with counts.timed("read"):
        pass
    assert 0 < first < counts.seconds["read"]
