"""Scores rows of many requests at once: a scorer, and a scheduler that joins their texts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import Bundle, Role, RoleName
from instructmining.bundle.demo import demo_folder
from instructmining.errors import InstructMiningError, RuleError
from instructmining.indicators.plan import indicator_names
from instructmining.knn.options import KnnOptions
from instructmining.rules import Rule
from instructmining.scorer.requests import Prepared, RowRequests, Texts
from instructmining.scorer.scorer import Scorer
from instructmining.tokenizing.truncation import Tokens
from instructmining.types import ScoredRow, ScoredWindow
from instructmining_serving.raw_texts import RawTokenizer
from instructmining_serving.rows import RowsRefusedError, reason_of, window_of_each
from instructmining_serving.scheduling.room import Room
from instructmining_serving.scheduling.scheduler import Computed, Limits, Scheduler
from instructmining_serving.scheduling.threads import LARGEST, SmallFirst
from instructmining_serving.scheduling.work import Outputs, Work
from instructmining_serving.traces import past_span, span

TOKENIZERS = 2  # threads; a tokenizer releases the interpreter's lock
_AT_ONCE = 1000  # bytes, tokenized in about a millisecond
_VALUE_CHARACTERS = 8  # that a value other than a text counts as
_WARM_ROWS = (1, 4)  # rows of the batches that warm up a width
_Result = TypeVar("_Result")
_STREAMS_SHARE = 4  # all streams have one part in so many of the queue, beside what others may fill it with


class TooLargeError(InstructMiningError):
    """A request has more rows or tokens than one may have."""


class NotServedError(InstructMiningError):
    """A request wants a model that the service has not opened, or what its graph does not compute."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What a service computes, and how much a request may ask for."""

    bundle: str | Path | Bundle | None = None
    rule: str | Path | Rule | None = None
    indicators: Sequence[str] | str | None = None
    device: str = "auto"
    roles: Sequence[RoleName] | str = ()  # models to open beside those that the columns need
    knn_against: str | None = None  # a file whose rows are the neighbours
    max_rows: int = 2048  # of a request
    max_tokens: int = 1 << 17  # of all texts of a request
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Rewards:
    """The rewards of a request's rows."""

    values: NDArray[np.float64]  # (rows,) raw logits; NaN where undefined
    tokens: int  # of all rows
    truncated: Sequence[bool]  # of each row


@dataclass(frozen=True, slots=True)
class Observer:
    """Is told what the service does; every call is quick."""

    batch: Callable[[Computed], None] = lambda _: None
    tokenized: Callable[[float], None] = lambda _: None  # seconds, of a request
    rows: Callable[[int], None] = lambda _: None  # rows, or texts alone, that were computed


class ScoringService:
    """Scores the rows of requests; a context manager whose methods run in an event loop."""

    def __init__(self, scorer: Scorer, options: ServiceOptions, observer: Observer) -> None:
        """Use :meth:`open`."""
        self.scorer = scorer
        self.options = options
        self._observer = observer
        self._requests: RowRequests = scorer.requests()
        self._rewards = self._requests.only("reward")
        self.raw_tokenizers = _raw_tokenizers(self.roles)
        self._others = self._requests.embedded_others()
        self.scheduler = Scheduler(self._requests.executor, scorer.batching, options.limits, observe=observer.batch)
        self._threads = SmallFirst(TOKENIZERS, "instructmining-tokens")
        self._stack = ExitStack()
        self._streams_room = Room(max(1, options.limits.queue_tokens // _STREAMS_SHARE))
        self._ready = False
        self.closing = asyncio.Event()

    @classmethod
    def open(cls, options: ServiceOptions, observer: Observer | None = None) -> Self:
        """Open the bundle on its devices, and embed the rows of ``knn_against``; without it "all" has no neighbours.

        Raises:
            BundleError: the bundle is damaged or lacks a role.
            RuleError: the rule cannot be read, or a column needs neighbours and no file of them is given.
            DeviceError: the device does not work here.
            InputError: the file of neighbours cannot be read.
        """
        bundle = options.bundle
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(demo_folder() if bundle is None else bundle)
        indicators = options.indicators
        if indicators is not None:
            indicators = indicator_names(indicators, bundle, neighbours=options.knn_against is not None)
        scorer = Scorer.open(
            bundle,
            rule=options.rule,
            indicators=indicators,
            device=options.device,
            batches_at_once=None if options.device.startswith("cuda") else 1,
            roles=options.roles,
            knn=None if options.knn_against is None else KnnOptions(against=options.knn_against),
        )
        if scorer.searches_neighbours and options.knn_against is None:
            columns = ", ".join(column for column in scorer.columns if column.startswith("knn_"))
            scorer.close()
            raise RuleError(
                f"{columns} needs the neighbours of each row, and a request has few rows; name a file of rows to "
                "compare with (--knn-against), or leave the column out (--rule, --indicators)"
            )
        return cls(scorer, options, observer or Observer())

    def __enter__(self) -> Self:
        """Start the device threads."""
        self._stack.enter_context(self.scorer)
        self._stack.callback(self._threads.shutdown)
        self._stack.enter_context(self.scheduler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Compute what waits, and close."""
        self._ready = False
        self._stack.close()

    @property
    def left_out(self) -> list[str]:
        """Columns that were asked for as "all" and need neighbours, where no rows to compare with are given."""
        asked = indicator_names(self.options.indicators or (), self.scorer.bundle)
        return [column for column in asked if column not in self.scorer.columns]

    @property
    def not_ready(self) -> str | None:
        """Why no request is taken now; None where the service is ready."""
        if self.closing.is_set():
            return "shutting down"
        return "warming up" if not self._ready else self.scheduler.fault

    def begin_closing(self) -> None:
        """Take no more requests, and no more lines of streams; what was taken is answered."""
        self.closing.set()

    @property
    def roles(self) -> Mapping[str, Role]:
        """The roles of the bundle that are open."""
        return {name: self.scorer.bundle.roles[name] for name in sorted(self.scorer.roles)}

    def role(self, name: RoleName, outputs: Sequence[str]) -> Role:
        """Return the role to give texts of a model to :meth:`compute` with; one that shares its graph may stand for it.

        Args:
            name: of the model.
            outputs: wanted of its graph.

        Raises:
            NotServedError: the model is not open, or the graph lacks an output.
        """
        role = next((each.role for each in self._requests.opened.plan.streams if name in each.roles), None)
        if role is None:
            raise NotServedError(f"the {name} model is not open; serve with --roles {name}")
        missing = sorted({*outputs} - self._requests.executor.outputs(role.graph))
        if missing:
            raise NotServedError(f"the {name} model's graph does not compute {missing[0]}; export the bundle again")
        return role

    async def warm_up(self) -> None:
        """Compute a batch of each width, so that no request waits for a first one; ready afterwards.

        Raises:
            DeviceError: a graph fails.
        """
        batching = self.scorer.batching
        for stream in self._requests.opened.plan.streams:
            role = stream.role
            for width in _widths(role.max_length, batching.width_multiple):
                fits = max(1, batching.max_batch_tokens[role.name] // width)
                for rows in sorted({min(rows, fits) for rows in _WARM_ROWS}):
                    texts = [_some_text(width)] * rows
                    work = Work([Texts(role, stream.outputs, texts)])
                    self.scheduler.submit(work)
                    await asyncio.wrap_future(work.future)
        self._ready = True

    def check_columns(self) -> None:
        """Check that there is a column to compute.

        Raises:
            NotServedError: there is none.
        """
        if not self.scorer.columns:
            raise NotServedError("the service computes no column; serve with --indicators or --rule")

    async def score(self, rows: Sequence[object]) -> list[ScoredRow]:
        """Score rows, each of any accepted shape, in order.

        Args:
            rows: values of JSON; one that is no object is a bad row.

        Raises:
            NotServedError: the service computes no column.
            RowsRefusedError: some rows cannot be scored; none is.
            TooLargeError: the request has too many rows or tokens.
            OverloadedError: too much waits already.
            DeviceError: a graph fails, also in a new session.
        """
        self.check_columns()
        finished, _ = await self._finished(rows, self._requests, self._others)
        return list(self.scorer.rows(finished))

    async def score_each(self, rows: Sequence[object], seconds: float) -> list[ScoredRow | str]:
        """Score rows of a stream in order, each of any accepted shape; of a bad one, return why it is bad.

        They wait for room in the streams' share of the queue, and are never refused for want of it.

        Args:
            rows: values of JSON; one that is no object is a bad row.
            seconds: in which they must be computed once they have room.

        Raises:
            TimeoutError: they are not.
            DeviceError: a graph fails, also in a new session.
            ClosingError: the service is shutting down.
        """
        with self.scheduler.arriving():
            size = _size(rows)
            prepared = await self.in_thread(lambda: self._requests.prepare(window_of_each(rows)), size=size)
        work = Work(prepared.parts)
        async with self._streams_room.taken(work.left_tokens):
            self.scheduler.submit(work, has_room=True)
            async with asyncio.timeout(seconds):
                outputs = await asyncio.wrap_future(work.future)
        finished = await self._finish(self._requests, prepared, outputs, self._others, size=size)
        bad = dict(map(reason_of, finished.rejects))
        self._observer.rows(len(rows) - len(bad))
        scored = iter(self.scorer.rows(finished))
        return [bad[place] if place in bad else next(scored) for place in range(len(rows))]

    async def rewards(self, rows: Sequence[object]) -> Rewards:
        """Compute the column ``reward`` of rows of any accepted shape but pairs, and nothing else.

        Raises:
            NotServedError: the reward model is not open.
            RowsRefusedError: some rows cannot be scored; none is.
            TooLargeError: the request has too many rows or tokens.
            OverloadedError: too much waits already.
            DeviceError: a graph fails, also in a new session.
        """
        self.role("reward", ["reward"])
        finished, tokens = await self._finished(rows, self._rewards)
        return Rewards(finished.columns["reward"].values, tokens, [bool(roles) for roles in finished.truncated])

    async def _finished(
        self, rows: Sequence[object], requests: RowRequests, others: NDArray[np.float32] | None = None
    ) -> tuple[ScoredWindow, int]:
        """Return the rows with their columns, and the tokens of their texts."""
        self.check_rows(len(rows))
        with self.scheduler.arriving():
            size = _size(rows)
            with span("tokenize", rows=len(rows)):
                prepared = await self.in_thread(lambda: requests.prepare(window_of_each(rows)), size=size)
        if prepared.rejects:
            raise RowsRefusedError([reason_of(reject) for reject in prepared.rejects])
        work = self._admitted(prepared.parts)
        tokens = work.left_tokens
        outputs = await self._outputs(work, tokens)
        finished = await self._finish(requests, prepared, outputs, others, size=size)
        if finished.rejects:
            raise RowsRefusedError([reason_of(reject) for reject in finished.rejects])
        self._observer.rows(len(rows))
        return finished, tokens

    async def _finish(
        self,
        requests: RowRequests,
        prepared: Prepared,
        outputs: Sequence[Outputs],
        others: NDArray[np.float32] | None,
        *,
        size: int,
    ) -> ScoredWindow:
        """Return rows with their columns; a search among others takes long also for a small request."""
        return await self.in_thread(
            lambda: requests.finish(prepared, outputs, others), size=size if others is None else LARGEST, first=True
        )

    def check_rows(self, rows: int) -> None:
        """Check the number of rows, or texts, of a request.

        Raises:
            TooLargeError: it has too many.
        """
        if rows > self.options.max_rows:
            raise TooLargeError(f"the request has {rows:,} rows, more than {self.options.max_rows:,}")

    async def compute(self, parts: Sequence[Texts]) -> list[Outputs]:
        """Compute texts that are tokenized already.

        Raises:
            TooLargeError: the request has too many tokens.
            OverloadedError: too much waits already.
            DeviceError: a graph fails, also in a new session.
        """
        work = self._admitted(parts)
        outputs = await self._outputs(work, work.left_tokens)
        self._observer.rows(sum(len(part.texts) for part in parts))
        return outputs

    async def _outputs(self, work: Work, tokens: int) -> list[Outputs]:
        """Wait for what a request wants computed."""
        outputs = await asyncio.wrap_future(work.future)
        if work.started is not None:
            past_span("queue", work.arrived, work.started, tokens=tokens)
            past_span("infer", work.started, time.monotonic(), tokens=tokens)
        return outputs

    def _admitted(self, parts: Sequence[Texts]) -> Work:
        work = Work(parts)
        if work.left_tokens > self.options.max_tokens:
            raise TooLargeError(
                f"the request has {work.left_tokens:,} tokens for all models, more than {self.options.max_tokens:,}"
            )
        self.scheduler.submit(work)
        return work

    async def tokenize(self, task: Callable[[], _Result], *, size: int) -> _Result:
        """Tokenize texts of some characters for :meth:`compute` in a thread; an unfilled batch may wait for them."""
        with self.scheduler.arriving(), span("tokenize"):
            return await self.in_thread(task, size=size)

    async def in_thread(self, task: Callable[[], _Result], *, size: int = LARGEST, first: bool = False) -> _Result:
        """Run a part of a request; the event loop goes on, unless the part takes less time than a thread's waking up.

        Args:
            task: the part.
            size: bytes that it reads, about; small ones go first.
            first: before all others, since its batches are done.
        """
        begin = time.perf_counter()
        try:
            if size <= _AT_ONCE:
                return task()
            return await asyncio.wrap_future(self._threads.submit(task, 0 if first else size))
        finally:
            self._observer.tokenized(time.perf_counter() - begin)


def _raw_tokenizers(roles: Mapping[str, Role]) -> dict[str, RawTokenizer]:
    """Return the tokenizer of each role that takes texts alone; roles with the same one share it."""
    loaded: dict[tuple[object, ...], RawTokenizer] = {}
    found = {}
    for name, role in roles.items():
        if name == "unieval":
            continue
        key = (*role.shares, role.bos)
        if key not in loaded:
            loaded[key] = RawTokenizer(role)
        found[name] = loaded[key]
    return found


def _size(rows: Sequence[object]) -> int:
    """Return the characters of rows, about; counts no further than what makes a difference."""
    left: list[object] = list(rows)
    size = 0
    while left and size < LARGEST:
        value = left.pop()
        size += len(value) if isinstance(value, str) else _VALUE_CHARACTERS
        if isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return size


def _widths(longest: int, multiple: int) -> list[int]:
    """Return the widths of batches to warm up: every one where they are rounded, else a few."""
    if multiple > 1:
        return list(range(multiple, longest + 1, multiple))
    return sorted({min(longest, width) for width in (8, 32, 128, 512)})


def _some_text(width: int) -> Tokens:
    return Tokens(np.ones(width, dtype=np.int64), np.arange(1, width, dtype=np.int64))
