"""A thread for each device that takes the next batch, computes it, and gives each request its outputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from instructmining.errors import DeviceError, DeviceMemoryError, InstructMiningError
from instructmining.inference.batching import Batch, Batching, batches
from instructmining.inference.devices import Device
from instructmining.inference.executor import Done, Job
from instructmining.inference.memory import trim
from instructmining.inference.sessions import OF_POSITIONS
from instructmining.tokenizing.truncation import Tokens
from instructmining_serving.scheduling.errors import ClosingError, HangingError, OverloadedError
from instructmining_serving.scheduling.queue import Entry, Lane, TextQueue, by_work
from instructmining_serving.scheduling.work import Outputs, Work

_IDLE: tuple[Lane, list[Entry]] = ((Path(), ()), [])  # no batch: nothing waits
_ALL = 1 << 62  # tokens: a batch that was put together is not divided again
_PROBE_TOKENS = 8  # of the text that shows whether a device computes again
_PROBE_S = 1.0  # between two tries
_CLOSING_STEP_S = 0.1  # between two looks whether a batch hangs
_TRIM_S = 10.0  # between two times that the heaps are trimmed under load; each takes milliseconds
_LARGE = 0.25  # of the budget: the memory of larger batches is returned
_SPEED_SHARE = 0.1  # of the latest batch in the running mean of the speed


class Computes(Protocol):
    """What of an executor is used."""

    devices: tuple[Device, ...]

    def compute(self, job: Job, device: Device) -> Done:
        """Compute one job in this thread."""

    def reopen(self, job: Job, device: Device) -> None:
        """Open the job's graph in a new session."""

    def release(self, device: Device) -> None:
        """Return the memory of earlier batches."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A batch that was computed."""

    roles: str  # of its texts
    texts: int
    tokens: int
    padded: int
    seconds: float
    waited: tuple[float, ...]  # seconds of the requests whose first batch it was
    device: Device


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait, and for how long a batch waits for more texts."""

    queue_tokens: int = 1 << 18
    max_wait_s: float = 0.002
    idle_s: float = 5.0  # without a request, after which the memory of large batches is returned
    max_batch_s: float = 60.0  # a batch that takes longer hangs; as long as a request may take, since none outlives it


class Scheduler:
    """Computes the texts of requests in shared batches; a context manager, safe to share between threads."""

    def __init__(
        self,
        executor: Computes,
        batching: Batching,
        limits: Limits,
        *,
        observe: Callable[[Computed], None] = lambda _: None,
    ) -> None:
        """Prepare; threads start on entry.

        Args:
            executor: runs the batches.
            batching: budgets of the roles.
            limits: of the queue.
            observe: called after each batch, in the device's thread.
        """
        self._executor = executor
        self._batching = batching
        self._limits = limits
        self._observe = observe
        self._queue = TextQueue(batching)
        self._changed = Condition()
        self._arriving = 0  # requests that are being tokenized
        self._at_work = 0  # tokens of the batches that are computed now
        self._closing = False
        self._tokens_per_s = 0.0
        self._faults: dict[Device, str] = {}
        self._began: dict[Device, float] = {}  # when the batch at work began, seconds, monotonic
        self._trimmed = time.monotonic()
        self._grown: set[Device] = set()  # whose sessions keep the memory of a large batch
        self._threads = {
            device: Thread(target=self._serve, args=(device,), name=f"instructmining-{device}", daemon=True)
            for device in executor.devices
        }

    def __enter__(self) -> Self:
        """Start the threads."""
        for thread in self._threads.values():
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Compute what waits, and end the threads.

        Raises:
            HangingError: a batch takes longer than any may; its thread is left to itself.
        """
        self.close()
        if hanging := [device for device, thread in self._threads.items() if thread.is_alive()]:
            raise HangingError(self._hang(hanging[0]) or f"{hanging[0]}: a batch did not end")

    def close(self, timeout_s: float | None = None) -> None:
        """Compute what waits, and end the threads; take no further work. A batch that hangs is not waited for.

        Args:
            timeout_s: after this many seconds what still waits fails; None waits for all of it.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        for device, thread in self._threads.items():
            while thread.is_alive() and time.monotonic() < end and self._hang(device) is None:
                thread.join(min(_CLOSING_STEP_S, max(0.0, end - time.monotonic())))
        for work in self._drop_all():
            work.future.set_exception(ClosingError("the service is shutting down"))

    @property
    def fault(self) -> str | None:
        """Why a device does not compute now, or does not end its batch; None where all do."""
        hangs = (self._hang(device) for device in self._threads)
        with self._changed:
            faults = list(self._faults.values())
        return next((said for said in (*hangs, *faults) if said is not None), None)

    def _hang(self, device: Device) -> str | None:
        """Say that a device's batch takes longer than any may; None where it does not."""
        with self._changed:
            begin = self._began.get(device)
        seconds = 0.0 if begin is None else time.monotonic() - begin
        most = self._limits.max_batch_s
        return None if seconds <= most else f"{device}: a batch takes {seconds:.1f} s, longer than {most:g} s"

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait, without those computed now."""
        with self._changed:
            return self._queue.tokens

    @property
    def waiting_requests(self) -> int:
        """Requests of which texts wait."""
        with self._changed:
            return len(self._queue)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Tell that a request is being tokenized, so that an unfilled batch may wait for it."""
        with self._changed:
            self._arriving += 1
        try:
            yield
        finally:
            with self._changed:
                self._arriving -= 1
                if len(self._queue):
                    self._changed.notify_all()

    def submit(self, work: Work, *, has_room: bool = False) -> None:
        """Queue the texts of a request, all or none.

        A request larger than the queue is taken when nothing else waits.

        Args:
            work: of the request.
            has_room: whether the caller bounds what it submits: the limit of the queue does not hold.

        Raises:
            OverloadedError: too much waits.
            ClosingError: the service is shutting down.
        """
        work.arrived = time.monotonic()
        if not work.left_texts:
            work.future.set_result(work.outputs())
            return
        with self._changed:
            if self._closing:
                raise ClosingError("the service is shutting down")
            waiting = self._queue.tokens
            if not has_room and waiting and waiting + work.left_tokens > self._limits.queue_tokens:
                seconds = (waiting + self._at_work) / self._tokens_per_s if self._tokens_per_s else 1.0
                most = self._limits.queue_tokens
                raise OverloadedError(
                    f"{waiting:,} tokens wait, and {work.left_tokens:,} more would exceed {most:,}", seconds
                )
            self._queue.add(work)
            self._changed.notify()
        work.future.add_done_callback(lambda future: self._discard(work) if future.cancelled() else None)

    def _discard(self, work: Work) -> None:
        with self._changed:
            self._queue.discard(work)

    def _drop_all(self) -> list[Work]:
        with self._changed:
            return [work for work in self._queue.clear() if work.future.set_running_or_notify_cancel()]

    def _serve(self, device: Device) -> None:
        while (taken := self._next(device)) is not None:
            lane, entries = taken
            try:
                with self._at_work_on(device):
                    self._compute(lane, entries, device)
            except Exception as error:  # whatever it is: without this thread every request would wait for ever
                self._fail(entries, error)
            finally:
                with self._changed:
                    self._at_work -= sum(entry.length for entry in entries)
            if self._is_faulty(device):
                self._recover(lane, device)
            self._trim()

    @contextmanager
    def _at_work_on(self, device: Device) -> Iterator[None]:
        with self._changed:
            self._began[device] = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                del self._began[device]

    def _compute(self, lane: Lane, entries: Sequence[Entry], device: Device) -> None:
        now = time.monotonic()
        waited = []
        for entry in entries:
            if entry.work.started is None:
                entry.work.started = now
                waited.append(now - entry.work.arrived)
        part = entries[0].work.parts[entries[0].part]
        batch = self._batch([entry.work.parts[entry.part].texts[entry.text] for entry in entries], part.role.max_length)
        done = self._computed(Job(lane[0], batch, lane[1]), device)
        if batch.ids.size > _LARGE * self._batching.max_batch_tokens[part.role.name]:
            self._grown.add(device)
        self._give(entries, batch, done)
        tokens = int(batch.mask.sum())
        self._note_speed(tokens / max(done.seconds, 1e-9))
        self._observe(
            Computed(part.role.name, len(entries), tokens, batch.ids.size, done.seconds, tuple(waited), device)
        )

    def _trim(self) -> None:
        """Return what requests took and freed to the system, now and then: else the heaps stay at their largest."""
        now = time.monotonic()
        with self._changed:
            if now - self._trimmed < _TRIM_S:
                return
            self._trimmed = now
        trim()

    def _is_faulty(self, device: Device) -> bool:
        with self._changed:
            return device in self._faults

    def _recover(self, lane: Lane, device: Device) -> None:
        """Compute a short text, now and then, until it works: no request comes while the service is not ready."""
        text = Tokens(np.ones(_PROBE_TOKENS, dtype=np.int64), np.arange(1, _PROBE_TOKENS, dtype=np.int64))
        job = Job(lane[0], self._batch([text], _PROBE_TOKENS), lane[1])
        while True:
            try:
                with self._at_work_on(device):
                    self._executor.compute(job, device)
            except DeviceError:
                with self._changed:
                    if self._closing or self._changed.wait_for(lambda: self._closing, _PROBE_S):
                        return
                with suppress(InstructMiningError), self._at_work_on(device):
                    self._executor.reopen(job, device)
                continue
            with self._changed:
                self._faults.pop(device, None)
            return

    def _next(self, device: Device) -> tuple[Lane, list[Entry]] | None:
        """Wait for the next batch; None when the service ends. A device that is idle returns memory meanwhile."""
        while device in self._grown:
            with self._changed:
                found = self._waited(self._limits.idle_s)
            if found is not _IDLE:
                return found
            self._grown.discard(device)
            with suppress(InstructMiningError), self._at_work_on(device):  # the next batch meets a fault too
                self._executor.release(device)
        with self._changed:
            return self._waited(None)

    def _waited(self, idle_s: float | None) -> tuple[Lane, list[Entry]] | None:
        """Wait for the next batch, but no longer than some seconds for a request: ``_IDLE`` then."""
        while True:
            oldest = self._queue.oldest
            if oldest is not None:
                left = oldest + self._limits.max_wait_s - time.monotonic()
                if not self._arriving or left <= 0 or self._closing or self._queue.fills_a_batch():
                    lane, entries = self._queue.take()
                    self._at_work += sum(entry.length for entry in entries)
                    return lane, entries
                self._changed.wait(left)
            elif self._closing:
                return None
            elif not self._changed.wait(idle_s):
                return _IDLE

    def _batch(self, texts: Sequence[Tokens], max_width: int) -> Batch:
        multiple = self._batching.width_multiple
        (batch,) = batches(texts, max_batch_tokens=_ALL, width_multiple=multiple, max_width=max_width)
        return batch

    def _computed(self, job: Job, device: Device) -> Done:
        """Compute a batch; after a fault once more, in a new session.

        Raises:
            DeviceMemoryError: a text does not fit, which is no fault of the device.
            DeviceError: it fails again.
        """
        try:
            done = self._executor.compute(job, device)
        except DeviceMemoryError:
            raise
        except DeviceError as error:
            with self._changed:
                self._faults[device] = str(error)
            self._executor.reopen(job, device)
            done = self._executor.compute(job, device)
        with self._changed:
            self._faults.pop(device, None)
        return done

    def _give(self, entries: Sequence[Entry], batch: Batch, done: Done) -> None:
        """Give each request the outputs of its texts, and its result where nothing is left."""
        rows = np.empty(len(entries), dtype=np.int64)
        rows[batch.members] = np.arange(len(entries))  # row of the batch of each entry
        ends = np.searchsorted(batch.scored[:, 0], np.arange(len(entries) + 1))

        def of_row(row: int) -> Outputs:
            return {
                name: values[ends[row] : ends[row + 1]] if name in OF_POSITIONS else values[row : row + 1]
                for name, values in done.outputs.items()
            }

        finished = []
        with self._changed:
            for (work, part), places in by_work(entries).items():
                work.give(
                    part, [entries[place].text for place in places], [of_row(int(rows[place])) for place in places]
                )
                if not work.left_texts:
                    finished.append(work)
        for work in finished:
            if work.future.set_running_or_notify_cancel():
                work.future.set_result(work.outputs())

    def _fail(self, entries: Sequence[Entry], error: Exception) -> None:
        for work in {entry.work for entry in entries}:
            self._discard(work)
            if not work.future.done() and work.future.set_running_or_notify_cancel():
                work.future.set_exception(error)

    def _note_speed(self, tokens_per_s: float) -> None:
        before = self._tokens_per_s
        self._tokens_per_s = tokens_per_s if not before else before + _SPEED_SHARE * (tokens_per_s - before)
