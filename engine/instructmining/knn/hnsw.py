"""Approximate distances to the nearest neighbours by a faiss graph index, with its recall measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import InstructMiningError
from instructmining.knn.tiles import Products, Vectors
from instructmining.types import Approximation

Progress: TypeAlias = Callable[[int, int], None]

# Of hierarchical navigable small-world graphs (Malkov & Yashunin, arXiv 1603.09320).
_LINKS = 16
_BUILD_BREADTH = 64
_SEARCH_BREADTH = 64
_BLOCK = 4096  # rows added or searched at a time
_SAMPLE = 512  # rows whose neighbours are also found exactly
_COLUMNS = 16384  # points compared with the sample at a time
_MARGIN = 4  # neighbours beyond those wanted in the exact search of the sample
_SEARCH_SHARE = 0.8  # time to search all rows relative to building the index, measured on 20,000 rows
_SAME = 1e-6  # distances that differ by less are equal


class _Index(Protocol):
    def search(self, vectors: Vectors, k: int, /) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return squared distances and rows of the k nearest, both (vectors, k); −1 for missing rows."""


def approximate_distances(
    points: Vectors,
    ks: Sequence[int],
    products: Products,
    *,
    progress: Progress | None = None,
    on_estimate: Callable[[float], None] | None = None,
) -> tuple[NDArray[np.float64], Approximation]:
    """Return Euclidean distances from each row to its k-th nearest other row, as far as the index finds them.

    Found distances are computed exactly, in float64: a distance is never too small, and too large only where a nearer
    neighbour was missed. The index holds a copy of the points in memory and 0.15 kB of links per row. Several threads
    build it, so it differs between runs.

    Args:
        points: float32 (rows, size), in memory or mapped from a file.
        ks: which neighbours, without the row itself; there must be more rows than each.
        products: computes inner products, for the exact neighbours of the sample; the index uses as many threads.
        progress: called with rows done and rows in all; a row counts half when added, half when searched.
        on_estimate: called once, after the first rows were added, with the seconds expected for the rest.

    Returns:
        float64 (rows, ks), and the statistics of the sample.

    Raises:
        InstructMiningError: faiss is not installed.
    """
    faiss = load_library()
    points, rows, k = np.asarray(points), len(points), max(ks)
    threads = int(faiss.omp_get_max_threads())
    faiss.omp_set_num_threads(products.threads)
    try:
        index = faiss.IndexHNSWFlat(points.shape[1], _LINKS)
        index.hnsw.efConstruction, index.hnsw.efSearch = _BUILD_BREADTH, max(_SEARCH_BREADTH, 2 * k)
        begun = time.perf_counter()
        for begin, end in _blocks(rows):
            index.add(np.ascontiguousarray(points[begin:end]))
            if begin == 0 and on_estimate is not None:
                on_estimate(_rest(time.perf_counter() - begun, end, rows))
            if progress is not None:
                progress(end // 2, rows)
        nearest = np.empty((rows, k), dtype=np.float64)
        for begin, end in _blocks(rows):
            nearest[begin:end] = _searched(index, points, begin, end, k)
            if progress is not None:
                progress((rows + end) // 2, rows)
    finally:
        faiss.omp_set_num_threads(threads)
    sample = np.sort(np.random.default_rng(0).choice(rows, min(_SAMPLE, rows), replace=False))
    missed = np.setdiff1d(np.flatnonzero(~np.isfinite(nearest[:, -1])), sample)
    for begin in range(0, len(missed), _SAMPLE):  # rows for which the index found too few
        part = missed[begin : begin + _SAMPLE]
        nearest[part] = _exact(points, part, k, products)
    exact = _exact(points, sample, k, products)
    found = nearest[sample]
    result = _measured(found, exact, f"faiss-cpu {faiss.__version__}")
    nearest[sample] = exact
    return nearest[:, [k - 1 for k in ks]], result


def available() -> bool:
    """Return whether faiss is installed."""
    return find_spec("faiss") is not None


def load_library() -> ModuleType:
    """Import faiss, an extra.

    Raises:
        InstructMiningError: it is not installed.
    """
    try:
        return import_module("faiss")  # an extra, and slow to load
    except ImportError as error:
        raise InstructMiningError(
            f"approximate neighbours need the library faiss: {error}; pip install 'instructmining[knn]', or search "
            "exactly (--knn exact)"
        ) from error


def _blocks(rows: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(begin + _BLOCK, rows)) for begin in range(0, rows, _BLOCK))


def _rest(seconds: float, done: int, rows: int) -> float:
    """Return the seconds expected after the first block; a row's cost grows with the logarithm of its number."""
    of_a_row = seconds / done / max(np.log(done), 1)
    return float(of_a_row * rows * np.log(rows) * (1 + _SEARCH_SHARE) - seconds)


def _searched(index: _Index, points: Vectors, begin: int, end: int, k: int) -> NDArray[np.float64]:
    """Return distances to the k nearest rows found, ascending, inf where too few; float64 (end - begin, k)."""
    vectors = np.ascontiguousarray(points[begin:end])
    _, where = index.search(vectors, k + 1)
    distances = np.empty(where.shape, dtype=np.float64)
    for column in range(k + 1):
        difference = points[where[:, column]].astype(np.float64) - vectors
        distances[:, column] = np.sqrt(np.einsum("rd,rd->r", difference, difference))
    distances[(where == np.arange(begin, end)[:, None]) | (where < 0)] = np.inf
    nearest: NDArray[np.float64] = np.sort(distances, axis=1)[:, :k]
    return nearest


def _exact(points: Vectors, rows: NDArray[np.intp], k: int, products: Products) -> NDArray[np.float64]:
    """Return distances to the k nearest rows, ascending, float64 (rows, k); near ties may be off by float32's error."""
    queries = np.ascontiguousarray(points[rows])
    wanted = k + _MARGIN
    best = np.empty((len(rows), 0), dtype=np.float64)
    for begin in range(0, len(points), _COLUMNS):
        block = np.ascontiguousarray(points[begin : begin + _COLUMNS])
        lengths = np.einsum("rd,rd->r", block, block)
        nearness = 2 * products.compute(queries, block) - lengths  # larger is nearer
        inside = np.flatnonzero((rows >= begin) & (rows < begin + len(block)))
        nearness[inside, rows[inside] - begin] = -np.inf
        kept = min(wanted, len(block))
        where = np.argpartition(nearness, -kept, axis=1)[:, -kept:]
        squared = np.empty(where.shape, dtype=np.float64)
        for column in range(kept):
            difference = block[where[:, column]].astype(np.float64) - queries
            squared[:, column] = np.einsum("rd,rd->r", difference, difference)
        squared[np.isinf(np.take_along_axis(nearness, where, axis=1))] = np.inf
        best = np.sort(np.concatenate([best, squared], axis=1), axis=1)[:, :wanted]
    return np.sqrt(best[:, :k])


def _measured(found: NDArray[np.float64], exact: NDArray[np.float64], library: str) -> Approximation:
    """Compare the sample's approximate distances with the exact ones, both (sample, k) and ascending."""
    near = found <= exact[:, -1:] + _SAME
    finite = np.isfinite(found[:, -1]) & (exact[:, -1] > _SAME)
    errors = found[finite, -1] / exact[finite, -1] - 1 if finite.any() else np.zeros(1)
    return Approximation(
        library=library,
        index=f"HNSW, {_LINKS} links, breadth {_BUILD_BREADTH} to build and {_SEARCH_BREADTH} to search",
        sample_rows=len(exact),
        recall=float(near.mean()),
        mean_error=float(errors.mean()),
        largest_error=float(errors.max()),
    )
