from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from instructmining.bundle import Bundle, Role
from instructmining.errors import DeviceError, DeviceMemoryError
from instructmining.inference.batching import Batching
from instructmining.inference.devices import Device
from instructmining.inference.executor import Done, Job
from instructmining.scorer.requests import Texts
from instructmining.tokenizing.truncation import Tokens
from instructmining_serving.scheduling import scheduler as scheduling
from instructmining_serving.scheduling.errors import ClosingError, HangingError, OverloadedError
from instructmining_serving.scheduling.scheduler import Computed, Limits, Scheduler
from instructmining_serving.scheduling.work import Outputs, Work

CPU = Device("cpu", threads=1)
BATCHING = Batching(512, {"perplexity": 64, "reward": 64}, enough_tokens=None)


class Executor:
    """Computes each text's sum and, at its scored positions, the ids; waits for each batch to be let through."""

    def __init__(self, *, held: bool = False) -> None:
        self.devices = (CPU,)
        self.jobs: list[Job] = []
        self.reopened = 0
        self.released = 0
        self.failures: list[Exception] = []
        self.began = Event()
        self.let = Event()
        if not held:
            self.let.set()

    def compute(self, job: Job, device: Device) -> Done:
        self.jobs.append(job)
        self.began.set()
        assert self.let.wait(10)
        if self.failures:
            raise self.failures.pop(0)
        batch = job.batch
        values = {
            "nll": batch.ids[batch.scored[:, 0], batch.scored[:, 1]].astype(np.float32),
            "reward": batch.ids.sum(axis=1).astype(np.float32),
        }
        return Done(job, {name: values[name] for name in job.outputs}, 0.001, device)

    def reopen(self, job: Job, device: Device) -> None:  # noqa: ARG002
        self.reopened += 1

    def release(self, device: Device) -> None:  # noqa: ARG002
        self.released += 1


@pytest.fixture
def role(small_bundle: Path) -> Role:
    return Bundle.open(small_bundle).role("perplexity", wanted_by="a test")


@pytest.fixture
def begin() -> Iterator[Callable[..., tuple[Scheduler, Executor]]]:
    made: list[tuple[Scheduler, Executor]] = []

    def start(*, held: bool = False, **limits: float) -> tuple[Scheduler, Executor]:
        executor = Executor(held=held)
        scheduler = Scheduler(executor, BATCHING, Limits(**limits))  # type: ignore[arg-type]
        scheduler.__enter__()
        made.append((scheduler, executor))
        return scheduler, executor

    yield start
    for scheduler, executor in made:
        executor.let.set()
        scheduler.close(10)


def text(length: int, first: int = 1) -> Tokens:
    ids = np.arange(first, first + length, dtype=np.int64)
    return Tokens(ids, np.arange(1, length, dtype=np.int64))


def work(role: Role, lengths: Sequence[int], *, outputs: tuple[str, ...] = ("nll", "reward"), first: int = 1) -> Work:
    return Work([Texts(role, outputs, [text(length, first) for length in lengths])])


def submit(scheduler: Scheduler, *works: Work) -> list[Future[list[Outputs]]]:
    for one in works:
        scheduler.submit(one)
    return [one.future for one in works]


def test_each_request_gets_its_own_outputs_in_its_own_order(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin(held=True)
    first = work(role, [5], first=1000)
    scheduler.submit(first)
    assert executor.began.wait(10)
    others = [work(role, [9, 3, 6], first=100), work(role, [4, 8], first=200)]
    futures = submit(scheduler, *others)
    executor.let.set()
    for future, lengths, begins in zip(futures, ([9, 3, 6], [4, 8]), (100, 200), strict=True):
        (found,) = future.result(10)
        sums = [np.arange(begins, begins + length).sum() for length in lengths]
        assert found["reward"].tolist() == sums
        scored = np.concatenate([np.arange(begins + 1, begins + length) for length in lengths])
        assert found["nll"].tolist() == scored.tolist()
    assert len(executor.jobs) == 2  # what came during the first batch shares the second
    assert executor.jobs[1].batch.ids.shape == (5, 9)


def test_a_request_is_computed_at_once_when_nothing_else_waits(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin(max_wait_s=5.0)
    start = time.monotonic()
    submit(scheduler, work(role, [5]))[0].result(10)
    assert time.monotonic() - start < 1
    assert executor.jobs[0].batch.ids.shape == (1, 5)


def test_a_batch_waits_for_requests_that_are_tokenized_but_not_for_ever(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin(max_wait_s=0.2)
    with scheduler.arriving():
        future = submit(scheduler, work(role, [5]))[0]
        time.sleep(0.05)
        assert not executor.jobs
        others = submit(scheduler, work(role, [6]))
    for one in (future, *others):
        one.result(10)
    assert [job.batch.ids.shape for job in executor.jobs] == [(2, 6)]
    with scheduler.arriving():
        start = time.monotonic()
        submit(scheduler, work(role, [5]))[0].result(10)
        assert 0.15 < time.monotonic() - start < 5


def test_a_small_request_waits_at_most_two_batches_beside_large_ones(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin(held=True)
    large = [work(role, [32] * 50) for _ in range(3)]
    submit(scheduler, *large)
    assert executor.began.wait(10)
    small = work(role, [4])
    scheduler.submit(small)
    executor.let.set()
    small.future.result(10)
    assert 4 in executor.jobs[1].batch.mask.sum(axis=1)
    for one in large:
        one.future.result(30)


def test_a_large_request_is_not_passed_by_small_ones_for_ever(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin(held=True)
    large = work(role, [60] * 4)
    scheduler.submit(large)
    assert executor.began.wait(10)
    executor.let.set()
    end = time.monotonic() + 20
    waiting: list[Future[list[Outputs]]] = []
    while not large.future.done() and time.monotonic() < end:  # there is always a small one that waits
        waiting = [future for future in waiting if not future.done()]
        waiting += submit(scheduler, *(work(role, [50]) for _ in range(4 - len(waiting))))
    assert large.future.done()


def test_batches_stay_within_the_budget_and_hold_texts_of_like_length(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin(held=True)
    rng = np.random.default_rng(0)
    scheduler.submit(work(role, [2]))
    assert executor.began.wait(10)
    works = [work(role, rng.integers(2, 30, size=8).tolist()) for _ in range(20)]
    futures = submit(scheduler, *works)
    executor.let.set()
    for future in futures:
        future.result(30)
    shapes = [job.batch.ids.shape for job in executor.jobs]
    assert all(rows * width <= 64 or rows == 1 for rows, width in shapes)
    tokens = sum(int(job.batch.mask.sum()) for job in executor.jobs)
    assert tokens / sum(rows * width for rows, width in shapes) > 0.85


def test_more_than_may_wait_is_refused_whole_and_a_large_one_is_taken_alone(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin(held=True, queue_tokens=100)
    scheduler.submit(work(role, [5]))
    assert executor.began.wait(10)
    huge = work(role, [30] * 10)
    scheduler.submit(huge)  # nothing else waits
    with pytest.raises(OverloadedError, match=r"300 tokens wait, and 5 more would exceed 100") as caught:
        scheduler.submit(work(role, [5]))
    assert caught.value.retry_after_s > 0
    executor.let.set()
    huge.future.result(10)
    submit(scheduler, work(role, [5]))[0].result(10)


def test_a_cancelled_request_frees_its_place(begin: Callable[..., tuple[Scheduler, Executor]], role: Role) -> None:
    scheduler, executor = begin(held=True, queue_tokens=100)
    scheduler.submit(work(role, [5]))
    assert executor.began.wait(10)
    gone = work(role, [30] * 3)
    scheduler.submit(gone)
    assert scheduler.waiting_tokens == 90
    assert gone.future.cancel()
    assert scheduler.waiting_tokens == 0
    executor.let.set()
    submit(scheduler, work(role, [40] * 2))[0].result(10)
    assert all(30 not in job.batch.ids.shape for job in executor.jobs)


def test_a_fault_is_retried_in_a_new_session_and_fails_the_requests_of_the_batch_alone(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin()
    executor.failures = [DeviceError("the graph failed")]
    submit(scheduler, work(role, [5]))[0].result(10)
    assert executor.reopened == 1
    assert scheduler.fault is None
    executor.failures = [DeviceError("the graph failed"), DeviceError("it failed again"), DeviceError("and again")]
    (future,) = submit(scheduler, work(role, [5]))
    with pytest.raises(DeviceError, match="it failed again"):
        future.result(10)
    assert scheduler.fault == "the graph failed"
    end = time.monotonic() + 10
    while scheduler.fault is not None and time.monotonic() < end:  # no request comes while it is not ready
        time.sleep(0.01)
    assert scheduler.fault is None
    submit(scheduler, work(role, [5]))[0].result(10)


def test_a_text_that_does_not_fit_into_memory_is_no_fault_of_the_device(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin()
    executor.failures = [DeviceMemoryError("too little memory")]
    (future,) = submit(scheduler, work(role, [5]))
    with pytest.raises(DeviceMemoryError):
        future.result(10)
    assert (scheduler.fault, executor.reopened) == (None, 0)


def test_a_failing_observer_does_not_end_the_thread(role: Role) -> None:
    def fails(_: Computed) -> None:
        raise ValueError("observer")

    with Scheduler(Executor(), BATCHING, Limits(), observe=fails) as scheduler:
        for _ in range(2):
            assert len(submit(scheduler, work(role, [5]))[0].result(10)) == 1


def test_closing_computes_what_waits_or_fails_it_after_a_time(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, _ = begin()
    futures = submit(scheduler, *(work(role, [5]) for _ in range(20)))
    scheduler.close()
    assert all(len(future.result(0)) == 1 for future in futures)
    with pytest.raises(ClosingError, match="shutting down"):
        scheduler.submit(work(role, [5]))
    stuck, executor = begin(held=True)
    stuck.submit(work(role, [5]))
    assert executor.began.wait(10)
    (waiting,) = submit(stuck, work(role, [5]))
    stuck.close(0.05)
    with pytest.raises(ClosingError, match="shutting down"):
        waiting.result(0)


def test_a_batch_that_takes_longer_than_any_may_is_a_fault_until_it_ends(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin(held=True, max_batch_s=0.1)
    (future,) = submit(scheduler, work(role, [5]))
    assert executor.began.wait(10)
    assert scheduler.fault is None
    time.sleep(0.15)
    assert str(scheduler.fault).startswith("cpu (1 threads): a batch takes 0.")
    executor.let.set()
    future.result(10)
    end = time.monotonic() + 10
    while scheduler.fault is not None and time.monotonic() < end:
        time.sleep(0.01)
    assert scheduler.fault is None


def test_closing_does_not_wait_for_a_batch_that_hangs(role: Role) -> None:
    executor = Executor(held=True)
    stuck = Scheduler(executor, BATCHING, Limits(max_batch_s=0.2)).__enter__()
    (hanging,) = submit(stuck, work(role, [5]))
    assert executor.began.wait(10)
    (waiting,) = submit(stuck, work(role, [5]))
    start = time.monotonic()
    with pytest.raises(HangingError, match="a batch takes 0"):
        stuck.__exit__(None, None, None)
    assert time.monotonic() - start < 5
    with pytest.raises(ClosingError, match="shutting down"):
        waiting.result(0)
    executor.let.set()
    assert len(hanging.result(10)) == 1


def test_thousands_of_cancelled_requests_leave_no_place_taken(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin(held=True, queue_tokens=1 << 20)
    scheduler.submit(work(role, [5]))
    assert executor.began.wait(10)
    rng = np.random.default_rng(0)
    gone = submit(scheduler, *(work(role, rng.integers(2, 40, size=10).tolist()) for _ in range(3000)))
    assert scheduler.waiting_requests == 3000
    start = time.monotonic()
    assert all(future.cancel() for future in gone)
    assert time.monotonic() - start < 5  # a cancelled request costs its own texts, not all that wait
    assert (scheduler.waiting_requests, scheduler.waiting_tokens) == (0, 0)
    executor.let.set()
    submit(scheduler, work(role, [5]))[0].result(10)
    assert len(executor.jobs) == 2


def test_the_memory_of_a_large_batch_is_returned_once_when_nothing_waits(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role
) -> None:
    scheduler, executor = begin(idle_s=0.1)
    submit(scheduler, work(role, [5]))[0].result(10)
    time.sleep(0.3)
    assert executor.released == 0  # a small batch takes little
    submit(scheduler, work(role, [30]))[0].result(10)
    assert executor.released == 0
    end = time.monotonic() + 10
    while not executor.released and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)
    assert executor.released == 1
    submit(scheduler, work(role, [5]))[0].result(10)


def test_the_heaps_are_trimmed_now_and_then_under_load(
    begin: Callable[..., tuple[Scheduler, Executor]], role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    trimmed: list[float] = []
    monkeypatch.setattr(scheduling, "trim", lambda: trimmed.append(time.monotonic()))
    monkeypatch.setattr(scheduling, "_TRIM_S", 0.2)
    scheduler, _ = begin()
    start = time.monotonic()
    while time.monotonic() < start + 1:
        submit(scheduler, work(role, [5]))[0].result(10)
    assert 2 <= len(trimmed) <= 5


def test_a_request_without_texts_is_done_at_once(begin: Callable[..., tuple[Scheduler, Executor]], role: Role) -> None:
    scheduler, _ = begin()
    (future,) = submit(scheduler, work(role, []))
    assert future.result(0) == [{}]


def test_each_batch_is_observed(role: Role) -> None:
    seen: list[Computed] = []
    with Scheduler(Executor(), BATCHING, Limits(), observe=seen.append) as scheduler:
        submit(scheduler, work(role, [5, 3]))[0].result(10)
    assert [(one.roles, one.texts, one.tokens, one.padded) for one in seen] == [("perplexity", 2, 8, 10)]
    assert len(seen[0].waited) == 1
