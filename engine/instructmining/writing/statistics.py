"""Counters of a run: rows, tokens, padding, seconds by stage and device."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from instructmining.types import Approximation


@dataclass(slots=True)
class Work:
    """What the models of a run, or of a part of it, have done."""

    rows: float = 0.0  # rows through the models; those of the current window count in part
    batches: int = 0
    texts: int = 0  # distinct texts per window
    tokens: int = 0  # tokens of those texts
    busy: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # device → seconds it computed

    @property
    def device_seconds(self) -> float:
        """Seconds of all devices."""
        return sum(self.busy.values())


@dataclass(slots=True)
class Statistics:
    """Counters of one run, for the run file and the progress line.

    Stages run in parallel threads, each with its own counters, so their seconds add up to more than the elapsed time.
    A model pass is named by its roles and its text, as in ``perplexity+reward:conversation``.
    """

    rows_taken: int = 0  # examples given to the scorer
    rows_computed: float = 0.0  # rows through the models; those of the current window count in part
    rows_scored: int = 0
    rows_rejected: int = 0  # examples that the scorer could not score
    neighbours_expected_s: float | None = None  # expected seconds of the neighbour search, known when it starts
    others: int | None = None  # rows of another file that serve as neighbours
    neighbours_wanted: int = 0  # examples whose neighbours are searched, both sides of a pair counted
    neighbours_done: int = 0  # those of them whose neighbours are found
    approximation: Approximation | None = None  # statistics of an approximate search, once it is done
    batches: int = 0
    truncated: Counter[str] = field(default_factory=Counter)  # role → rows whose text it saw truncated
    texts: Counter[str] = field(default_factory=Counter)  # model pass → distinct texts
    tokens: Counter[str] = field(default_factory=Counter)  # model pass → tokens of those texts
    padded: Counter[str] = field(default_factory=Counter)  # model pass → tokens with padding
    scored: Counter[str] = field(default_factory=Counter)  # model pass → tokens whose likelihood was computed
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # by stage
    busy: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # device → seconds it computed
    before: Work = field(default_factory=Work, compare=False)  # what an earlier, interrupted run did of all this

    def as_json(self) -> dict[str, Any]:
        """Return all counters as JSON, to be restored; without :attr:`before`, which a resumed run computes anew."""
        kept = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "before"}
        kept |= {name: dict(value) for name, value in kept.items() if isinstance(value, dict)}
        kept["approximation"] = asdict(self.approximation) if self.approximation else None
        return kept

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Continue from what :meth:`as_json` returned."""
        for name, value in kept.items():
            counter = getattr(self, name)
            if isinstance(counter, (Counter, defaultdict)):
                counter.update(value)
            else:
                setattr(self, name, value)
        if kept["approximation"] is not None:
            self.approximation = Approximation(**kept["approximation"])
        self.before = Work(self.rows_computed, self.batches, self.texts.total(), self.tokens.total(), self.busy.copy())

    @property
    def padding_share(self) -> float:
        """Share of the computed tokens that is padding, 0..1."""
        padded = self.padded.total()
        return 1 - self.tokens.total() / padded if padded else 0.0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent in the block to a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin
