"""The row pass: windows of rows through tokenizers, models and the indicators of single rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.indicators.columns import row_columns
from instructmining.indicators.plan import Plan
from instructmining.inference.batching import Batching
from instructmining.inference.executor import Executor
from instructmining.inference.streams import count, measure
from instructmining.inference.threads import ahead
from instructmining.tokenizing.windows import TokenizedWindow, WindowBuilder, refusal
from instructmining.types import InputWindow, ScoredWindow
from instructmining.writing.journal import Journal
from instructmining.writing.statistics import Statistics

OnProgress: TypeAlias = Callable[[Statistics], None]


@dataclass(frozen=True, slots=True)
class RowPass:
    """Computes what depends on single rows: reading and tokenizing run ahead in one thread, models in another."""

    plan: Plan
    windows: WindowBuilder
    executor: Executor

    def only(self, columns: Collection[str]) -> RowPass:
        """Return the pass for columns whose roles are open here."""
        plan = self.plan.only(columns)
        return RowPass(plan, self.windows.only(plan), self.executor)

    def run(
        self,
        source: Iterable[InputWindow],
        batching: Batching,
        counts: Statistics,
        report: OnProgress,
        *,
        strict: bool,
        journal: Journal | None,
    ) -> Generator[tuple[ScoredWindow, NDArray[np.float32] | None], None, None]:
        """Yield windows with the columns of the row indicators, and their embeddings."""
        with ExitStack() as stack:
            windows = stack.enter_context(ahead(self._tokenized(source, counts, strict=strict), name="tokens"))
            if self.plan.streams:
                every = measure(
                    windows,
                    self.executor,
                    batching,
                    statistics=counts,
                    report=lambda: report(counts),
                    journal=journal,
                )
                stack.enter_context(closing(every))
            else:
                every = (count(window, counts) for window in windows)
            for measured in every:
                with counts.timed("indicators"):
                    window, embedding = row_columns(measured, self.plan.indicators)
                if strict and window.rejects:
                    raise refusal(window.rejects[0])
                counts.rows_scored += window.rows
                counts.rows_rejected += sum(reject.example is not None for reject in window.rejects)
                report(counts)
                yield window, embedding

    def _tokenized(
        self, source: Iterable[InputWindow], counts: Statistics, *, strict: bool
    ) -> Iterator[TokenizedWindow]:
        windows = iter(source)
        while True:
            with counts.timed("read"):
                taken = next(windows, None)
            if taken is None:
                return
            counts.rows_taken += len(taken.items)
            with counts.timed("tokenize"):
                window = self.windows.build(taken, strict=strict)
            yield window
