from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from instructmining import neighbours
from instructmining.neighbours import TopK, kth_distances
from instructmining.sessions import Device, TopKSession


def numpy_top_k(
    queries: NDArray[np.float32], points: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    products = queries @ points.T
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(products, order, axis=1), order


@pytest.fixture(scope="module", params=["numpy", "session"])
def top_k(request: pytest.FixtureRequest) -> TopK:
    return numpy_top_k if request.param == "numpy" else TopKSession(Device("cpu", threads=1))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_QUERIES", 7)
    monkeypatch.setattr(neighbours, "_POINTS", 13)


def unit(values: NDArray[np.float64]) -> NDArray[np.float32]:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    narrow: NDArray[np.float32] = (values / norms).astype(np.float32)
    return narrow


def random_points(rows: int, size: int, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).normal(size=(rows, size)))


def brute_force(points: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    wide = points.astype(np.float64)
    difference = wide[:, None, :] - wide[None, :, :]
    distances = np.sqrt((difference**2).sum(axis=-1))
    np.fill_diagonal(distances, np.inf)
    found: NDArray[np.float64] = np.sort(distances, axis=1)[:, k - 1]
    return found


def test_the_distance_is_that_to_the_kth_other_row(top_k: TopK) -> None:
    angles = np.radians([0, 10, 30, 60])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    chord = {degrees: 2 * np.sin(np.radians(degrees) / 2) for degrees in (10, 20, 30, 50, 60)}
    nearest = [chord[10], chord[10], chord[20], chord[30]]
    second = [chord[30], chord[20], chord[30], chord[50]]
    np.testing.assert_allclose(kth_distances(points, 1, top_k), nearest, atol=1e-7)
    np.testing.assert_allclose(kth_distances(points, 2, top_k), second, atol=1e-7)


@pytest.mark.parametrize("k", [1, 6])
def test_distances_equal_brute_force_in_float64(top_k: TopK, k: int) -> None:
    points = random_points(300, 24)
    found = kth_distances(points, k, top_k)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, brute_force(points, k), rtol=0, atol=1e-12)


def test_distances_equal_scikit_learn(top_k: TopK) -> None:
    points = random_points(400, 16, seed=3)
    found, _ = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(points.astype(np.float64)).kneighbors()
    np.testing.assert_allclose(kth_distances(points, 6, top_k), found[:, 5], atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("rows", [8, 13, 14, 39, 100])
def test_rows_over_several_blocks_give_the_same_distances(top_k: TopK, rows: int) -> None:
    points = random_points(rows, 8, seed=rows)
    np.testing.assert_allclose(kth_distances(points, 6, top_k), brute_force(points, 6), rtol=0, atol=1e-12)


def test_as_many_rows_as_the_neighbour_needs_are_enough(top_k: TopK) -> None:
    points = random_points(7, 8)
    np.testing.assert_allclose(kth_distances(points, 6, top_k), brute_force(points, 6), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("copies", [7, 12, 40])
def test_duplicates_are_at_distance_zero(top_k: TopK, copies: int) -> None:
    points = random_points(60, 16)
    points[:copies] = points[0]
    found = kth_distances(points, 6, top_k)
    assert found[:copies].tolist() == [0.0] * copies
    np.testing.assert_allclose(found, brute_force(points, 6), rtol=0, atol=1e-12)


def test_six_copies_of_a_row_have_their_sixth_neighbour_elsewhere(top_k: TopK) -> None:
    points = random_points(60, 16)
    points[:6] = points[0]
    found = kth_distances(points, 6, top_k)
    assert (found > 0.1).all()
    np.testing.assert_allclose(found, brute_force(points, 6), rtol=0, atol=1e-12)


def test_near_duplicates_are_told_apart_where_float32_products_are_not(top_k: TopK) -> None:
    rng = np.random.default_rng(5)
    points = random_points(60, 32).astype(np.float64)
    points[:9] = points[0] + rng.normal(size=(9, 32)) * 1e-5
    narrow = unit(points)
    found = kth_distances(narrow, 6, top_k)
    assert (found[:9] < 3e-4).all()
    np.testing.assert_allclose(found, brute_force(narrow, 6), rtol=0, atol=1e-12)


def test_the_points_may_lie_in_a_file(tmp_path_factory: pytest.TempPathFactory, top_k: TopK) -> None:
    points = random_points(50, 8)
    path = tmp_path_factory.mktemp("points") / "points"
    points.tofile(path)
    mapped = np.memmap(path, dtype=np.float32, mode="r", shape=points.shape)
    np.testing.assert_array_equal(kth_distances(mapped, 6, top_k), kth_distances(points, 6, top_k))


@pytest.mark.usefixtures("small_blocks")
def test_progress_ends_at_all_rows() -> None:
    calls: list[tuple[int, int]] = []
    kth_distances(random_points(20, 4), 2, numpy_top_k, progress=lambda done, rows: calls.append((done, rows)))
    assert calls == [(7, 20), (14, 20), (20, 20)]


def test_the_session_finds_the_largest_products_in_descending_order() -> None:
    session = TopKSession(Device("cpu", threads=1))
    queries, points = random_points(5, 6, seed=1), random_points(30, 6, seed=2)
    values, indices = session(queries, points, 4)
    wanted, where = numpy_top_k(queries, points, 4)
    np.testing.assert_allclose(values, wanted, atol=1e-6)
    assert indices.dtype == np.int64
    assert indices.tolist() == where.tolist()


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 40),
    size=st.integers(2, 6),
    k=st.integers(1, 8),
    copies=st.integers(1, 20),
    seed=st.integers(0, 2**31),
)
def test_any_points_in_any_blocks_equal_brute_force(rows: int, size: int, k: int, copies: int, seed: int) -> None:
    k = min(k, rows - 1)
    points = random_points(rows, size, seed)
    points[:copies] = points[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_QUERIES", 1 + seed % 9)
        patch.setattr(neighbours, "_POINTS", 1 + seed % 17)
        found = kth_distances(points, k, numpy_top_k)
    np.testing.assert_allclose(found, brute_force(points, k), rtol=0, atol=1e-7)
