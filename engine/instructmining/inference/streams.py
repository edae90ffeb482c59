"""Measures windows: each stream goes through its graph, and results come back in row order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instructmining.indicators.base import LikelihoodSums, Measurements
from instructmining.inference.batching import Batching
from instructmining.inference.executor import MOST_HELD, Done, Executor, Job
from instructmining.inference.threads import ahead
from instructmining.tokenizing.truncation import Tokens
from instructmining.tokenizing.windows import StreamTexts, TokenizedWindow
from instructmining.types import rows_of_sides
from instructmining.writing.journal import Journal
from instructmining.writing.statistics import Statistics

# Results that may wait while earlier ones are used; each is small, but keeps the rows of its window.
_RESULTS_AHEAD = 64


def measure(
    windows: Iterable[TokenizedWindow],
    executor: Executor,
    batching: Batching,
    *,
    statistics: Statistics,
    report: Callable[[], None],
    journal: Journal | None = None,
) -> Generator[Measurements, None, None]:
    """Compute the plan's streams; yields a window's measurements once its last batch is done, in order.

    Batches of the next window follow without a gap; they run in their own thread, in parallel with the caller. Equal
    texts in a stream of a window are computed once, for all their rows.

    Args:
        windows: tokenized rows, read in that thread.
        executor: runs the batches.
        batching: budgets of all roles.
        statistics: updated with tokens, padding and seconds.
        report: called after each batch, in the calling thread.
        journal: holds outputs of the first batches from an earlier run, which are not computed again; stores the
            outputs of the others.

    Raises:
        ResumeError: the batches differ from those of the earlier run.
    """
    unfinished: deque[WindowResults] = deque()
    earlier = journal.batches if journal is not None else None

    def jobs(of_windows: Iterable[WindowResults]) -> Iterator[Job]:
        for window in of_windows:
            unfinished.append(window)
            yield from window.jobs(batching)

    def results() -> Iterator[_Result | None]:
        """Yield each batch's result; None for a window without texts, once all before it are done."""
        for has_texts, some in groupby(map(WindowResults, windows), key=lambda window: window.missing > 0):
            if not has_texts:
                for window in some:
                    unfinished.append(window)
                    yield None
                continue
            to_do = jobs(some)
            if earlier is not None:
                for job, outputs in earlier.matched(to_do):
                    outputs.check(job.batch)
                    yield _Result(Done(job, outputs.arrays, outputs.seconds, executor.devices[0]), is_new=False)
            for done in executor.run(to_do):
                yield _Result(done, is_new=True)

    with ahead(results(), name="device", depth=_RESULTS_AHEAD, weight=_weight) as found:
        for result in found:
            if result is None:
                yield unfinished.popleft().measurements(statistics)
                continue
            if journal is not None and (result.is_new or journal.batches is not earlier):
                journal.batches.add(result.done.job.batch, result.done.outputs, result.done.seconds)
            unfinished[0].add(result.done, statistics, is_new=result.is_new)
            if not unfinished[0].missing:
                yield unfinished.popleft().measurements(statistics)
            report()


class _Result(NamedTuple):
    done: Done
    is_new: bool  # not from an earlier run


def _weight(result: _Result | None) -> int:
    """Return how many results one counts as: a window of long rows, or of rejects only, blocks the next one."""
    if result is None:
        return _RESULTS_AHEAD
    return max(1, _RESULTS_AHEAD * result.done.job.held // MOST_HELD)


def count(window: TokenizedWindow, statistics: Statistics) -> Measurements:
    """Return what was counted in the texts of a window, in a plan without streams."""
    return WindowResults(window).measurements(statistics)


class WindowResults:
    """Makes the jobs of a window, and collects their results in the same order.

    Whoever batches the texts of several windows together gives each stream its outputs instead.
    """

    def __init__(self, window: TokenizedWindow) -> None:
        self._window = window
        self._rows = rows_of_sides(window.examples)
        self.streams = [StreamResults(part) for part in window.streams]
        self._tokens = sum(len(text.ids) for stream in self.streams for text in stream.texts)
        self._at_work = iter(self.streams)
        self._current: StreamResults | None = None
        self._counted = 0.0  # rows of this window that the statistics already count
        self.missing = sum(len(stream.texts) for stream in self.streams)

    def jobs(self, batching: Batching) -> Iterator[Job]:
        """Yield every batch of every stream; the last one holds the rows."""
        left = self.missing
        for stream in self.streams:
            for job in stream.jobs(batching):
                left -= len(job.batch.members)
                yield job if left else replace(job, held=self._window.bytes)

    def add(self, done: Done, statistics: Statistics, *, is_new: bool) -> None:
        """Take the results of a job, in the order of the jobs."""
        while self._current is None or not self._current.missing:
            self._current = next(self._at_work)
        batch, stream = done.job.batch, self._current.stream
        self._current.add(batch.members, batch.scored[:, 0], done.outputs)
        self.missing -= len(batch.members)
        tokens = int(batch.mask.sum())
        label = "+".join(stream.roles)
        statistics.seconds[f"model:{label}:{stream.text}"] += done.seconds
        statistics.busy[str(done.device)] += done.seconds
        statistics.batches += 1
        statistics.texts[label] += len(batch.members)
        statistics.tokens[label] += tokens
        statistics.padded[label] += batch.ids.size
        statistics.scored[label] += len(batch.scored) if "nll" in done.job.outputs else 0
        share = self._rows * tokens / self._tokens
        statistics.rows_computed += share
        self._counted += share
        if not is_new:
            before = statistics.before
            before.rows += share
            before.batches += 1
            before.texts += len(batch.members)
            before.tokens += tokens
            before.busy[str(done.device)] += done.seconds

    def measurements(self, statistics: Statistics) -> Measurements:
        """Return the measurements of the window, once all results are there."""
        rows = len(self._window.examples)
        window = self._window
        measured = Measurements(
            window.examples,
            window.prompt_tokens,
            window.response_tokens,
            truncated=[[] for _ in range(rows)],
            places=window.places,
            rejects=window.rejects,
            end=window.end,
        )
        for part, results in zip(window.streams, self.streams, strict=True):
            _note_truncated(part, measured)
            results.give(measured)
        for row, (example, names) in enumerate(zip(window.examples, measured.truncated, strict=True)):
            counted = measured.truncated[row - 1] if example.side == "rejected" else ()
            statistics.truncated.update(name for name in names if name not in counted)
        statistics.rows_computed = round(statistics.rows_computed + self._rows - self._counted)
        return measured


class StreamResults:
    """Collects a graph's outputs for the distinct texts of a stream, then gives each row its own."""

    def __init__(self, part: StreamTexts) -> None:
        self.stream = part.stream
        self._owners = part.owners
        self.texts, self._copy_of = _distinct(part.texts)
        self.missing = len(self.texts)
        self._nll = LikelihoodSums(np.zeros(len(self.texts)), np.zeros(len(self.texts), dtype=np.int64))
        self._values: dict[str, NDArray[np.float32]] = {}  # output → (texts, …)

    def jobs(self, batching: Batching) -> Iterator[Job]:
        """Yield the batches of the stream."""
        role = self.stream.role
        for batch in batching.of(role, self.texts):
            yield Job(role.graph, batch, self.stream.outputs)

    def add(
        self, members: NDArray[np.int64], of_row: NDArray[np.int64], outputs: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """Take the outputs of some texts.

        Args:
            members: (rows,) numbers of the texts.
            of_row: (n,) place in ``members`` of each scored position.
            outputs: ``nll`` (n,), the others (rows, …).
        """
        self.missing -= len(members)
        for output, values in outputs.items():
            if output == "nll":
                self._nll.total[members] = np.bincount(of_row, weights=values, minlength=len(members))
                self._nll.tokens[members] = np.bincount(of_row, minlength=len(members))
                continue
            if output not in self._values:
                self._values[output] = np.zeros((len(self.texts), *values.shape[1:]), dtype=np.float32)
            self._values[output][members] = values

    def give(self, measured: Measurements) -> None:
        """Add what the stream measures to the measurements of the window."""
        rows = len(measured.examples)
        for measure in self.stream.measures:
            match measure:
                case "conversation_nll":
                    measured.conversation_nll = self._sums(rows)
                case "response_nll":
                    measured.response_nll = self._sums(rows)
                case "reward":
                    measured.reward = self._numbers("reward", rows)
                case "embedding":
                    measured.embedding = self._of_rows("embedding", rows)
                case question:
                    measured.answers[question] = self._numbers("yes", rows)

    def _sums(self, rows: int) -> LikelihoodSums:
        """Sum over all texts of each row."""
        sums = LikelihoodSums(np.zeros(rows), np.zeros(rows, dtype=np.int64))
        np.add.at(sums.total, self._owners, self._nll.total[self._copy_of])
        np.add.at(sums.tokens, self._owners, self._nll.tokens[self._copy_of])
        return sums

    def _numbers(self, output: str, rows: int) -> NDArray[np.float64]:
        values = self._of_rows(output, rows)
        return np.zeros(rows) if values is None else values.astype(np.float64)

    def _of_rows(self, output: str, rows: int) -> NDArray[np.float32] | None:
        """Return an output with one value per row, float32 (rows, …); None in a window without texts."""
        values = self._values.get(output)
        if values is None:
            return None
        of_rows = np.zeros((rows, *values.shape[1:]), dtype=np.float32)
        of_rows[self._owners] = values[self._copy_of]
        return of_rows


def _distinct(texts: Sequence[Tokens]) -> tuple[list[Tokens], NDArray[np.int64]]:
    """Return texts with the same tokens and scored positions once each, and for every text its distinct one."""
    numbers: dict[tuple[bytes, bytes], int] = {}
    kept: list[Tokens] = []
    copy_of = np.zeros(len(texts), dtype=np.int64)
    for place, text in enumerate(texts):
        number = numbers.setdefault((text.ids.tobytes(), text.scored.tobytes()), len(kept))
        if number == len(kept):
            kept.append(text)
        copy_of[place] = number
    return kept, copy_of


def _note_truncated(part: StreamTexts, measured: Measurements) -> None:
    for row in {int(owner) for owner, text in zip(part.owners, part.texts, strict=True) if text.truncated}:
        measured.truncated[row] += [role for role in part.stream.roles if role not in measured.truncated[row]]
