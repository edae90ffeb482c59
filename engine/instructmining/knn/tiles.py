"""The largest inner products of every row with the others, in tiles that serve both their rows and their columns.

The matrix of products is symmetric, so only tiles on and above the diagonal are computed. Only products above the
smallest one kept so far for their row or column are processed. Memory holds a few tiles per thread and ``wanted``
products per row.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.writing.atomic import write_whole

Vectors: TypeAlias = NDArray[np.float32]  # (rows, size)
Report: TypeAlias = Callable[[float], None]  # called with the share done, 0..1

_TILE = 1024  # rows and columns of a tile: 4 MB of products, which fit in the processor's cache
_DENSE = 4  # times as many hits as rows keep: then each row's largest are selected before merging
_PENDING = 8  # average hits per row that wait before a block's rows are merged
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Products:
    """How inner products are computed on the CPU: each call in one thread, by a number of threads in parallel."""

    compute: Callable[[Vectors, Vectors], NDArray[np.float32]]  # (q, size), (p, size) → (q, p)
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Candidates:
    """For each row the other rows with the largest products; missing ones are −inf."""

    products: NDArray[np.float32]  # (rows, wanted), unordered
    where: NDArray[np.int32]  # (rows, wanted) rows of the points


@dataclass(frozen=True, slots=True)
class _Hits:
    """Products that may be among the largest of their row."""

    rows: NDArray[np.intp]  # (hits,) relative to the block's first row
    columns: NDArray[np.intp]  # (hits,) rows of the points
    products: NDArray[np.float32]  # (hits,)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file with the state of a search, so that a later one can resume."""

    path: Path
    every_s: float = 20.0

    def load(self, rows: int, wanted: int) -> tuple[int, Candidates] | None:
        """Return the number of tiles done and their result; None where nothing was saved."""
        if not self.path.exists():
            return None
        with np.load(self.path) as kept:
            found = Candidates(kept["products"], kept["where"])
            return (int(kept["tiles"]), found) if found.products.shape == (rows, wanted) else None

    def save(self, tiles: int, found: Candidates) -> None:
        """Replace the saved state atomically.

        Raises:
            OutputError: the disk refuses it.
        """
        content = io.BytesIO()
        np.savez(content, tiles=tiles, products=found.products, where=found.where)
        write_whole(self.path, content.getbuffer())


def largest_products(
    points: Vectors,
    wanted: int,
    products: Products,
    *,
    report: Report | None = None,
    checkpoint: Checkpoint | None = None,
) -> Candidates:
    """Return the other rows with the largest inner products, for every row.

    Args:
        points: float32 (rows, size), in memory or mapped from a file; fewer than 2**31 rows.
        wanted: products per row.
        products: computes tiles.
        report: called with the share of tiles done, in the calling thread.
        checkpoint: the search resumes from it and saves its state there from time to time.

    Raises:
        OutputError: the disk refuses the checkpoint.
    """
    search = _Search(np.asarray(points), wanted, products)
    if checkpoint is not None and (kept := checkpoint.load(len(points), wanted)) is not None:
        search.restore(*kept)
    with ThreadPoolExecutor(products.threads, thread_name_prefix="instructmining-neighbours") as pool:
        while search.done < search.tiles:
            search.until = time.monotonic() + checkpoint.every_s if checkpoint is not None else math.inf
            workers = [pool.submit(search.work) for _ in range(products.threads)]
            try:
                open_workers = set(workers)
                while open_workers:
                    finished, open_workers = wait(open_workers, timeout=_POLL_S, return_when=FIRST_EXCEPTION)
                    for worker in finished:
                        worker.result()
                    if report is not None:
                        report(search.done / search.tiles)
            finally:
                search.stop()
            search.merge_pending()
            if checkpoint is not None and search.done < search.tiles:
                checkpoint.save(search.done, Candidates(search.products, search.where))
    return Candidates(search.products, search.where)


def tiles_of(rows: int) -> int:
    """Return how many tiles the search computes."""
    blocks = -(-rows // _TILE)
    return blocks * (blocks + 1) // 2


def one_tile(points: Vectors, products: Products) -> None:
    """Do the work of one tile without keeping results, for timing."""
    block = np.ascontiguousarray(points[:_TILE])
    tile = products.compute(block, block)
    most = np.full(len(block), np.inf, dtype=np.float32)
    _places(tile, most[:, None])
    _places(tile, most[None, :])


class _Search:
    """State shared between threads: the next tile, and the products kept for each block of rows."""

    def __init__(self, points: Vectors, wanted: int, products: Products) -> None:
        rows = len(points)
        blocks = -(-rows // _TILE)
        self.products = np.full((rows, wanted), -np.inf, dtype=np.float32)
        self.where = np.zeros((rows, wanted), dtype=np.int32)
        self.tiles = tiles_of(rows)
        self.done = 0
        self.until = math.inf  # clock time after which threads stop at the end of their tile
        self._points = points
        self._compute = products.compute
        self._floor = np.full(rows, -np.inf, dtype=np.float32)  # smallest product kept per row; only grows
        self._pending: list[list[_Hits]] = [[] for _ in range(blocks)]
        self._locks = [Lock() for _ in range(blocks)]
        self._next = Lock()
        self._order = _upper_triangle(blocks)

    def restore(self, done: int, found: Candidates) -> None:
        """Start after the tiles that are done."""
        self.products, self.where = found.products, found.where
        self._floor = found.products.min(axis=1)
        self.done = done
        next(islice(self._order, done, done), None)

    def stop(self) -> None:
        """Stop the threads after their tiles."""
        self.until = -math.inf

    def work(self) -> None:
        """Process tiles until there are none or time is up; at least one."""
        try:
            while (tile := self._take()) is not None:
                self._search_tile(*tile)
                with self._next:
                    self.done += 1
                if time.monotonic() >= self.until:
                    return
        except BaseException:
            self.stop()
            raise

    def merge_pending(self) -> None:
        """Merge the waiting hits."""
        for block in range(len(self._pending)):
            self._merge(block)

    def _take(self) -> tuple[int, int] | None:
        with self._next:
            return next(self._order, None)

    def _search_tile(self, above: int, below: int) -> None:
        first, second = self._block(above), self._block(below)
        tile = self._compute(self._points[first], self._points[second])
        if above == below:
            np.fill_diagonal(tile, -np.inf)  # a row is not its own neighbour
        else:
            self._keep(below, _hits(tile.T, self._floor[second], first.start, self.products.shape[1]))
        self._keep(above, _hits(tile, self._floor[first], second.start, self.products.shape[1]))

    def _block(self, block: int) -> slice:
        return slice(block * _TILE, min((block + 1) * _TILE, len(self._points)))

    def _keep(self, block: int, hits: _Hits) -> None:
        if not len(hits.rows):
            return
        with self._locks[block]:
            waiting = self._pending[block]
            waiting.append(hits)
            # The first hits set the floor that later ones must exceed.
            floorless = self._floor[block * _TILE] == -np.inf
            if floorless or sum(len(part.rows) for part in waiting) >= _PENDING * _TILE:
                self._merge(block)

    def _merge(self, block: int) -> None:
        """Keep the largest of the kept and waiting products; the caller holds the block's lock."""
        waiting, self._pending[block] = self._pending[block], []
        if not waiting:
            return
        rows = np.concatenate([hits.rows for hits in waiting])
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        changed, first, counts = np.unique(rows, return_index=True, return_counts=True)
        place = np.repeat(np.arange(len(changed)), counts)
        column = np.arange(len(rows)) - np.repeat(first, counts)
        block_rows = changed + block * _TILE
        kept, wide = self.products.shape[1], self.products.shape[1] + int(counts.max())
        products = np.full((len(changed), wide), -np.inf, dtype=np.float32)
        where = np.zeros((len(changed), wide), dtype=np.int32)
        products[:, :kept], where[:, :kept] = self.products[block_rows], self.where[block_rows]
        products[place, kept + column] = np.concatenate([hits.products for hits in waiting])[order]
        where[place, kept + column] = np.concatenate([hits.columns for hits in waiting])[order]
        largest = np.argpartition(products, wide - kept, axis=1)[:, wide - kept :]
        self.products[block_rows] = products = np.take_along_axis(products, largest, axis=1)
        self.where[block_rows] = np.take_along_axis(where, largest, axis=1)
        self._floor[block_rows] = products.min(axis=1)


def _upper_triangle(blocks: int) -> Iterator[tuple[int, int]]:
    """Yield the diagonal first, since it gives every row a floor."""
    yield from ((block, block) for block in range(blocks))
    for above in range(blocks):
        yield from ((above, below) for below in range(above + 1, blocks))


def _places(tile: NDArray[np.float32], floor: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns where a tile exceeds the floor; several times as fast as ``np.nonzero``."""
    flat = np.flatnonzero(tile > floor)
    rows = flat // tile.shape[1]
    return rows, flat - rows * tile.shape[1]


def _hits(tile: NDArray[np.float32], floor: NDArray[np.float32], first_column: int, wanted: int) -> _Hits:
    """Return what exceeds its row's floor, on average at most ``max(wanted, _DENSE * wanted)`` per row.

    Args:
        tile: (rows, columns), a computed tile or its transpose.
        floor: (rows,).
        first_column: row of the points that the first column stands for.
        wanted: products kept per row.
    """
    if tile.flags.c_contiguous:
        rows, columns = _places(tile, floor[:, None])
    else:
        columns, rows = _places(tile.T, floor[None, :])
    if len(rows) > _DENSE * wanted * len(tile) and wanted < tile.shape[1]:
        largest = np.argpartition(np.ascontiguousarray(tile), tile.shape[1] - wanted, axis=1)[:, -wanted:]
        rows, columns = np.repeat(np.arange(len(tile)), wanted), largest.ravel()
        over = tile[rows, columns] > floor[rows]
        rows, columns = rows[over], columns[over]
    return _Hits(rows, columns + first_column, tile[rows, columns])
