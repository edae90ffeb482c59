"""The corpus pass: rows wait on disk until the neighbours of all rows are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from instructmining.indicators.columns import part
from instructmining.inference.batching import Batching
from instructmining.knn.search import NeighbourSearch, pools_of, siblings_of
from instructmining.reading.examples import read_examples
from instructmining.reading.options import ReadOptions
from instructmining.scorer.row_pass import OnProgress, RowPass
from instructmining.types import Column, Position, ScoredWindow
from instructmining.writing.journal import OTHERS, SPOOLED, WRITTEN, Journal
from instructmining.writing.spool import Spool, Vectors
from instructmining.writing.statistics import Statistics

_NEIGHBOURS = "neighbours"


class Spooled(Protocol):
    """Windows and embeddings of a whole run, on disk."""

    @property
    def pairs(self) -> int:
        """Preference pairs in all windows."""

    def embeddings(self) -> NDArray[np.float32]:
        """Return all embeddings, float32 (rows, size)."""

    def windows(self, first: int = 0) -> Iterator[tuple[int, ScoredWindow]]:
        """Yield each window with the place of its first row, from the window of this number on."""


@dataclass(frozen=True, slots=True)
class CorpusPass:
    """Computes the columns that depend on all rows of the run, or on the rows of another file."""

    neighbours: NeighbourSearch
    others: RowPass | None  # embeds the rows of the other file

    def run(
        self,
        windows: Iterator[tuple[ScoredWindow, NDArray[np.float32] | None]],
        batching: Batching,
        counts: Statistics,
        report: OnProgress,
        journal: Journal | None,
    ) -> Iterator[ScoredWindow]:
        """Spool all windows to disk, and yield them once the corpus columns are known."""
        marks = journal.marks if journal is not None else {}
        with ExitStack() as stack:
            others = self.embedded_others(stack, batching, counts, report, journal)
            folder = journal.folder if journal is not None else None
            spool = stack.enter_context(Spool(folder, marks.get(SPOOLED, {}).get("spool")))
            for _ in self.spooled(spool, windows, counts, journal):
                pass
            kept = journal.folder / _NEIGHBOURS if journal is not None else None
            first = marks.get(WRITTEN, {}).get("windows", 0)
            yield from self.finished(spool, counts, report, others=others, kept=kept, first=first)

    def spooled(
        self,
        spool: Spool,
        windows: Iterator[tuple[ScoredWindow, NDArray[np.float32] | None]],
        counts: Statistics,
        journal: Journal | None,
    ) -> Iterator[ScoredWindow]:
        """Write windows and embeddings into a spool; yields each window when it is there, still without its columns."""

        def commit(end: Position | None) -> None:
            if journal is not None:
                mark = {"spool": spool.mark(), "end": asdict(end) if end else None, "statistics": counts.as_json()}
                journal.commit(SPOOLED, mark, spool.files)

        end: Position | None = None
        for window, embedding in windows:
            if not spool.count:
                rows = [example.row for example in window.examples]
                self.neighbours.settings.check_pool([row.fields if row else {} for row in rows])
            with counts.timed("spool"):
                spool.append(window, embedding)
                end = window.end
                yield window
                if journal is not None and journal.due:
                    commit(end)
        if end is not None or (journal is not None and SPOOLED not in journal.marks):
            commit(end)

    def finished(
        self,
        spool: Spooled,
        counts: Statistics,
        report: OnProgress,
        *,
        others: NDArray[np.float32] | None = None,
        kept: Path | None = None,
        first: int = 0,
    ) -> Iterator[ScoredWindow]:
        """Search the neighbours of all rows, and yield the windows with the columns.

        Args:
            spool: all windows of the run.
            counts: kept up to date.
            report: called as the search goes on.
            others: float32 (others, size) embeddings of another file's rows that are the neighbours.
            kept: where distances are kept for a later resume.
            first: number of the first window to yield.
        """
        examples = (example for _, window in spool.windows() for example in window.examples)
        siblings = None
        if spool.pairs:
            siblings = siblings_of(example for _, window in spool.windows() for example in window.examples)
        columns = self.neighbours.columns(
            spool.embeddings(),
            counts,
            lambda: report(counts),
            pools=pools_of(examples, self.neighbours.settings),
            siblings=siblings,
            against=others,
            kept=kept,
        )
        yield from with_columns(spool, columns, first)

    def embedded_others(
        self,
        stack: ExitStack,
        batching: Batching,
        counts: Statistics,
        report: OnProgress,
        journal: Journal | None,
    ) -> NDArray[np.float32] | None:
        """Return the embeddings, on disk, of another file's rows that serve as neighbours; None without such a file."""
        settings = self.neighbours.settings
        if self.others is None or settings.against is None:
            return None
        mark = journal.marks.get(OTHERS) if journal is not None else None
        folder = journal.folder if journal is not None else Path(stack.enter_context(TemporaryDirectory()))
        rows, size = (mark["rows"], mark["size"]) if mark else (0, 0)
        vectors = stack.enter_context(Vectors(folder / "others.f32", rows, size))
        reader = read_examples(
            settings.against,
            options=settings.against_options or ReadOptions(),
            fields=settings.against_fields,
            on_reject=lambda _: None,
        )
        if mark is not None and mark["end"] is not None:
            reader.begin_after(Position(**mark["end"]))

        def commit(end: Position | None, *, done: bool) -> None:
            said = {**vectors.mark(), "end": asdict(end) if end else None, "done": done, "rejected": reader.rejected}
            if journal is not None:
                journal.commit(OTHERS, said, [vectors.file])

        if mark is None or not mark["done"]:
            windows = reader.windows(batching.window_rows)
            measured = self.others.run(
                windows, batching, Statistics(), lambda _: report(counts), strict=False, journal=journal
            )
            end: Position | None = None
            for window, embedding in stack.enter_context(closing(measured)):
                if embedding is not None:
                    vectors.append(embedding)
                end = window.end
                if journal is not None and journal.due:
                    commit(end, done=False)
            commit(end, done=True)
        counts.others = vectors.rows
        return vectors.mapped()


def with_columns(spool: Spooled, columns: Mapping[str, Column], first: int = 0) -> Iterator[ScoredWindow]:
    """Yield the windows of a spool with their part of the columns of all rows, from the window of a number on."""
    for begin, window in spool.windows(first):
        window.columns.update({name: part(column, begin, begin + len(window)) for name, column in columns.items()})
        yield window
