"""Turns the embeddings of all rows into the columns of the corpus indicators."""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.errors.names import short
from instructmining.indicators import CorpusIndicator
from instructmining.inference.devices import Device, cpu_threads
from instructmining.inference.sessions import ProductSession, TopKSession
from instructmining.knn.exact import estimate_seconds, neighbour_distances
from instructmining.knn.hnsw import approximate_distances, load_library
from instructmining.knn.options import KnnOptions, Metric
from instructmining.knn.pools import pool_distances
from instructmining.knn.tiles import Checkpoint, Products
from instructmining.reading.values import dumps
from instructmining.types import Approximation, Column, Example
from instructmining.writing.atomic import write_whole
from instructmining.writing.statistics import Statistics

_WORTH_A_WORD = 20_000  # rows; fewer are searched within seconds
_KEEP_S = 20.0  # between two checkpoints of the distances found so far
_REPORT_S = 0.1  # minimum seconds between two reports
_COPIED = 4096  # rows copied at a time
_SMALL = 64  # most rows of a pool that is searched together with others of its size
_TOGETHER = 4096  # most rows in such pools that are searched at a time
_IN_MEMORY = 1 << 26  # most bytes of a pool's embeddings that are gathered in memory, not on disk
_ROUNDING = 1e-12  # relative, of a distance computed in float64


@dataclass(frozen=True, slots=True)
class Pools:
    """Which rows are neighbours of which."""

    numbers: NDArray[np.int64]  # (rows,) number of each row's pool, −1 where it has none
    names: Sequence[str | None]  # of the pools, for messages, long ones cut; None for one of all rows
    reasons: Mapping[int, str]  # row → why it has none


def pools_of(examples: Iterable[Example], settings: KnnOptions) -> Pools | None:
    """Return which rows are neighbours of which; None where all are. Memory holds a number per row.

    Args:
        examples: examples of the run, in order; not read where all rows are neighbours.
        settings: the field of the pools, and what of a row is embedded.
    """
    if settings.pool is None and settings.text != "prompt":
        return None
    numbers: dict[str | bytes | None, int] = {}
    names: list[str | None] = []
    reasons: dict[int, str] = {}
    row_numbers = array("q")
    for row, example in enumerate(examples):
        value = example.row.fields.get(settings.pool) if settings.pool is not None and example.row is not None else None
        if settings.text == "prompt" and not any(text.strip() for text in example.prompt_texts):
            reasons[row] = "the prompt is empty"
        elif settings.pool is not None and value is None:
            reasons[row] = f"the row has no field {settings.pool!r} to find its pool by"
        name = None if settings.pool is None else dumps(value, sort_keys=True).decode()
        number = -1 if row in reasons else numbers.setdefault(_key(name), len(numbers))
        if number == len(names):
            names.append(None if name is None else short(name))
        row_numbers.append(number)
    return Pools(np.array(row_numbers, dtype=np.int64), names, reasons)


def _key(name: str | None) -> str | bytes | None:
    """Return the name of a pool, or the digest of a long one, since a field may hold any text."""
    if name is None or short(name) == name:
        return name
    return hashlib.blake2b(name.encode(), digest_size=32).digest()


def siblings_of(examples: Iterable[Example]) -> NDArray[np.int64]:
    """Return the place of the other side of each preference pair, int64 (examples,); −1 for other examples."""
    siblings = array("q")
    for place, example in enumerate(examples):
        siblings.append(-1 if example.side is None else place + 1 if example.side == "chosen" else place - 1)
    return np.array(siblings, dtype=np.int64)


class NeighbourSearch:
    """Finds the neighbours of every row for all indicators in one search."""

    def __init__(self, indicators: Sequence[CorpusIndicator], settings: KnnOptions, device: Device) -> None:
        """Open what the search needs.

        Args:
            indicators: indicators with the neighbours that they need.
            settings: which neighbours, and the metric.
            device: device of an exact search.

        Raises:
            InstructMiningError: the approximate search needs a library that is not installed.
        """
        self.settings = settings
        self._indicators = tuple(indicators)
        self._products = Products(ProductSession(), cpu_threads())
        self._approximate = settings.search == "approx"
        if self._approximate:
            load_library()
        exact_on_device = device.kind == "cuda" and not self._approximate
        self._search = TopKSession(device) if exact_on_device else self._products

    def columns(
        self,
        embeddings: NDArray[np.float32],
        counts: Statistics,
        report: Callable[[], None],
        *,
        pools: Pools | None = None,
        siblings: NDArray[np.int64] | None = None,
        against: NDArray[np.float32] | None = None,
        kept: Path | None = None,
    ) -> dict[str, Column]:
        """Compute a column per indicator.

        Args:
            embeddings: float32 (rows, size) of unit vectors, in memory or mapped from a file.
            counts: updated with the expected time, the progress, and the statistics of an approximate search.
            report: called when these change.
            pools: needed where not all rows are neighbours of each other.
            siblings: (rows,) for each row another one that is not its neighbour, −1 for none.
            against: float32 (others, size) embeddings of other rows that serve as the neighbours.
            kept: distances are stored next to this path for a later resume, and read from there where they exist.
        """
        report = _throttled(reported := report)
        counts.neighbours_wanted = len(embeddings)
        pool_of_row = np.zeros(len(embeddings), dtype=np.int64) if pools is None else pools.numbers
        siblings = None if against is not None else siblings
        others = _others(pool_of_row, siblings, against)
        ks = np.array([indicator.k for indicator in self._indicators])
        with counts.timed("neighbours"):
            found = _Distances(kept, (len(embeddings), len(ks)), counts)
            small = 0 if self.settings.pool is None else _SMALL
            parts = _parts(pool_of_row, small=small)
            for number, part in enumerate(parts):
                before = counts.neighbours_done
                wanted = np.flatnonzero(ks <= others[part].max())
                if len(wanted) and number >= found.parts:
                    task = _Part(part, ks[wanted].tolist(), None if siblings is None else siblings[part])
                    if part.shape[1] <= small:
                        distances = task.together(embeddings)
                    else:
                        checkpoint = kept.with_name(f"{kept.name}.{number}.npz") if kept is not None else None
                        search = partial(self._distances, counts=counts, report=report, checkpoint=checkpoint)
                        distances = task.alone(embeddings, partial(search, against=against))
                    distances[others[part][..., None] < ks[wanted]] = np.nan
                    found.values[part[..., None], wanted] = distances
                found.keep(number + 1, counts, last=number + 1 == len(parts))
                counts.neighbours_done = before + part.size
                report()
        reported()
        pools = pools or Pools(pool_of_row, [None], {})
        is_against = against is not None
        return columns_of(found.values, self._indicators, self.settings.metric, others, pools, against=is_against)

    def _distances(
        self,
        points: NDArray[np.float32],
        ks: Sequence[int],
        *,
        counts: Statistics,
        report: Callable[[], None],
        against: NDArray[np.float32] | None = None,
        checkpoint: Path | None,
    ) -> NDArray[np.float64]:
        before = counts.neighbours_done

        def progress(done: int, _: int) -> None:
            counts.neighbours_done = before + done
            report()

        def expect(seconds: float) -> None:
            counts.neighbours_expected_s = seconds
            report()

        if self._approximate:
            distances, counts.approximation = approximate_distances(
                points, ks, self._products, progress=progress, on_estimate=expect
            )
            return distances
        if against is not None:
            return neighbour_distances(against, ks, self._search, queries=points, progress=progress)
        if len(points) >= _WORTH_A_WORD:
            expect(estimate_seconds(points, self._search))
        kept = Checkpoint(checkpoint) if checkpoint is not None else None
        return neighbour_distances(points, ks, self._search, progress=progress, checkpoint=kept)


@dataclass(frozen=True, slots=True)
class _Part:
    """Pools of one size that are searched together; distances are float64 (pools, rows, ks)."""

    rows: NDArray[np.int64]  # (pools, rows) rows of the embeddings, ascending in each pool
    ks: Sequence[int]
    siblings: NDArray[np.int64] | None  # (pools, rows) rows of the embeddings, −1 for none

    def together(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute distances in small pools, all at once."""
        excluded = None if self.siblings is None else self.siblings[..., None] == self.rows[:, None]
        return pool_distances(embeddings[self.rows], self.ks, excluded)

    def alone(
        self,
        embeddings: NDArray[np.float32],
        search: Callable[[NDArray[np.float32], Sequence[int]], NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """Compute distances in a single pool, by a search that ignores siblings."""
        with _gathered(embeddings, self.rows[0]) as points:
            if self.siblings is None:
                return search(points, self.ks)[None]
            places = _places_in(self.rows[0], self.siblings[0])
            return _without_siblings(points, places, self.ks, partial(search, points))[None]


class _Distances:
    """Distances as they are found, part by part, saved next to a path from time to time."""

    def __init__(self, path: Path | None, shape: tuple[int, int], counts: Statistics) -> None:
        self._path = path
        self.parts = 0  # parts that an earlier run found
        self._kept_at = time.monotonic()
        if path is None or not path.with_suffix(".json").exists():
            self.values = np.full(shape, np.nan)
            return
        said = orjson.loads(path.with_suffix(".json").read_bytes())
        self.parts = said["parts"]
        counts.approximation = Approximation(**said["approximation"]) if said["approximation"] else None
        self.values = np.fromfile(path.with_suffix(".f64"), dtype=np.float64).reshape(shape)

    def keep(self, parts: int, counts: Statistics, *, last: bool) -> None:
        """Save the distances, then the number of parts that they cover."""
        if self._path is None or parts <= self.parts or not (last or time.monotonic() - self._kept_at >= _KEEP_S):
            return
        write_whole(self._path.with_suffix(".f64"), self.values.tobytes())
        approximation = asdict(counts.approximation) if counts.approximation else None
        write_whole(self._path.with_suffix(".json"), orjson.dumps({"parts": parts, "approximation": approximation}))
        self._kept_at = time.monotonic()


def columns_of(
    distances: NDArray[np.float64],
    indicators: Sequence[CorpusIndicator],
    metric: Metric,
    others: NDArray[np.int64],
    pools: Pools,
    *,
    against: bool = False,
) -> dict[str, Column]:
    """Return a column per indicator.

    Args:
        distances: Euclidean, float64 (rows, indicators); NaN where a row has too few neighbours.
        indicators: in the order of the distances.
        metric: of the columns.
        others: (rows,) how many neighbours each row has; −1 for a row without a pool.
        pools: which rows are neighbours of which.
        against: whether the neighbours are the rows of another file.
    """
    values = distances if metric == "euclidean" else distances**2 / 2
    columns = {}
    for at, indicator in enumerate(indicators):
        notes = _too_few_others(indicator.k, others, pools.numbers, pools.names, against=against)
        columns[indicator.column] = Column(values[:, at], {**notes, **pools.reasons})
    return columns


def _throttled(report: Callable[[], None]) -> Callable[[], None]:
    """Return a function that reports at once, then at most ten times a second."""
    due = -math.inf

    def now_and_then() -> None:
        nonlocal due
        if (now := time.monotonic()) >= due:
            due = now + _REPORT_S
            report()

    return now_and_then


def _others(
    pool_of_row: NDArray[np.int64], siblings: NDArray[np.int64] | None, against: NDArray[np.float32] | None
) -> NDArray[np.int64]:
    """Return how many neighbours each row has, (rows,); −1 for a row without a pool."""
    if against is not None:
        return np.where(pool_of_row < 0, -1, len(against))
    sizes = np.bincount(pool_of_row[pool_of_row >= 0], minlength=1)
    others = sizes[pool_of_row] - 1
    if siblings is not None:
        others -= siblings >= 0
    return np.where(pool_of_row < 0, -1, others)


def _parts(pool_of_row: NDArray[np.int64], *, small: int) -> list[NDArray[np.int64]]:
    """Rows that are searched at a time, each (pools, rows): small pools of one size, or a larger one alone.

    Args:
        pool_of_row: (rows,) number of each row's pool, −1 where it has none.
        small: most rows of a small pool.
    """
    order = np.argsort(pool_of_row, kind="stable")
    order = order[np.searchsorted(pool_of_row[order], 0) :]
    sizes = np.bincount(pool_of_row[order])
    begins = np.cumsum(sizes) - sizes
    parts = []
    for size in np.unique(sizes[(sizes > 0) & (sizes <= small)]).tolist():
        rows = order[begins[sizes == size][:, None] + np.arange(size)]
        together = max(_TOGETHER // size, 1)
        parts += [rows[begin : begin + together] for begin in range(0, len(rows), together)]
    large = np.flatnonzero(sizes > small).tolist()
    return parts + [order[None, begins[pool] : begins[pool] + sizes[pool]] for pool in large]


def _places_in(rows: NDArray[np.int64], siblings: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of siblings among ascending rows, −1 where the sibling is not among them."""
    places = np.minimum(np.searchsorted(rows, siblings), len(rows) - 1)
    return np.where(rows[places] == siblings, places, -1)


def _without_siblings(
    points: NDArray[np.float32],
    siblings: NDArray[np.int64],
    ks: Sequence[int],
    search: Callable[[Sequence[int]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Return distances to the k-th nearest other row that is not a row's sibling, float64 (rows, ks).

    The k-th nearest without the sibling is the k-th of all, or the next one where the sibling is among the first k
    (that is, not farther than the k-th).
    """
    most = len(points) - 1
    wanted = sorted({k for k in ks if k <= most} | {k + 1 for k in ks if k < most})
    distances = dict(zip(wanted, search(wanted).T, strict=True))
    with_sibling = np.flatnonzero(siblings >= 0)
    apart = np.full(len(points), np.inf)
    for begin in range(0, len(with_sibling), _COPIED):
        part = with_sibling[begin : begin + _COPIED]
        difference = points[siblings[part]].astype(np.float64) - points[part]
        apart[part] = np.sqrt(np.einsum("rd,rd->r", difference, difference))
    found = []
    for k in ks:
        among = apart <= distances[k] * (1 + _ROUNDING)
        found.append(np.where(among, distances.get(k + 1, np.nan), distances[k]))
    return np.stack(found, axis=1)


def _too_few_others(
    k: int, others: NDArray[np.int64], pool_of_row: NDArray[np.int64], names: Sequence[str | None], *, against: bool
) -> dict[int, str]:
    """Return why rows have no k-th neighbour, by row; omits rows without a pool."""
    reasons: dict[tuple[int, int], str] = {}  # one text for all rows of a pool
    notes = {}
    for row in np.flatnonzero((others < k) & (pool_of_row >= 0)).tolist():
        key = int(pool_of_row[row]), int(others[row])
        if key not in reasons:
            reasons[key] = _too_few(k, key[1], names[key[0]], against=against)
        notes[row] = reasons[key]
    return notes


def _too_few(k: int, others: int, pool: str | None, *, against: bool) -> str:
    if against:
        return f"{others} rows to compare with; the distance to neighbour {k} needs {k}"
    where = "the run" if pool is None else f"the pool {pool}"
    return f"{others + 1} rows in {where}; the distance to neighbour {k} needs {k + 1}"


@contextmanager
def _gathered(embeddings: NDArray[np.float32], rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """Gather some of the embeddings, on disk where they are many."""
    if len(rows) == len(embeddings):
        yield embeddings
        return
    if len(rows) * embeddings.itemsize * embeddings.shape[1] <= _IN_MEMORY:
        yield embeddings[rows]
        return
    with tempfile.TemporaryFile(prefix="instructmining-") as file:
        for begin in range(0, len(rows), _COPIED):
            file.write(embeddings[rows[begin : begin + _COPIED]].tobytes())
        file.flush()
        yield np.memmap(file, dtype=np.float32, mode="r", shape=(len(rows), embeddings.shape[1]))
