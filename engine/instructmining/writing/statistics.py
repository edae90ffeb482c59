"""What a run counts while it goes: rows, tokens, padding, seconds by stage and of the devices."""

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

    rows: float = 0.0  # through the models, those of the window at work counted in part
    batches: int = 0
    texts: int = 0  # equal ones of a window once
    tokens: int = 0  # of those texts
    busy: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # device → seconds it computed

    @property
    def device_seconds(self) -> float:
        """Of all devices."""
        return sum(self.busy.values())


@dataclass(slots=True)
class Statistics:
    """Counters of one run; the run file and the progress line are written from them.

    Stages run side by side in threads, each with counters of its own: the seconds of all add up to more than passed.
    A model pass is named by the roles that it serves and the text, as in ``perplexity+reward:conversation``.
    """

    rows_taken: int = 0  # examples given to the scorer
    rows_computed: float = 0.0  # rows through the models, those of the window at work counted in part
    rows_scored: int = 0
    rows_rejected: int = 0  # examples that the scorer could not score
    neighbours_expected_s: float | None = None  # that the search of the neighbours will take, known when it begins
    others: int | None = None  # rows of another file that are the neighbours
    neighbours_wanted: int = 0  # examples whose neighbours are searched, both sides of a pair counted
    neighbours_done: int = 0  # of these, those whose neighbours are found
    approximation: Approximation | None = None  # what an approximate search found, once it is done
    batches: int = 0
    truncated: Counter[str] = field(default_factory=Counter)  # role → rows of which it saw less than the whole
    texts: Counter[str] = field(default_factory=Counter)  # model pass → texts, equal ones once
    tokens: Counter[str] = field(default_factory=Counter)  # model pass → tokens of those texts
    padded: Counter[str] = field(default_factory=Counter)  # model pass → the same with padding
    scored: Counter[str] = field(default_factory=Counter)  # model pass → tokens whose likelihood was computed
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # by stage
    busy: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # device → seconds it computed
    before: Work = field(default_factory=Work, compare=False)  # what of all this an earlier run did that was cut

    def as_json(self) -> dict[str, Any]:
        """Everything that is counted, to be kept; :attr:`before` is found anew by who goes on."""
        kept = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "before"}
        kept |= {name: dict(value) for name, value in kept.items() if isinstance(value, dict)}
        kept["approximation"] = asdict(self.approximation) if self.approximation else None
        return kept

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on counting from what :meth:`as_json` gave."""
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
        """Share of the computed tokens that was padding, 0..1."""
        padded = self.padded.total()
        return 1 - self.tokens.total() / padded if padded else 0.0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin
