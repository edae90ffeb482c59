from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from instructmining.inference.devices import Device
from instructmining.inference.sessions import ProductSession, TopKSession
from instructmining.knn import exact as neighbours
from instructmining.knn import tiles as candidates
from instructmining.knn.exact import TopK, estimate_seconds, kth_distances, neighbour_distances
from instructmining.knn.tiles import Products


def numpy_top_k(
    queries: NDArray[np.float32], points: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    products = queries @ points.T
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(products, order, axis=1), order


def numpy_products(queries: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    return queries @ points.T


@pytest.fixture(scope="module", params=["numpy top-k", "top-k session", "numpy products", "product session"])
def search(request: pytest.FixtureRequest) -> TopK | Products:
    searches: dict[str, Callable[[], TopK | Products]] = {
        "numpy top-k": lambda: numpy_top_k,
        "top-k session": lambda: TopKSession(Device("cpu", threads=1)),
        "numpy products": lambda: Products(numpy_products),
        "product session": lambda: Products(ProductSession(), threads=2),
    }
    return searches[request.param]()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_QUERIES", 7)
    monkeypatch.setattr(neighbours, "_POINTS", 13)
    monkeypatch.setattr(neighbours, "_ROWS", 11)
    monkeypatch.setattr(candidates, "_TILE", 16)


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


def test_the_distance_is_that_to_the_kth_other_row(search: TopK | Products) -> None:
    angles = np.radians([0, 10, 30, 60])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    chord = {degrees: 2 * np.sin(np.radians(degrees) / 2) for degrees in (10, 20, 30, 50, 60)}
    nearest = [chord[10], chord[10], chord[20], chord[30]]
    second = [chord[30], chord[20], chord[30], chord[50]]
    np.testing.assert_allclose(kth_distances(points, 1, search), nearest, atol=1e-7)
    np.testing.assert_allclose(kth_distances(points, 2, search), second, atol=1e-7)


@pytest.mark.parametrize("k", [1, 6])
def test_distances_equal_brute_force_in_float64(search: TopK | Products, k: int) -> None:
    points = random_points(300, 24)
    found = kth_distances(points, k, search)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, brute_force(points, k), rtol=0, atol=1e-12)


def test_distances_equal_scikit_learn(search: TopK | Products) -> None:
    points = random_points(400, 16, seed=3)
    found, _ = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(points.astype(np.float64)).kneighbors()
    np.testing.assert_allclose(kth_distances(points, 6, search), found[:, 5], atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("rows", [8, 13, 14, 39, 100])
def test_rows_over_several_blocks_give_the_same_distances(search: TopK | Products, rows: int) -> None:
    points = random_points(rows, 8, seed=rows)
    np.testing.assert_allclose(kth_distances(points, 6, search), brute_force(points, 6), rtol=0, atol=1e-12)


def test_as_many_rows_as_the_neighbour_needs_are_enough(search: TopK | Products) -> None:
    points = random_points(7, 8)
    np.testing.assert_allclose(kth_distances(points, 6, search), brute_force(points, 6), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("copies", [7, 12, 40])
def test_duplicates_are_at_distance_zero(search: TopK | Products, copies: int) -> None:
    points = random_points(60, 16)
    points[:copies] = points[0]
    found = kth_distances(points, 6, search)
    assert found[:copies].tolist() == [0.0] * copies
    np.testing.assert_allclose(found, brute_force(points, 6), rtol=0, atol=1e-12)


def test_six_copies_of_a_row_have_their_sixth_neighbour_elsewhere(search: TopK | Products) -> None:
    points = random_points(60, 16)
    points[:6] = points[0]
    found = kth_distances(points, 6, search)
    assert (found > 0.1).all()
    np.testing.assert_allclose(found, brute_force(points, 6), rtol=0, atol=1e-12)


def test_near_duplicates_are_told_apart_where_float32_products_are_not(search: TopK | Products) -> None:
    rng = np.random.default_rng(5)
    points = random_points(60, 32).astype(np.float64)
    points[:9] = points[0] + rng.normal(size=(9, 32)) * 1e-5
    narrow = unit(points)
    found = kth_distances(narrow, 6, search)
    assert (found[:9] < 3e-4).all()
    np.testing.assert_allclose(found, brute_force(narrow, 6), rtol=0, atol=1e-12)


def test_the_points_may_lie_in_a_file(tmp_path_factory: pytest.TempPathFactory, search: TopK | Products) -> None:
    points = random_points(50, 8)
    path = tmp_path_factory.mktemp("points") / "points"
    points.tofile(path)
    mapped = np.memmap(path, dtype=np.float32, mode="r", shape=points.shape)
    np.testing.assert_array_equal(kth_distances(mapped, 6, search), kth_distances(points, 6, search))


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


def test_several_neighbours_cost_one_search_and_each_has_its_column(search: TopK | Products) -> None:
    points = random_points(80, 8)
    points[:20] = points[0]
    found = neighbour_distances(points, (6, 1, 3), search)
    assert found.shape == (80, 3)
    for column, k in enumerate((6, 1, 3)):
        np.testing.assert_allclose(found[:, column], brute_force(points, k), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_a_crowd_that_float32_cannot_tell_apart_is_searched_until_it_is_certain(search: TopK | Products) -> None:
    rng = np.random.default_rng(2)
    points = random_points(200, 32).astype(np.float64)
    points[:90] = points[0] + rng.normal(size=(90, 32)) * 1e-4
    narrow = unit(points)
    for k in (1, 6):
        np.testing.assert_allclose(kth_distances(narrow, k, search), brute_force(narrow, k), rtol=0, atol=1e-12)


def test_rows_in_clusters_with_near_duplicates_in_tiles_of_the_shipped_size() -> None:
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(30, 48))
    points = centres[rng.integers(0, 30, 2500)] + 0.3 * rng.normal(size=(2500, 48))
    points[:200] = points[200:400] + rng.normal(size=(200, 48)) * 10.0 ** rng.uniform(-8, -2, size=(200, 1))
    narrow = unit(points)
    wanted, _ = NearestNeighbors(n_neighbors=6, algorithm="kd_tree").fit(narrow.astype(np.float64)).kneighbors()
    found = neighbour_distances(narrow, (1, 6), Products(ProductSession(), threads=2))
    np.testing.assert_allclose(found, wanted[:, [0, 5]], rtol=0, atol=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_distances_to_other_points_leave_none_out(search: TopK | Products) -> None:
    points, queries = random_points(40, 5, seed=1), random_points(25, 5, seed=2)
    queries[3] = points[7]
    calls: list[tuple[int, int]] = []
    found = neighbour_distances(
        points, (1, 40), search, queries=queries, progress=lambda done, rows: calls.append((done, rows))
    )
    wanted = np.sort(np.linalg.norm(queries[:, None].astype(np.float64) - points[None], axis=2), axis=1)
    np.testing.assert_allclose(found, wanted[:, [0, 39]], rtol=0, atol=1e-7)
    assert found[3, 0] == 0
    assert calls[-1] == (25, 25)
    np.testing.assert_array_equal(neighbour_distances(points, (1, 40), search, queries=queries), found)


@pytest.mark.usefixtures("small_blocks")
def test_vectors_need_not_be_of_one_length(search: TopK | Products) -> None:
    rng = np.random.default_rng(6)
    points = random_points(100, 8) * rng.uniform(0.5, 1.5, size=(100, 1)).astype(np.float32)
    np.testing.assert_allclose(kth_distances(points, 6, search), brute_force(points, 6), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_the_share_of_rows_done_grows_to_all_with_products_in_tiles() -> None:
    calls: list[tuple[int, int]] = []
    points = random_points(100, 4)
    neighbour_distances(points, (2,), Products(numpy_products), progress=lambda done, rows: calls.append((done, rows)))
    assert calls == sorted(calls)
    assert calls[-1] == (100, 100)


def test_the_seconds_estimated_are_those_of_the_products() -> None:
    def slow(queries: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(0.02)
        return queries @ points.T

    points = random_points(6 * candidates._TILE, 2)  # 21 tiles
    for threads in (1, 4):
        assert estimate_seconds(points, Products(slow, threads)) > 21 * 0.02 / threads

    def slow_top_k(
        queries: NDArray[np.float32], _: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        time.sleep(0.02)
        return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)

    blocks = (6 * candidates._TILE) ** 2 / (neighbours._QUERIES * 6 * candidates._TILE)
    assert estimate_seconds(points, slow_top_k) > blocks * 0.02


def test_the_estimate_grows_with_the_square_of_the_rows() -> None:
    """Two threads; the sleep is longer than anything that a busy machine adds."""

    def slow(queries: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(0.2)
        return queries @ points.T

    few, many = (estimate_seconds(random_points(blocks * candidates._TILE, 2), Products(slow, 2)) for blocks in (2, 20))
    assert 35 < many / few < 140  # 210 tiles to 3


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
        patch.setattr(candidates, "_TILE", 1 + seed % 11)
        by_blocks = kth_distances(points, k, numpy_top_k)
        by_tiles = kth_distances(points, k, Products(numpy_products))
    np.testing.assert_allclose(by_blocks, brute_force(points, k), rtol=0, atol=1e-7)
    np.testing.assert_allclose(by_tiles, brute_force(points, k), rtol=0, atol=1e-7)
