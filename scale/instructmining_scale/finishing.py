"""Finishes the rows of all shards that wait for the neighbours among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from instructmining.indicators import INDICATORS, CorpusIndicator
from instructmining.indicators.columns import predict, rows_of
from instructmining.inference.devices import choose_devices
from instructmining.knn.options import KnnOptions
from instructmining.knn.search import NeighbourSearch, Pools, columns_of, siblings_of
from instructmining.rules import Rule
from instructmining.scorer.corpus_pass import CorpusPass, with_columns
from instructmining.types import Column, Reject, ScoredRow, ScoredWindow
from instructmining.writing.statistics import Statistics
from instructmining_scale.pairs import Pairs, Report
from instructmining_scale.plan import Plan
from instructmining_scale.waiting import WaitingPart, WaitingRows


class Finishing:
    """Searches the neighbours of all rows, at once or in pairs of shards, and finishes the rows."""

    def __init__(self, folder: Path, plan: Plan, parts: Sequence[WaitingPart], device: str) -> None:
        """Take the parts of a run.

        Args:
            folder: that holds them.
            plan: of the run.
            parts: all, in order.
            device: of the search, "auto", "cpu" or "cuda".

        Raises:
            DeviceError: the device does not work here.
        """
        self._plan, self._parts = plan, parts
        self._columns: Sequence[str] = plan.identity["columns"]
        wanted = [INDICATORS[column] for column in self._columns if column in INDICATORS]
        self._corpus = [indicator for indicator in wanted if isinstance(indicator, CorpusIndicator)]
        self._settings = KnnOptions(**plan.identity["knn"])
        self._device = choose_devices(device)[0]
        self.pairs = Pairs(folder, plan, parts, self._corpus, self._device) if self.in_pairs else None

    @property
    def in_pairs(self) -> bool:
        """Whether the search can be done in pairs of shards: exact, and among all rows."""
        settings = self._settings
        return settings.search == "exact" and settings.pool is None and settings.text != "prompt"

    def windows(self, scratch: Path, report: Report) -> Iterator[tuple[list[ScoredRow], list[Reject]]]:
        """Yield the rows and rejects of each window, in the order of the input.

        Pairs that were searched are used, and those that are missing are searched; where none was, all rows are
        searched at once, which takes half the products.

        Args:
            scratch: a folder for what is needed meanwhile.
            report: called as the search goes on.

        Raises:
            OutputError: the disk is full.
        """
        rows = WaitingRows(self._parts, scratch)
        rule = None if self._plan.rule is None else Rule(**self._plan.rule)
        if self.pairs is not None and len(self.pairs.missing) < len(self.pairs.all):
            finished = with_columns(rows, self._of_pairs(rows, self.pairs, report))
        else:
            search = NeighbourSearch(self._corpus, self._settings, self._device)
            finished = CorpusPass(search, None).finished(rows, Statistics(), report)
        for window in finished:
            yield self._finished(window, rule)

    def _of_pairs(self, rows: WaitingRows, pairs: Pairs, report: Report) -> Mapping[str, Column]:
        ks = [indicator.k - 1 for indicator in self._corpus]
        shards = range(1, self._plan.shards + 1)
        distances = np.concatenate([pairs.nearest(shard, report)[:, ks] for shard in shards])
        others = np.full(len(distances), len(distances) - 1)
        if rows.pairs:
            others -= siblings_of(example for _, window in rows.windows() for example in window.examples) >= 0
        distances[others[:, None] < np.array(ks) + 1] = np.nan
        everyone = Pools(np.zeros(len(distances), dtype=np.int64), [None], {})
        return columns_of(distances, self._corpus, self._settings.metric, others, everyone)

    def _finished(self, window: ScoredWindow, rule: Rule | None) -> tuple[list[ScoredRow], list[Reject]]:
        if rule is not None:
            predict(window, rule)
        return list(rows_of(window, self._columns)), window.rejects
