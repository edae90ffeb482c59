from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instructmining.bundle import Bundle
from instructmining.indicators.columns import rows_of
from instructmining.reading.in_memory import windows_given
from instructmining.rules import Rule
from instructmining.scorer.requests import RowRequests
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


def test_a_bundle_whose_graphs_run_elsewhere_gives_the_columns_from_outputs_that_are_brought(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, indicators = Rule("mine", 1.0, {"reward": -0.5}), ["mtld", "output_length"]
    with Scorer.open(small_bundle, rule=rule, indicators=indicators, device="cpu") as scorer:
        expected = list(scorer.score(ROWS))
    monkeypatch.setattr("onnxruntime.InferenceSession", None)
    requests = RowRequests.elsewhere(Bundle.open(small_bundle), rule, indicators, device_kind="cpu")
    assert requests.columns == scorer.columns
    (window,) = windows_given(ROWS, len(ROWS))
    prepared = requests.prepare(window)
    assert [part.outputs for part in prepared.parts] == [("reward",)]
    values = np.array([row.columns["reward"] for row in expected], dtype=np.float32)
    finished = requests.finish(prepared, [{"reward": values}])
    for found, wanted in zip(rows_of(finished, requests.columns), expected, strict=True):
        assert found.columns == pytest.approx(wanted.columns)
