"""Sets that were read, for the figures of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from instructmining.reading.rows import Source
from instructmining.rules import Rule
from instructmining.scored.scored_file import ScoredRows
from instructmining_report.gathering.scored_set import ScoredSet, read_set
from instructmining_report.options import ReportOptions


@pytest.fixture
def read() -> Iterator[Callable[..., ScoredSet]]:
    """Reads a file, or rows in memory, as a set."""
    with ExitStack() as stores:

        def call(rows: Source, rule: Rule | None = None, **options: object) -> ScoredSet:
            given = ReportOptions(**options)  # type: ignore[arg-type]
            return read_set(ScoredRows(rows), "set", rule, given, stores)

        yield call
