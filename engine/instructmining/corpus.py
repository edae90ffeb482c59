"""The corpus pass: the embeddings of all rows to the columns of the corpus indicators."""

from __future__ import annotations

import tempfile
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Literal, TypeAlias, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.approximate import approximate_distances, load_library
from instructmining.arguments import check_type
from instructmining.candidates import Checkpoint, Products
from instructmining.devices import Device, cpu_threads
from instructmining.errors import RuleError
from instructmining.indicators import CorpusIndicator
from instructmining.names import no_such
from instructmining.neighbours import estimate_seconds, neighbour_distances
from instructmining.plans import DocumentText
from instructmining.reading.options import ReadOptions
from instructmining.records import Approximation, Column, Example
from instructmining.runstats import Statistics
from instructmining.sessions import ProductSession, TopKSession
from instructmining.writing.atomic import write_whole

Search: TypeAlias = Literal["exact", "approx"]
Metric: TypeAlias = Literal["euclidean", "cosine"]
_WORTH_A_WORD = 20_000  # rows; fewer are searched in seconds
_KEEP_S = 20.0  # between two times that distances found so far are kept
_COPIED = 4096  # rows at a time
_ROUNDING = 1e-12  # relative, of a distance that is computed in float64


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Which neighbours a row has, and how far they are."""

    search: Search = "exact"  # "approx": by an index whose recall is measured; not the same in each run
    metric: Metric = "euclidean"  # between unit vectors; "cosine": 1 − cosine, which is half its square
    text: DocumentText = "document"  # what of each row is embedded: all of it, its "prompt", its "response"
    pool: str | None = None  # a field of the rows: neighbours are those that are equal in it; None: all rows of the run
    against: str | None = None  # a file or folder of rows that are the neighbours in place of those of the run
    against_options: ReadOptions | None = None  # how these are read

    def __post_init__(self) -> None:
        """Check that the parts go together.

        Raises:
            RuleError: they do not, or a word is not known.
        """
        check_type("knn: pool", self.pool, (str, NoneType), wanted="a field's name", error=RuleError)
        check_type("knn: against", self.against, (str, Path, NoneType), wanted="the path of a file", error=RuleError)
        for value, words in ((self.search, Search), (self.metric, Metric), (self.text, DocumentText)):
            if value not in get_args(words):
                raise RuleError(f"knn: {value!r} is not known; wanted {', '.join(get_args(words))}")
        if self.pool is not None and self.against is not None:
            raise RuleError("knn: neighbours come from a pool of the run's rows or from another file; give one of them")
        if self.search == "approx" and (self.pool is not None or self.against is not None):
            raise RuleError("knn: an approximate search is one of all rows of the run; search pools and files exactly")

    def check_pool(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Prove, before all rows are scored, that there is something to find a pool by.

        Args:
            rows: the fields of the first rows of the run; none of an example that came from no row.

        Raises:
            RuleError: none of them has the field.
        """
        if self.pool is None or not rows or any(self.pool in fields for fields in rows):
            return
        first = f"the first {len(rows)} rows" if len(rows) > 1 else "the first row"
        missing = no_such("field", self.pool, chain.from_iterable(rows))
        raise RuleError(f"pool (--pool), in {first}: {missing}")


@dataclass(frozen=True, slots=True)
class Pools:
    """Which rows are neighbours of which."""

    of: NDArray[np.int64]  # (rows,) number of each row's pool, −1 where it has none
    names: Sequence[str | None]  # of the pools, for messages; None for one of all rows
    reasons: Mapping[int, str]  # row → why it has none


def pools_of(examples: Iterable[Example], settings: Neighbourhood) -> Pools | None:
    """Which rows are neighbours of which; None where all are. Memory holds a number a row.

    Args:
        examples: of the run, in order; not looked at where all rows are neighbours.
        settings: with the field that parts the pools, and what of a row is embedded.
    """
    if settings.pool is None and settings.text != "prompt":
        return None
    numbers: dict[str | None, int] = {}
    reasons: dict[int, str] = {}
    of = array("q")
    for row, example in enumerate(examples):
        value = example.row.fields.get(settings.pool) if settings.pool is not None and example.row is not None else None
        if settings.text == "prompt" and not any(text.strip() for text in example.prompt_texts):
            reasons[row] = "the prompt is empty"
        elif settings.pool is not None and value is None:
            reasons[row] = f"the row has no field {settings.pool!r} to find its pool by"
        name = None if settings.pool is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        of.append(-1 if row in reasons else numbers.setdefault(name, len(numbers)))
    return Pools(np.array(of, dtype=np.int64), list(numbers), reasons)


def siblings_of(examples: Iterable[Example]) -> NDArray[np.int64]:
    """The place of the other side of a preference pair, int64 (examples,); −1 for an example that is no side of one."""
    of = array("q")
    for place, example in enumerate(examples):
        of.append(-1 if example.side is None else place + 1 if example.side == "chosen" else place - 1)
    return np.array(of, dtype=np.int64)


class NeighbourSearch:
    """Finds the neighbours of every row, as far as indicators need them; one search for all."""

    def __init__(self, indicators: Sequence[CorpusIndicator], settings: Neighbourhood, device: Device) -> None:
        """Open what the search needs.

        Args:
            indicators: with the neighbours that they want.
            settings: which neighbours, how far.
            device: where an exact search runs.

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
        """A column of each indicator.

        Args:
            embeddings: float32 (rows, size) of unit vectors, in memory or mapped from a file.
            counts: takes the time expected, how far it is, and what an approximate search is worth.
            report: called when these have changed.
            pools: where not all rows are neighbours of each other.
            siblings: (rows,) for each row another one of its pool that is no neighbour of it, −1 where there is none.
            against: float32 (others, size) of the rows that are the neighbours in place of these.
            kept: a path beside which distances are kept for a run that is resumed, and taken from where they are there.
        """
        columns = {indicator.column: Column(np.full(len(embeddings), np.nan)) for indicator in self._indicators}
        parts = _parts(len(embeddings), pools)
        counts.neighbours_wanted = len(embeddings)
        with counts.timed("neighbours"):
            found = _Distances(kept, (len(embeddings), len(columns)), counts)
            for number, (name, rows) in enumerate(parts):
                apart = None if siblings is None or against is not None else _places_in(rows, siblings[rows])
                others = np.full(len(rows), len(rows) - 1 if against is None else len(against))
                if apart is not None:
                    others -= apart >= 0
                for indicator in self._indicators:
                    for few in np.unique(others[others < indicator.k]).tolist():
                        reason = _too_few(indicator.k, few, name, against=against is not None)
                        columns[indicator.column].notes.update(dict.fromkeys(rows[others == few].tolist(), reason))
                enough = [at for at, indicator in enumerate(self._indicators) if indicator.k <= others.max(initial=0)]
                if enough and number >= found.parts:
                    ks = [self._indicators[at].k for at in enough]
                    checkpoint = kept.with_name(f"{kept.name}.{number}.npz") if kept is not None else None
                    with _gathered(embeddings, rows) as points:
                        search = partial(self._distances, points, counts=counts, report=report, checkpoint=checkpoint)
                        if apart is None:
                            distances = search(ks, against=against)
                        else:
                            distances = _without_siblings(points, apart, ks, search)
                    distances[others[:, None] < np.array(ks)] = np.nan
                    found.values[np.ix_(rows, np.array(enough))] = distances
                found.keep(number + 1, counts, last=number + 1 == len(parts))
                counts.neighbours_done = sum(len(of) for _, of in parts[: number + 1])
        if pools is not None:
            for column in columns.values():
                column.notes.update(pools.reasons)
        values = found.values if self.settings.metric == "euclidean" else found.values**2 / 2
        return {name: Column(values[:, at], column.notes) for at, (name, column) in enumerate(columns.items())}

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


class _Distances:
    """Distances as they are found, part by part, kept beside a path now and then."""

    def __init__(self, path: Path | None, shape: tuple[int, int], counts: Statistics) -> None:
        self._path = path
        self.parts = 0  # that an earlier run has found
        self._kept_at = time.monotonic()
        if path is None or not path.with_suffix(".json").exists():
            self.values = np.full(shape, np.nan)
            return
        said = orjson.loads(path.with_suffix(".json").read_bytes())
        self.parts = said["parts"]
        counts.approximation = Approximation(**said["approximation"]) if said["approximation"] else None
        self.values = np.fromfile(path.with_suffix(".f64"), dtype=np.float64).reshape(shape)

    def keep(self, parts: int, counts: Statistics, *, last: bool) -> None:
        """The distances, then what says how many parts of them are there."""
        if self._path is None or parts <= self.parts or not (last or time.monotonic() - self._kept_at >= _KEEP_S):
            return
        write_whole(self._path.with_suffix(".f64"), self.values.tobytes())
        approximation = asdict(counts.approximation) if counts.approximation else None
        write_whole(self._path.with_suffix(".json"), orjson.dumps({"parts": parts, "approximation": approximation}))
        self._kept_at = time.monotonic()


def _parts(rows: int, pools: Pools | None) -> list[tuple[str | None, NDArray[np.int64]]]:
    """Rows that are neighbours of each other, with the name of their pool."""
    if pools is None:
        return [(None, np.arange(rows))]
    order = np.argsort(pools.of, kind="stable")
    begins = np.searchsorted(pools.of[order], np.arange(len(pools.names) + 1))
    return [(name, order[begins[at] : begins[at + 1]]) for at, name in enumerate(pools.names)]


def _places_in(rows: NDArray[np.int64], siblings: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where among ascending rows their siblings stand, −1 for a row without one."""
    return np.where(siblings < 0, -1, np.searchsorted(rows, siblings))


def _without_siblings(
    points: NDArray[np.float32],
    siblings: NDArray[np.int64],
    ks: Sequence[int],
    search: Callable[[Sequence[int]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Distances to the k-th nearest other row that is not a row's sibling, float64 (rows, ks).

    Of the rows about a point the k-th without the sibling is the k-th of all, or the one after it where the sibling is
    among the first k, that is not farther than the k-th.
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


def _too_few(k: int, others: int, pool: str | None, *, against: bool) -> str:
    if against:
        return f"{others} rows to compare with; the distance to neighbour {k} needs {k}"
    where = "the run" if pool is None else f"the pool {pool}"
    return f"{others + 1} rows in {where}; the distance to neighbour {k} needs {k + 1}"


@contextmanager
def _gathered(embeddings: NDArray[np.float32], rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """Some of the embeddings one after the other, on disk where they are not all of them."""
    if len(rows) == len(embeddings):
        yield embeddings
        return
    with tempfile.TemporaryFile(prefix="instructmining-") as file:
        for begin in range(0, len(rows), _COPIED):
            file.write(embeddings[rows[begin : begin + _COPIED]].tobytes())
        file.flush()
        yield np.memmap(file, dtype=np.float32, mode="r", shape=(len(rows), embeddings.shape[1]))
