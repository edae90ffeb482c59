"""Scores rows whose texts somebody else batches: a service that joins the texts of many requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import Bundle, Role
from instructmining.indicators.columns import predict, row_columns
from instructmining.indicators.plan import plan
from instructmining.inference.batching import Batching
from instructmining.inference.devices import Device
from instructmining.inference.executor import Executor
from instructmining.inference.streams import WindowResults
from instructmining.rules import Rule
from instructmining.scorer.corpus_pass import CorpusPass
from instructmining.scorer.row_pass import RowPass
from instructmining.tokenizing.truncation import Tokens
from instructmining.tokenizing.windows import TokenizedWindow, WindowBuilder
from instructmining.types import PREDICTION, InputWindow, Reject, ScoredWindow
from instructmining.writing.statistics import Statistics


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts that go through one graph."""

    role: Role
    outputs: tuple[str, ...]  # of the graph
    texts: Sequence[Tokens]


class Prepared:
    """A few rows, tokenized."""

    def __init__(self, window: TokenizedWindow) -> None:
        """Take a window that the plan's texts were made for."""
        self.results = WindowResults(window)
        self.rejects: list[Reject] = [reject for _, reject in window.rejects]  # in order
        self.parts = tuple(
            Texts(stream.stream.role, stream.stream.outputs, stream.texts) for stream in self.results.streams
        )


@dataclass(frozen=True, slots=True)
class RowRequests:
    """Scores a few rows at a time, with outputs of the graphs that somebody else computes; safe to share."""

    row_pass: RowPass
    opened: RowPass  # of all roles that are open
    corpus_pass: CorpusPass | None
    rule: Rule | None
    batching: Batching

    @classmethod
    def elsewhere(
        cls, bundle: Bundle, rule: Rule | None, indicators: Sequence[str], *, device_kind: str
    ) -> RowRequests:
        """Return what scores rows with a bundle whose graphs run elsewhere; opens no session.

        Args:
            bundle: with its tokenizers.
            rule: its terms are computed too.
            indicators: columns to compute; none that needs neighbours.
            device_kind: "cpu" or "cuda", on which the graphs run.

        Raises:
            RuleError: a column is not known.
            BundleError: the bundle lacks a role.
        """
        work = plan(bundle, rule, indicators)
        windows = WindowBuilder(work, bundle.roles[bundle.length_tokenizer].tokenizer)
        batching = Batching.usual(device_kind, [stream.role.name for stream in work.streams])
        row_pass = RowPass(work, windows, Executor((), (Device("cpu"),)))
        return cls(row_pass, row_pass, None, rule, batching)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of each row, in order."""
        names = tuple(indicator.column for indicator in self.row_pass.plan.indicators)
        return names if self.rule is None else (*names, PREDICTION)

    @property
    def executor(self) -> Executor:
        """Runs batches on the devices."""
        return self.row_pass.executor

    def only(self, column: str) -> RowRequests:
        """Return what computes one column of single rows that is no length; its role is open."""
        return RowRequests(self.opened.only([column]), self.opened, None, None, self.batching)

    def prepare(self, window: InputWindow) -> Prepared:
        """Tokenize a few rows; bad ones become rejects."""
        return Prepared(self.row_pass.windows.build(window))

    def finish(
        self,
        prepared: Prepared,
        outputs: Sequence[Mapping[str, NDArray[np.float32]]],
        others: NDArray[np.float32] | None = None,
    ) -> ScoredWindow:
        """Return prepared rows with all columns, and the rejects; once.

        Args:
            prepared: what :meth:`prepare` returned.
            outputs: of each part: a value for each scored position in the order of the texts, ``nll`` (n,), or for
                each text, (texts, …).
            others: embeddings of the rows that serve as neighbours, from :meth:`embedded_others`.
        """
        for stream, found in zip(prepared.results.streams, outputs, strict=True):
            if stream.texts:
                members = np.arange(len(stream.texts))
                stream.add(members, np.repeat(members, [len(text.scored) for text in stream.texts]), found)
        measured = prepared.results.measurements(Statistics())
        window, embedding = row_columns(measured, self.row_pass.plan.indicators)
        if others is not None and embedding is not None and self.corpus_pass is not None:
            search = self.corpus_pass.neighbours
            window.columns.update(search.columns(embedding, Statistics(), lambda: None, against=others))
        if self.rule is not None:
            predict(window, self.rule)
        return window

    def embedded_others(self) -> NDArray[np.float32] | None:
        """Return the embeddings of the rows that serve as neighbours, float32 (rows, size), in memory.

        None where no column needs neighbours, or where they are the run's own rows.

        Raises:
            InputError: the file cannot be read.
        """
        if self.corpus_pass is None:
            return None
        with ExitStack() as stack:
            found = self.corpus_pass.embedded_others(stack, self.batching, Statistics(), lambda _: None, None)
            return None if found is None else np.array(found)
