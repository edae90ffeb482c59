"""Composes the stages: tokenizing runs ahead in a thread while the device computes; the only module to know two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import Bundle
from instructmining.errors import InstructMiningError, RowError, RuleError
from instructmining.indicators import CorpusIndicator, RowIndicator
from instructmining.measuring import measure
from instructmining.neighbours import kth_distances
from instructmining.plans import Plan, indicator_names, plan
from instructmining.records import PREDICTION, Column, ColumnValue, Example, Measurements, ScoredRow
from instructmining.rules import Rule
from instructmining.runstats import Statistics
from instructmining.sessions import Device, GraphSession, TopKSession, choose_device_for, runtime_version
from instructmining.spool import Spool
from instructmining.windows import Window, WindowBuilder

OnReject: TypeAlias = Callable[[Example, str], None]
OnProgress: TypeAlias = Callable[[Statistics], None]

BUDGET_TOKENS = {"cpu": 512, "cuda": 16384}  # padded tokens of a batch
WINDOW_ROWS = 512


class Scorer:
    """Scores examples with one bundle on one device; a context manager, safe to share between threads."""

    def __init__(self, bundle: Bundle, rule: Rule | None, work: Plan, device: Device) -> None:
        """Use :meth:`open`, which reads the parts and chooses the device."""
        self.bundle = bundle
        self.rule = rule
        self.device = device
        self.columns = (*(indicator.column for indicator in work.indicators), *([PREDICTION] if rule else []))
        self.budget_tokens = BUDGET_TOKENS[device.kind]
        self._plan = work
        self._closed = False
        self._windows = WindowBuilder(work, bundle.roles[bundle.length_tokenizer].tokenizer)
        self._sessions = {graph: GraphSession(graph, device) for graph in {s.role.graph for s in work.streams}}
        corpus = any(isinstance(indicator, CorpusIndicator) for indicator in work.indicators)
        self._top_k = TopKSession(device) if corpus else None

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        *,
        rule: str | Path | Rule | None = None,
        indicators: Sequence[str] | str | None = None,
        device: str = "auto",
    ) -> Self:
        """Open a bundle for scoring.

        Args:
            bundle: a folder, or one opened before.
            rule: "paper-v1", "paper-v3", a JSON file or a rule. With neither rule nor indicators: the bundle's own.
            indicators: columns to compute, beside the rule's terms if there is a rule; a list, comma-separated text, or
                "all": every column that the bundle's roles give.
            device: "auto", "cpu", "cuda" or "cuda:N"; auto takes CUDA only where a session runs there.

        Raises:
            BundleError: the bundle is damaged or lacks a role that is needed.
            RuleError: the rule cannot be read, or an indicator is not known.
            DeviceError: the device does not work here.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        if rule is None and indicators is None:
            if opened.default_rule is None:
                raise RuleError(
                    f"{opened.path}: has no default rule; give a rule or indicators (--rule paper-v1, --indicators all)"
                )
            rule = opened.default_rule
        if rule is None and not indicators:
            raise RuleError("no indicator was named; give at least one, or a rule")
        chosen = rule if isinstance(rule, Rule) or rule is None else Rule.load(rule)
        work = plan(opened, chosen, indicator_names(indicators or (), opened))
        return cls(opened, chosen, work, choose_device_for([stream.role for stream in work.streams], device))

    def __enter__(self) -> Self:
        """The scorer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the sessions and their memory go."""
        self._closed = True
        self._sessions.clear()
        self._top_k = None

    @property
    def runtime_version(self) -> str:
        """Version of onnxruntime."""
        return runtime_version()

    @property
    def caution(self) -> str | None:
        """What must be said beside the predictions when the bundle's reward model is not the rule's; else None."""
        if self.rule is None or "reward" not in self.rule.terms or self.rule.reward_model is None:
            return None
        source = self.bundle.roles["reward"].source
        found = source.get("id")
        if found == self.rule.reward_model:
            return None
        if source.get("revision") == "local":
            return (
                f"rule {self.rule.id!r} was fitted with the reward model {self.rule.reward_model}, this bundle's comes "
                f"from a folder {found!r}: if it is not that model, the predicted losses are not the paper's, in scale "
                "or in order"
            )
        return (
            f"rule {self.rule.id!r} was fitted with the reward model {self.rule.reward_model}, this bundle has "
            f"{found}: the predicted losses are not the paper's, in scale or in order"
        )

    def score(
        self,
        examples: Iterable[Example],
        *,
        on_reject: OnReject | None = None,
        on_progress: OnProgress | None = None,
        statistics: Statistics | None = None,
    ) -> Iterator[ScoredRow]:
        """Score examples, in input order.

        Without a corpus indicator rows come as their window is done. With one (``knn_6``) all examples are taken
        first, waiting on disk, and rows come after the corpus pass.

        Args:
            examples: taken lazily, from another thread.
            on_reject: called with an example that cannot be scored and the reason; without it that raises.
            on_progress: called after each batch.
            statistics: counts of the run, kept up to date.

        Raises:
            RowError: an example cannot be scored and nobody takes rejects.
            InstructMiningError: the scorer was closed.
        """
        if self._closed:
            raise InstructMiningError("the scorer is closed: score inside its with block")
        counts = statistics if statistics is not None else Statistics()
        report = on_progress or (lambda _: None)
        windows = self._measured(examples, on_reject or _raise, report, counts)
        if self._top_k is None:
            for rows, _ in windows:
                yield from self._finished(rows, {})
            return
        with Spool() as spool:
            for rows, measured in windows:
                assert measured.embedding is not None
                spool.append(rows, measured.embedding)
            corpus = self._corpus_columns(spool.embeddings(), report, counts)
            begin = 0
            for rows in spool.windows():
                end = begin + len(rows)
                yield from self._finished(rows, {name: _part(column, begin, end) for name, column in corpus.items()})
                begin = end

    def _measured(
        self, examples: Iterable[Example], on_reject: OnReject, report: OnProgress, counts: Statistics
    ) -> Iterator[tuple[list[ScoredRow], Measurements]]:
        """Windows of rows with the row indicators' columns; the next window is tokenized while one is computed."""
        source = iter(examples)

        rejecting = Lock()  # rows are rejected here and in the thread that tokenizes

        def reject(example: Example, reason: str) -> None:
            with rejecting:
                counts.rows_rejected += 1
                on_reject(example, reason)

        def next_window() -> Window | None:
            with counts.timed("read"):
                taken = list(islice(source, WINDOW_ROWS))
            counts.rows_taken += len(taken)
            with counts.timed("tokenize"):
                return self._windows.build(taken, reject) if taken else None

        with ThreadPoolExecutor(1, thread_name_prefix="instructmining-tokens") as ahead:
            coming = ahead.submit(next_window)
            while (window := coming.result()) is not None:
                coming = ahead.submit(next_window)
                counts.window_rows, counts.window_share = len(window.examples), 0.0
                measured = measure(
                    window,
                    self._sessions,
                    budget_tokens=self.budget_tokens,
                    statistics=counts,
                    report=lambda: report(counts),
                )
                with counts.timed("indicators"):
                    rows, measured = self._scored(measured, reject)
                counts.rows_scored += len(rows)
                counts.window_rows = 0
                report(counts)
                if rows:
                    yield rows, measured

    def _scored(self, measured: Measurements, on_reject: OnReject) -> tuple[list[ScoredRow], Measurements]:
        """Rows with the columns of the row indicators; rows with a model output that is not finite are rejected."""
        finite = _finite(measured)
        for row in np.flatnonzero(~finite):
            on_reject(measured.examples[row], "a model output is not a finite number")
        columns = {
            indicator.column: indicator.compute(measured)
            for indicator in self._plan.indicators
            if isinstance(indicator, RowIndicator)
        }
        rows = [
            _add_columns(ScoredRow(example, {}, tuple(roles), {}), columns, row)
            for row, (example, roles) in enumerate(zip(measured.examples, measured.truncated, strict=True))
            if finite[row]
        ]
        if measured.embedding is not None and not finite.all():
            measured.embedding = measured.embedding[finite]
        return rows, measured

    def _corpus_columns(
        self, embeddings: NDArray[np.float32], report: OnProgress, counts: Statistics
    ) -> dict[str, Column]:
        rows = len(embeddings)

        def progress(done: int, _: int) -> None:
            counts.neighbours_done = done
            report(counts)

        columns: dict[str, Column] = {}
        for indicator in self._plan.indicators:
            if not isinstance(indicator, CorpusIndicator):
                continue
            if rows <= indicator.k:
                reason = f"{rows} rows in the run; the distance to neighbour {indicator.k} needs {indicator.k + 1}"
                columns[indicator.column] = Column(np.full(rows, np.nan), dict.fromkeys(range(rows), reason))
                continue
            assert self._top_k is not None
            with counts.timed("neighbours"):
                distances = kth_distances(embeddings, indicator.k, self._top_k, progress=progress)
            columns[indicator.column] = Column(distances)
        return columns

    def _finished(self, rows: list[ScoredRow], corpus: dict[str, Column]) -> Iterator[ScoredRow]:
        """The rows with the corpus columns, the prediction last, columns in the order of the indicators."""
        full = [_add_columns(row, corpus, number) for number, row in enumerate(rows)]
        prediction: dict[str, Column] = {}
        if self.rule is not None:
            values = {
                column: np.array([_nan(row.columns[column]) for row in full], dtype=np.float64)
                for column in self.rule.terms
            }
            predicted = self.rule.predict(values)
            notes = {
                number: f"undefined: {', '.join(column for column in values if np.isnan(values[column][number]))}"
                for number in np.flatnonzero(np.isnan(predicted)).tolist()
            }
            prediction = {PREDICTION: Column(predicted, notes)}
        for number, row in enumerate(full):
            done = _add_columns(row, prediction, number)
            yield replace(done, columns={name: done.columns[name] for name in self.columns})


def _raise(example: Example, reason: str) -> None:
    where = f"{example.row.source}, line {example.row.line}: " if example.row is not None else ""
    raise RowError(f"{where}{reason}")


def _finite(measured: Measurements) -> NDArray[np.bool_]:
    """Rows whose model outputs are all finite, (rows,)."""
    finite = np.ones(len(measured.examples), dtype=bool)
    for sums in (measured.conversation_nll, measured.response_nll):
        if sums is not None:
            finite &= np.isfinite(sums.total)
    if measured.reward is not None:
        finite &= np.isfinite(measured.reward)
    if measured.embedding is not None:
        finite &= np.isfinite(measured.embedding).all(axis=1)
    for answers in measured.answers.values():
        finite &= np.isfinite(answers)
    return finite


def _add_columns(row: ScoredRow, columns: dict[str, Column], number: int) -> ScoredRow:
    values: dict[str, ColumnValue] = {}
    notes: dict[str, str] = {}
    for name, column in columns.items():
        value = float(column.values[number])
        if np.isfinite(value):
            values[name] = int(value) if column.whole else value
        else:
            values[name] = None
            notes[name] = column.notes.get(number, "not a finite number")
    return replace(row, columns=row.columns | values, notes=row.notes | notes)


def _part(column: Column, begin: int, end: int) -> Column:
    notes = {row - begin: reason for row, reason in column.notes.items() if begin <= row < end}
    return replace(column, values=column.values[begin:end], notes=notes)


def _nan(value: ColumnValue) -> float:
    return float("nan") if value is None else float(value)
