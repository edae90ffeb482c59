from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instructmining.reading.in_memory import windows_given
from instructmining.scorer.scorer import Scorer

ROWS = [{"instruction": "Name a colour.", "output": "Green is a colour."}, {"instruction": "Count.", "output": "One."}]


def test_one_column_of_many_is_computed_alone_with_the_same_numbers(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, indicators="output_length,perplexity,reward,ifd", device="cpu") as scorer:
        expected = [row.columns["reward"] for row in scorer.score(ROWS)]
        (window,) = windows_given(ROWS, len(ROWS))
        requests = scorer.requests().only("reward")
        prepared = requests.prepare(window)
        (part,) = prepared.parts
        assert (part.outputs, len(part.texts)) == (("reward",), 2)
        values = np.array(expected, dtype=np.float32)
        finished = requests.finish(prepared, [{"reward": values}])
    assert list(finished.columns) == ["reward"]
    assert finished.columns["reward"].values.tolist() == pytest.approx(values.tolist())
