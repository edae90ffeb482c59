"""The corpus pass: the embeddings of all rows to the columns of the corpus indicators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.approximate import approximate_distances, load_library
from instructmining.candidates import Checkpoint, Products
from instructmining.devices import Device, cpu_threads
from instructmining.indicators import CorpusIndicator
from instructmining.journal import write_whole
from instructmining.neighbours import estimate_seconds, neighbour_distances
from instructmining.records import Approximation, Column
from instructmining.runstats import Statistics
from instructmining.sessions import ProductSession, TopKSession

Search: TypeAlias = Literal["exact", "approx"]
SEARCHES: tuple[Search, ...] = get_args(Search)
_WORTH_A_WORD = 20_000  # rows; fewer are searched in seconds


class NeighbourSearch:
    """Finds the neighbours of every row among all rows, as far as indicators need them; one search for all."""

    def __init__(self, indicators: Sequence[CorpusIndicator], search: Search, device: Device) -> None:
        """Open what the search needs.

        Args:
            indicators: with the neighbours that they want.
            search: "exact", or "approx" by an index whose recall is measured, on the CPU.
            device: where an exact search runs.

        Raises:
            InstructMiningError: the approximate search needs a library that is not installed.
        """
        self._indicators = tuple(indicators)
        self._products = Products(ProductSession(), cpu_threads())
        self._approximate = search == "approx"
        if self._approximate:
            load_library()
        exact_on_device = device.kind == "cuda" and not self._approximate
        self._search = TopKSession(device) if exact_on_device else self._products

    def columns(
        self,
        embeddings: NDArray[np.float32],
        counts: Statistics,
        report: Callable[[], None],
        kept: Path | None = None,
    ) -> dict[str, Column]:
        """A column of each indicator.

        Args:
            embeddings: float32 (rows, size) of unit vectors, in memory or mapped from a file.
            counts: takes the time expected, how far it is, and what an approximate search is worth.
            report: called when these have changed.
            kept: a path beside which the result is kept for a run that is resumed, and taken from where it is there.
        """
        rows = len(embeddings)
        enough = [indicator for indicator in self._indicators if rows > indicator.k]
        columns = {}
        for indicator in self._indicators:
            if indicator not in enough:
                reason = f"{rows} rows in the run; the distance to neighbour {indicator.k} needs {indicator.k + 1}"
                columns[indicator.column] = Column(np.full(rows, np.nan), dict.fromkeys(range(rows), reason))
        if not enough:
            return columns
        with counts.timed("neighbours"):
            distances = _read(kept, (rows, len(enough)), counts)
            if distances is None:
                distances = self._distances(embeddings, [indicator.k for indicator in enough], counts, report, kept)
                _keep(kept, distances, counts)
        return columns | {indicator.column: Column(distances[:, at]) for at, indicator in enumerate(enough)}

    def _distances(
        self,
        embeddings: NDArray[np.float32],
        ks: Sequence[int],
        counts: Statistics,
        report: Callable[[], None],
        kept: Path | None,
    ) -> NDArray[np.float64]:
        def progress(done: int, _: int) -> None:
            counts.neighbours_done = done
            report()

        def expect(seconds: float) -> None:
            counts.neighbours_expected_s = seconds
            report()

        if self._approximate:
            distances, counts.approximation = approximate_distances(
                embeddings, ks, self._products, progress=progress, on_estimate=expect
            )
            return distances
        if len(embeddings) >= _WORTH_A_WORD:
            expect(estimate_seconds(embeddings, self._search))
        checkpoint = Checkpoint(kept.with_suffix(".npz")) if kept is not None else None
        return neighbour_distances(embeddings, ks, self._search, progress=progress, checkpoint=checkpoint)


def _keep(path: Path | None, distances: NDArray[np.float64], counts: Statistics) -> None:
    """Distances beside the path, then what says that they are whole."""
    if path is None:
        return
    write_whole(path.with_suffix(".f64"), distances.tobytes())
    approximation = asdict(counts.approximation) if counts.approximation else None
    write_whole(path.with_suffix(".json"), orjson.dumps({"approximation": approximation}))


def _read(path: Path | None, shape: tuple[int, int], counts: Statistics) -> NDArray[np.float64] | None:
    if path is None or not path.with_suffix(".json").exists():
        return None
    said = orjson.loads(path.with_suffix(".json").read_bytes())["approximation"]
    counts.approximation = Approximation(**said) if said else None
    return np.fromfile(path.with_suffix(".f64"), dtype=np.float64).reshape(shape)
