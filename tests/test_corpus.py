"""The corpus pass: one search for all indicators, nulls with reasons, what is said before and after."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from numpy.typing import NDArray

from instructmining import Statistics
from instructmining import corpus as corpus_module
from instructmining.corpus import NeighbourSearch
from instructmining.devices import Device
from instructmining.errors import InstructMiningError
from instructmining.indicators import CorpusIndicator

KNN_1 = CorpusIndicator("knn_1", ("embedding",), k=1)
KNN_6 = CorpusIndicator("knn_6", ("embedding",), k=6)
CPU = Device("cpu", threads=1)


def unit_vectors(rows: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(0).normal(size=(rows, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(points: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)
    return np.sort(distances, axis=1)[:, k]


def test_each_indicator_has_its_neighbours_distance() -> None:
    points, counts = unit_vectors(50), Statistics()
    columns = NeighbourSearch([KNN_1, KNN_6], "exact", CPU).columns(points, counts, lambda: None)
    for indicator in (KNN_1, KNN_6):
        found = columns[indicator.column]
        np.testing.assert_allclose(found.values, brute_force(points, indicator.k), rtol=0, atol=1e-7)
        assert not found.notes
    assert counts.neighbours_done == 50
    assert "neighbours" in counts.seconds
    assert counts.neighbours_expected_s is None  # it takes no time worth a word
    assert counts.approximation is None


def test_too_few_rows_are_said_by_indicator() -> None:
    columns = NeighbourSearch([KNN_1, KNN_6], "exact", CPU).columns(unit_vectors(3), Statistics(), lambda: None)
    assert np.isfinite(columns["knn_1"].values).all()
    assert np.isnan(columns["knn_6"].values).all()
    assert columns["knn_6"].notes[2] == "3 rows in the run; the distance to neighbour 6 needs 7"


def test_a_long_search_says_what_it_will_take_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_WORTH_A_WORD", 50)
    counts = Statistics()
    seen: list[tuple[float | None, int]] = []
    NeighbourSearch([KNN_6], "exact", CPU).columns(
        unit_vectors(60), counts, lambda: seen.append((counts.neighbours_expected_s, counts.neighbours_done))
    )
    expected, done = seen[0]
    assert expected is not None
    assert expected > 0
    assert done == 0


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="the extra [knn] is not installed")
def test_an_approximate_search_says_what_it_is_worth() -> None:
    points, counts = unit_vectors(400), Statistics()
    columns = NeighbourSearch([KNN_6], "approx", CPU).columns(points, counts, lambda: None)
    assert counts.approximation is not None
    assert 0.9 < counts.approximation.recall <= 1
    assert counts.approximation.sample_rows == 400
    found, exact = columns["knn_6"].values, brute_force(points, 6)
    assert (found >= exact - 1e-6).all()


def test_without_its_library_an_approximate_search_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(InstructMiningError, match=r"pip install 'instructmining\[knn\]'"):
        NeighbourSearch([KNN_6], "approx", CPU)
