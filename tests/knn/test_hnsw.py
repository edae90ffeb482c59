from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from instructmining.errors import InstructMiningError
from instructmining.knn import hnsw as approximate
from instructmining.knn.exact import neighbour_distances
from instructmining.knn.hnsw import approximate_distances
from instructmining.knn.tiles import Products

with_library = pytest.mark.skipif(
    not approximate.available(), reason="needs faiss: pip install 'instructmining[knn]' in this environment"
)


def numpy_products(queries: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    return queries @ points.T


PRODUCTS = Products(numpy_products)


def unit_points(rows: int, size: int, clusters: int = 40) -> NDArray[np.float32]:
    rng = np.random.default_rng(rows)
    values = rng.normal(size=(clusters, size))[rng.integers(0, clusters, rows)] + rng.normal(size=(rows, size))
    narrow: NDArray[np.float32] = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return narrow


@with_library
def test_nearly_all_distances_are_the_exact_ones_and_none_is_smaller() -> None:
    points = unit_points(3000, 24)
    points[:20] = points[0]
    exact = neighbour_distances(points, (1, 6), PRODUCTS)
    found, approximation = approximate_distances(points, (1, 6), PRODUCTS)
    assert (found >= exact - 1e-12).all()
    assert (found <= exact + 1e-12).mean() > 0.95
    assert approximation.sample_rows == 512
    assert 0.95 < approximation.recall <= 1
    assert approximation.library.startswith("faiss-cpu ")


@with_library
def test_the_recall_reported_is_that_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "_LINKS", 4)
    monkeypatch.setattr(approximate, "_BUILD_BREADTH", 4)
    monkeypatch.setattr(approximate, "_SEARCH_BREADTH", 4)
    points = unit_points(4000, 48)
    exact = neighbour_distances(points, (6,), PRODUCTS)
    found, approximation = approximate_distances(points, (6,), PRODUCTS)
    assert approximation.recall < 0.95
    assert (found <= exact + 1e-12).mean() < 0.9
    errors = found / exact - 1
    assert approximation.mean_error == pytest.approx(errors.mean(), rel=0.3)
    assert 0 < approximation.largest_error <= errors.max() * 1.5


@with_library
def test_every_distance_is_exact_where_all_rows_are_in_the_sample() -> None:
    points = unit_points(300, 8)
    points[:50] = points[0]
    found, approximation = approximate_distances(points, (6, 1), PRODUCTS)
    np.testing.assert_allclose(found, neighbour_distances(points, (6, 1), PRODUCTS), rtol=0, atol=1e-12)
    assert approximation.sample_rows == 300


@with_library
def test_as_many_rows_as_the_neighbour_needs_are_enough_for_the_index() -> None:
    points = unit_points(7, 4)
    found, _ = approximate_distances(points, (6,), PRODUCTS)
    np.testing.assert_allclose(found, neighbour_distances(points, (6,), PRODUCTS), rtol=0, atol=1e-12)


@with_library
def test_the_time_is_estimated_once_and_progress_ends_at_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "_BLOCK", 100)
    said: list[float] = []
    calls: list[tuple[int, int]] = []
    approximate_distances(
        unit_points(250, 4),
        (1,),
        PRODUCTS,
        on_estimate=said.append,
        progress=lambda done, rows: calls.append((done, rows)),
    )
    assert len(said) == 1
    assert said[0] > 0
    assert calls == [(50, 250), (100, 250), (125, 250), (175, 250), (225, 250), (250, 250)]


class ForgetfulIndex:
    """Finds every third row's neighbours only."""

    def __init__(self, *_: int) -> None:
        self.hnsw = SimpleNamespace()
        self._points = np.empty((0, 0), dtype=np.float32)

    def add(self, points: NDArray[np.float32]) -> None:
        self._points = np.concatenate([self._points.reshape(-1, points.shape[1]), points])

    def search(self, vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        distances = np.linalg.norm(vectors[:, None] - self._points[None], axis=2)
        where = np.argsort(distances, axis=1)[:, :k]
        where[np.arange(len(vectors)) % 3 > 0, 2:] = -1
        return distances[:, :k], where


def test_rows_for_which_the_index_finds_too_few_are_searched_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(
        __version__="0", omp_get_max_threads=lambda: 1, omp_set_num_threads=lambda _: None, IndexHNSWFlat=ForgetfulIndex
    )
    monkeypatch.setitem(sys.modules, "faiss", library)
    monkeypatch.setattr(approximate, "_SAMPLE", 40)
    monkeypatch.setattr(approximate, "_COLUMNS", 70)
    points = unit_points(200, 8)
    found, approximation = approximate_distances(points, (3,), PRODUCTS)
    np.testing.assert_allclose(found, neighbour_distances(points, (3,), PRODUCTS), rtol=0, atol=1e-12)
    assert approximation.sample_rows == 40
    assert 0.2 < approximation.recall < 0.9  # of the index alone


def test_a_missing_library_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InstructMiningError, match=r"pip install 'instructmining\[knn\]'"):
        approximate_distances(unit_points(10, 4), (1,), PRODUCTS)
