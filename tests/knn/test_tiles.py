from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from instructmining.errors import DeviceError
from instructmining.knn import tiles as candidates
from instructmining.knn.tiles import Candidates, Checkpoint, Products, largest_products, tiles_of


def numpy_products(queries: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    return queries @ points.T


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_TILE", 16)


def random_points(rows: int, size: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, size)).astype(np.float32)


def assert_largest(found: Candidates, points: NDArray[np.float32], wanted: int) -> None:
    """Every row's largest products with other rows are there, each with the row it is of, none twice."""
    products = points @ points.T
    np.fill_diagonal(products, -np.inf)
    largest = -np.sort(-products, axis=1)[:, :wanted]
    np.testing.assert_allclose(-np.sort(-found.products, axis=1), largest, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(products, found.where, axis=1), found.products, rtol=1e-5, atol=1e-6)
    assert all(len(set(where)) == wanted for where in found.where.tolist())


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("rows", [6, 16, 17, 40, 333])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_largest_products_of_every_row_are_found(rows: int, threads: int) -> None:
    points = random_points(rows, 8, seed=rows)
    assert_largest(largest_products(points, 5, Products(numpy_products, threads)), points, 5)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("order", [1, -1])
def test_rows_whose_every_tile_beats_the_last_are_found_too(order: int) -> None:
    points = np.linspace(1, 3, 200, dtype=np.float32)[::order, None].copy()
    assert_largest(largest_products(points, 4, Products(numpy_products, 2)), points, 4)


@pytest.mark.usefixtures("small_tiles")
def test_a_row_with_fewer_others_than_wanted_is_filled_with_minus_infinity() -> None:
    found = largest_products(random_points(3, 4), 5, Products(numpy_products))
    assert (np.isinf(found.products).sum(axis=1) == 3).all()


@pytest.mark.usefixtures("small_tiles")
def test_every_pair_of_rows_is_multiplied_once() -> None:
    pairs: list[int] = []

    def counted(queries: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
        pairs.append(len(queries) * len(points))
        return queries @ points.T

    largest_products(random_points(320, 4), 3, Products(counted))
    assert len(pairs) == tiles_of(320) == 210
    assert sum(pairs) == (320 * 320 + 20 * 16 * 16) // 2


@pytest.mark.parametrize("points", [random_points(6000, 4), np.linspace(1, 3, 6000, dtype=np.float32)[:, None]])
def test_memory_holds_tiles_and_a_few_numbers_a_row(
    points: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "_TILE", 128)
    tracemalloc.start()
    try:
        largest_products(points, 5, Products(numpy_products))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    kept, tile = 6000 * 5 * 8, 128 * 128 * 4
    waiting = 6000 * candidates._PENDING * 20  # at most, in every block
    assert peak < 2 * kept + 20 * tile + waiting < 6000 * 6000 * 4 / 30


@pytest.mark.usefixtures("small_tiles")
def test_an_error_in_one_thread_ends_all() -> None:
    calls: list[int] = []

    def failing(queries: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
        calls.append(1)
        if len(calls) == 5:
            raise DeviceError("no more")
        return queries @ points.T

    with pytest.raises(DeviceError, match="no more"):
        largest_products(random_points(1600, 4), 3, Products(failing, 3))
    assert len(calls) < 100 < tiles_of(1600)


@pytest.mark.usefixtures("small_tiles")
def test_the_share_reported_grows_to_the_whole() -> None:
    shares: list[float] = []
    largest_products(random_points(100, 4), 3, Products(numpy_products), report=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(2, 60),
    size=st.integers(1, 5),
    wanted=st.integers(1, 8),
    copies=st.integers(1, 30),
    blocks=st.tuples(st.integers(1, 20), st.integers(1, 3)),
    seed=st.integers(0, 2**31),
)
def test_any_points_in_any_tiles(
    rows: int, size: int, wanted: int, copies: int, blocks: tuple[int, int], seed: int
) -> None:
    wanted = min(wanted, rows - 1)
    points = random_points(rows, size, seed)
    points[:copies] = points[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_TILE", blocks[0])
        patch.setattr(candidates, "_PENDING", blocks[1])
        found = largest_products(points, wanted, Products(numpy_products, 1 + seed % 2))
    assert_largest(found, points, wanted)


# A search that was cut


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("tiles", [1, 60, 170])
def test_a_search_that_was_cut_goes_on_where_it_kept_what_it_found(tmp_path: Path, threads: int, tiles: int) -> None:
    points = random_points(300, 8)
    checkpoint = Checkpoint(tmp_path / "kept.npz", every_s=0.0)
    computed = 0

    def cut_off(queries: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal computed
        if computed >= tiles:
            raise DeviceError("cut")
        computed += 1
        return numpy_products(queries, others)

    with pytest.raises(DeviceError, match="cut"):
        largest_products(points, 5, Products(cut_off), checkpoint=checkpoint)
    after = 0

    def counted(queries: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal after
        after += 1
        return numpy_products(queries, others)

    found = largest_products(points, 5, Products(counted, threads), checkpoint=Checkpoint(tmp_path / "kept.npz"))
    assert_largest(found, points, 5)
    assert tiles_of(300) - tiles <= after <= tiles_of(300) - tiles + 2  # at most what was at work is done again


@pytest.mark.usefixtures("small_tiles")
def test_what_was_kept_of_another_search_is_not_taken(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "kept.npz", every_s=0.0)
    checkpoint.save(3, Candidates(np.zeros((40, 4), dtype=np.float32), np.zeros((40, 4), dtype=np.int32)))
    points = random_points(41, 8)
    assert_largest(largest_products(points, 4, Products(numpy_products), checkpoint=checkpoint), points, 4)


def test_a_search_without_enough_time_to_keep_anything_keeps_nothing(tmp_path: Path) -> None:
    largest_products(random_points(50, 8), 4, Products(numpy_products), checkpoint=Checkpoint(tmp_path / "kept.npz"))
    assert list(tmp_path.iterdir()) == []
