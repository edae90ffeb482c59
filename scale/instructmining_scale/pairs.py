"""Searches the neighbours of all shards' rows in pairs of shards: tasks of their own, whose results are merged."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from instructmining.indicators import CorpusIndicator
from instructmining.indicators.knn import KNN
from instructmining.inference.devices import Device
from instructmining.knn.options import KnnOptions
from instructmining.knn.search import NeighbourSearch, siblings_of
from instructmining.writing.atomic import write_whole
from instructmining.writing.statistics import Statistics
from instructmining_scale.plan import Plan, PlanError
from instructmining_scale.waiting import WaitingPart

Report = Callable[[Statistics], None]


class Pairs:
    """The pairs of shards of a run, and what is known of their neighbours: one file a pair.

    Distances are exact and do not depend on how rows are split over shards: each is computed in float64 from the
    difference of two embeddings.
    """

    def __init__(
        self, folder: Path, plan: Plan, parts: Sequence[WaitingPart], corpus: Sequence[CorpusIndicator], device: Device
    ) -> None:
        """Take the shards.

        Args:
            folder: that holds the parts and the files of pairs.
            plan: of the run.
            parts: of all shards, in order; a shard that is not scored yet may be missing from the disk.
            corpus: the columns of neighbours.
            device: of the search.
        """
        self._folder, self._plan, self._parts = folder, plan, parts
        self._most = max(indicator.k for indicator in corpus)
        near = [KNN[k] for k in range(1, self._most + 1)]
        self._search = NeighbourSearch(near, KnnOptions(), device)

    @property
    def all(self) -> list[tuple[int, int]]:
        """All pairs of shards, counted from 1, a shard with itself among them."""
        shards = range(1, self._plan.shards + 1)
        return [(one, other) for one in shards for other in shards if one <= other]

    @property
    def missing(self) -> list[tuple[int, int]]:
        """The pairs that are not searched yet, or whose parts were scored again since."""
        return [pair for pair in self.all if not self.is_searched(pair)]

    def is_searched(self, pair: tuple[int, int]) -> bool:
        """Return whether there is a file of a pair, and of these parts; what it holds is not read."""
        return self._read(pair, ()) is not None

    def known(self, pair: tuple[int, int]) -> tuple[int, int]:
        """Return a pair of the run's shards.

        Raises:
            PlanError: the run has no such shard.
        """
        if pair[1] > self._plan.shards:
            raise PlanError(f"{self._folder}: has {self._plan.shards} shards, none of the number {pair[1]}")
        return pair

    def products(self, pair: tuple[int, int]) -> int:
        """Return the inner products that a pair takes."""
        one, other = (self._parts[shard - 1] for shard in pair)
        return one.rows * other.rows * (1 if one is other else 2)

    def search(self, pair: tuple[int, int], report: Report) -> None:
        """Search a pair, and write its file.

        Raises:
            OutputError: the disk refuses it.
            OSError: a part cannot be read.
        """
        one, other = (self._parts[shard - 1] for shard in pair)
        content = io.BytesIO()
        if one is other:
            siblings = None
            if one.pairs:
                siblings = siblings_of(example for window in one.windows() for example in window.examples)
            near = self._nearest(one, None, siblings, report)
            np.savez(content, near=near, of=self._key(pair))
        else:
            near, far = self._nearest(one, other, None, report), self._nearest(other, one, None, report)
            np.savez(content, near=near, far=far, of=self._key(pair))
        write_whole(self._path(pair), content.getbuffer())

    def nearest(self, shard: int, report: Report) -> NDArray[np.float64]:
        """Return the distances from a shard's rows to their nearest in all shards, ascending, float64 (rows, most).

        A pair that is missing, or whose file is damaged, is searched.

        Raises:
            OutputError: the disk refuses a pair's file.
        """
        found = np.full((self._parts[shard - 1].rows, self._most), np.inf)
        for other in range(1, self._plan.shards + 1):
            pair, side = ((shard, other), "near") if shard <= other else ((other, shard), "far")
            distances = self._kept(pair, side, len(found))
            if distances is None:
                self.search(pair, report)
                distances = self._kept(pair, side, len(found))
            assert distances is not None
            both = np.concatenate([found, np.where(np.isnan(distances), np.inf, distances)], axis=1)
            found = np.sort(both, axis=1)[:, : self._most]
        return found

    def _key(self, pair: tuple[int, int]) -> str:
        """Return what a pair's file is of: this plan, and the two parts as they are."""
        return " ".join([self._plan.digest, str(self._most), *(self._parts[shard - 1].key for shard in pair)])

    def _kept(self, pair: tuple[int, int], side: str, rows: int) -> NDArray[np.float64] | None:
        """Return the distances of one side of a pair; None where they are not those of its rows."""
        read = self._read(pair, (side,))
        return read[0] if read is not None and read[0].shape == (rows, self._most) else None

    def _read(self, pair: tuple[int, int], names: Sequence[str]) -> list[NDArray[np.float64]] | None:
        """Return what the file of a pair holds under some names; None where it is not there, or not of these parts."""
        try:
            with np.load(self._path(pair)) as kept:
                return [kept[name] for name in names] if str(kept["of"]) == self._key(pair) else None
        except (OSError, EOFError, BadZipFile, zlib.error, ValueError, KeyError):
            return None

    def _nearest(
        self, one: WaitingPart, other: WaitingPart | None, siblings: NDArray[np.int64] | None, report: Report
    ) -> NDArray[np.float64]:
        """Return the distances from rows to the nearest of others, or among themselves; NaN where there are too few."""
        counts = Statistics()
        if not one.rows:
            return np.empty((0, self._most))
        if other is not None and not other.rows:
            return np.full((one.rows, self._most), np.nan)
        columns = self._search.columns(
            one.mapped(),
            counts,
            lambda: report(counts),
            siblings=siblings,
            against=None if other is None else other.mapped(),
        )
        return np.stack([columns[KNN[k].column].values for k in range(1, self._most + 1)], axis=1)

    def _path(self, pair: tuple[int, int]) -> Path:
        return self._folder / f"neighbours-{pair[0]:05}-{pair[1]:05}.npz"
