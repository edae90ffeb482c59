"""Rows in crowds that float32 cannot tell apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from instructmining.knn import exact as neighbours
from instructmining.knn import near_identical as crowds
from instructmining.knn.exact import neighbour_distances
from instructmining.knn.tiles import Products


def unit(values: NDArray[np.float64]) -> NDArray[np.float32]:
    narrow: NDArray[np.float32] = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return narrow


def brute_force(points: NDArray[np.float32], queries: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    """Distances to other rows, ascending."""
    wide = points.astype(np.float64)
    found = [
        np.sqrt(np.einsum("pd,pd->p", d, d)) for d in (wide - one for one in (wide if queries is None else queries))
    ]
    return np.sort(np.array(found), axis=1)[:, int(queries is None) :]


def numpy_top_k(
    queries: NDArray[np.float32], points: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    products = queries @ points.T
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(products, order, axis=1), order


PRODUCTS = Products(lambda queries, points: queries @ points.T)


def crowded(kind: str) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(1, 24))
    if kind == "crowds in crowds":
        spreads = (1e-4, 1e-6, 1e-7, 3e-8, 1e-9)
        parts = [base + 1e-3 * rng.normal(size=(1, 24)) + e * rng.normal(size=(60, 24)) for e in spreads]
        return unit(np.concatenate([*parts, rng.normal(size=(60, 24))]))
    if kind == "many copies of few":
        return np.repeat(unit(base + 1e-5 * rng.normal(size=(6, 24))), [5, 100, 2, 1, 3, 150], axis=0)
    if kind == "three dimensions":
        return unit(rng.normal(size=(500, 3)))
    return unit(
        np.round(4 * rng.normal(size=(500, 3))) + np.array([100, 0, 0])
    )  # a lattice: as far apart as others, exactly


@pytest.mark.parametrize("kind", ["crowds in crowds", "many copies of few", "three dimensions", "lattice"])
@pytest.mark.parametrize("search", [PRODUCTS, numpy_top_k])
@pytest.mark.parametrize("parted", [0, 2])
def test_distances_in_crowds_equal_brute_force(
    kind: str, search: neighbours.TopK | Products, parted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowds, "_PARTED", parted)
    points = crowded(kind)
    found = neighbour_distances(points, (1, 6), search)
    np.testing.assert_allclose(found, brute_force(points)[:, [0, 5]], rtol=1e-12, atol=0)
    others = neighbour_distances(points, (1, 6), search, queries=points[::7])
    np.testing.assert_allclose(others, brute_force(points, points[::7])[:, [0, 5]], rtol=1e-12, atol=0)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(8, 80),
    exponent=st.integers(-9, -2),
    copies=st.integers(1, 4),
    blocks=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_crowds_in_blocks_of_any_size_equal_brute_force(
    rows: int, exponent: int, copies: int, blocks: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(1 + rows // 20, 8))[rng.integers(0, 1 + rows // 20, rows)]
    points = np.tile(unit(points + 10.0**exponent * rng.normal(size=(rows, 8))), (copies, 1))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_GROUP", "_GROUPS", "_BLOCK_ROWS", "_POINTS", "_TILE"):
            patch.setattr(crowds, name, blocks)
        found = neighbour_distances(points, (1, 6), PRODUCTS)
    np.testing.assert_allclose(found, brute_force(points)[:, [0, 5]], rtol=1e-12, atol=0)


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-4, 1e-3])
def test_a_crowd_takes_no_more_inner_products_than_a_few_times_those_of_other_rows(spread: float) -> None:
    pairs: list[int] = []

    def counted(queries: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
        pairs.append(len(queries) * len(points))
        return queries @ points.T

    rng = np.random.default_rng(0)
    differences: list[int] = []
    original = crowds.Crowds.differences

    def counting(self: crowds.Crowds, rows: NDArray[np.int64], points: NDArray[np.int64]) -> NDArray[np.float64]:
        differences.append(len(rows))
        return original(self, rows, points)

    points = unit(rng.normal(size=(1, 48)) + spread * rng.normal(size=(1500, 48)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crowds.Crowds, "differences", counting)
        neighbour_distances(points, (6,), Products(counted))
    assert sum(pairs) <= 3 * 1500**2
    assert sum(differences) <= 20 * 1500
