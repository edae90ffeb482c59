"""What a run counts while it goes: rows, tokens, padding, seconds by stage."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Statistics:
    """Counters of one run; the run file and the progress line are written from them."""

    rows_taken: int = 0  # examples given to the scorer
    rows_scored: int = 0
    rows_rejected: int = 0  # examples that the scorer could not score
    window_share: float = 0.0  # part of the window at work that is computed, 0..1
    window_rows: int = 0
    neighbours_done: int = 0  # rows whose neighbours are found
    truncated: Counter[str] = field(default_factory=Counter)  # role → rows of which it saw less than the whole
    tokens: Counter[str] = field(default_factory=Counter)  # role → tokens run through its graph, padding not counted
    padded_tokens: int = 0  # tokens of all roles with padding
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # by stage

    @property
    def rows_computed(self) -> float:
        """Rows scored, the window at work counted in part."""
        return self.rows_scored + self.window_share * self.window_rows

    @property
    def padding_share(self) -> float:
        """Share of the computed tokens that was padding, 0..1."""
        return 1 - sum(self.tokens.values()) / self.padded_tokens if self.padded_tokens else 0.0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin
