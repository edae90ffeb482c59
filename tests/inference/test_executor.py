from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from instructmining import Bundle
from instructmining.errors import DeviceError, DeviceMemoryError, InstructMiningError
from instructmining.inference import executor as execution
from instructmining.inference.batching import Batch, batches
from instructmining.inference.cuda_driver import Memory
from instructmining.inference.devices import Device, choose_devices
from instructmining.inference.executor import MOST_HELD, Done, Executor, Job, halve
from instructmining.inference.placement import Placement
from instructmining.inference.sessions import Acceleration, GraphSession
from instructmining.tokenizing.truncation import Tokens

CPU = Device("cpu", threads=1)
SHARED_CPU = Device("cpu", threads=4, batches_at_once=2)
FIRST, SECOND = Device("cuda", 0), Device("cuda", 1)
GRAPH, OTHER = Path("model.onnx"), Path("other.onnx")
OUTPUTS = ("nll", "reward", "embedding")


def batch_of(*lengths: int, seed: int = 0) -> Batch:
    """Random texts, all but the first token of each scored."""
    rng = np.random.default_rng(seed)
    texts = [Tokens(rng.integers(1, 1000, size=length), np.arange(1, length)) for length in lengths]
    (batch,) = batches(texts, max_batch_tokens=10_000)
    return batch


def jobs(count: int, *, graph: Path = GRAPH) -> Iterator[Job]:
    for number in range(count):
        yield Job(graph, batch_of(3, 2, 5, seed=number), OUTPUTS)


@dataclass
class Play:
    """How the fake devices behave, and what they did."""

    seconds: dict[Device, float] = field(default_factory=dict)  # of a run
    memory: float = float("inf")  # padded tokens that fit
    fails: Callable[[Batch], bool] = lambda _: False
    overflows: Callable[[Device, int], bool] = lambda _, __: False  # whether a text, named by its first token, does
    placement: Placement | None = None
    open: int = 0
    ran: list[tuple[Device, Path, tuple[int, ...]]] = field(default_factory=list)  # device, graph, shape
    threads: dict[Device, set[str]] = field(default_factory=dict)
    released: list[tuple[Device, Path]] = field(default_factory=list)
    at_work: int = 0
    most_at_work: int = 0
    gate: threading.Event | None = None  # runs wait for it
    passes: Batch | None = None  # but not this one's


class FakeSession:
    """A graph whose outputs are sums that can be checked by hand: padding would show in them."""

    play = Play()
    lock = threading.Lock()

    def __init__(self, graph: Path, device: Device, acceleration: Acceleration) -> None:
        self._graph, self._device = graph, device
        assert isinstance(acceleration, Acceleration)
        self.placement = self.play.placement
        self.play.open += 1

    def release(self) -> None:
        self.play.released.append((self._device, self._graph))

    def run(self, batch: Batch, outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        play = self.play
        with self.lock:
            play.ran.append((self._device, self._graph, batch.ids.shape))
            play.threads.setdefault(self._device, set()).add(threading.current_thread().name)
            play.at_work += 1
            play.most_at_work = max(play.most_at_work, play.at_work)
        if play.gate is not None and batch is not play.passes:
            assert play.gate.wait(20)
        time.sleep(play.seconds.get(self._device, 0))
        with self.lock:
            play.at_work -= 1
        if batch.ids.size > play.memory:
            raise DeviceMemoryError("out of memory")
        if play.fails(batch):
            raise DeviceError("CUDA failure 700")
        totals = (batch.ids * batch.mask).sum(axis=1)
        assert (batch.positions == np.where(batch.mask == 1, np.arange(batch.ids.shape[1]), 0)).all()
        values = {
            "nll": batch.ids[batch.scored[:, 0], batch.scored[:, 1]],
            "reward": totals,
            "embedding": np.stack([totals, batch.ids[:, 0]], axis=1),
        }
        found = {name: values[name].astype(np.float32) for name in outputs}
        for row in range(len(batch.members)):
            if play.overflows(self._device, int(batch.ids[row, 0])):
                for name, value in found.items():
                    value[batch.scored[:, 0] == row if name == "nll" else row] = np.nan if name == "nll" else np.inf
        return found


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    monkeypatch.setattr(execution, "GraphSession", FakeSession)
    monkeypatch.setattr(FakeSession, "play", Play())
    return FakeSession.play


def by_hand(batch: Batch) -> dict[str, NDArray[np.float32]]:
    return {
        "nll": batch.ids[batch.scored[:, 0], batch.scored[:, 1]].astype(np.float32),
        "reward": batch.ids.sum(axis=1).astype(np.float32),
        "embedding": np.stack([batch.ids.sum(axis=1), batch.ids[:, 0]], axis=1).astype(np.float32),
    }


def assert_right(done: Done) -> None:
    wanted = by_hand(done.job.batch)
    assert list(done.outputs) == list(done.job.outputs)
    for name in done.job.outputs:
        np.testing.assert_array_equal(done.outputs[name], wanted[name])


DEVICES = [(CPU,), (SHARED_CPU,), (FIRST,), (FIRST, SECOND), (FIRST, SECOND, Device("cuda", 2))]


# Order


@pytest.mark.parametrize("devices", DEVICES)
def test_results_come_in_the_order_of_the_jobs(play: Play, devices: tuple[Device, ...]) -> None:
    play.seconds = dict.fromkeys(devices, 0.003) | {FIRST: 0.009}  # the others are faster and get more to do
    wanted = list(jobs(30))
    with Executor([GRAPH], devices) as executor:
        found = list(executor.run(wanted))
    assert [done.job for done in found] == wanted
    for done in found:
        assert_right(done)
        assert done.device in devices
        assert done.seconds * done.device.batches_at_once >= play.seconds.get(done.device, 0)
    assert {done.device for done in found} == set(devices)
    assert play.open == len(devices)


def test_only_the_outputs_asked_for_come(play: Play) -> None:
    play.memory = 4
    with Executor([GRAPH], [FIRST]) as executor:
        (done,) = executor.run([Job(GRAPH, batch_of(3, 4), ("reward",))])
    assert list(done.outputs) == ["reward"]
    assert_right(done)


def test_each_job_runs_on_its_own_graph_and_a_graph_named_twice_is_opened_once(play: Play) -> None:
    with Executor([GRAPH, OTHER, GRAPH], [FIRST]) as executor:
        list(executor.run([*jobs(2), *jobs(1, graph=OTHER), *jobs(1)]))
    assert [graph for _, graph, _ in play.ran] == [GRAPH, GRAPH, OTHER, GRAPH]
    assert play.open == 2


def test_memory_of_all_graphs_on_one_device_is_released(play: Play) -> None:
    graphs = [Path("a.onnx"), Path("b.onnx")]
    with Executor(graphs, (FIRST, SECOND)) as executor:
        executor.release(SECOND)
    assert play.released == [(SECOND, graph) for graph in graphs]


def test_a_graph_that_was_not_opened_is_an_error(play: Play) -> None:
    with Executor([GRAPH], [CPU]) as executor, pytest.raises(DeviceError, match=r"other\.onnx: has no session here"):
        list(executor.run(jobs(1, graph=OTHER)))
    assert not play.ran


# Side by side


def test_one_cpu_runs_a_job_in_the_thread_that_takes_its_result_when_it_is_taken(play: Play) -> None:
    taken: list[int] = []
    with Executor([GRAPH], [CPU]) as executor:
        results = executor.run(job for number, job in enumerate(jobs(3)) if not taken.append(number))  # type: ignore[func-returns-value]
        assert not taken
        next(results)
        assert (taken, len(play.ran)) == ([0], 1)
    assert play.threads == {CPU: {threading.current_thread().name}}


def test_jobs_that_hold_many_bytes_are_not_taken_far_ahead_of_their_results(play: Play) -> None:
    taken: list[int] = []

    def wanted() -> Iterator[Job]:
        for number, job in enumerate(jobs(12)):
            taken.append(number)
            yield replace(job, held=MOST_HELD)

    play.seconds = {SHARED_CPU: 0.01}
    with Executor([GRAPH], [SHARED_CPU]) as executor:
        for number, _ in enumerate(executor.run(wanted())):
            assert len(taken) <= number + 2
    assert len(taken) == 12


def test_devices_compute_at_the_same_time_each_in_one_thread_of_its_own(play: Play) -> None:
    play.seconds = {FIRST: 0.02, SECOND: 0.02}
    with Executor([GRAPH], [FIRST, SECOND]) as executor:
        list(executor.run(jobs(12)))
    assert play.most_at_work == 2
    assert [len(play.threads[device]) for device in (FIRST, SECOND)] == [1, 1]
    assert not play.threads[FIRST] & play.threads[SECOND]
    assert threading.current_thread().name not in play.threads[FIRST] | play.threads[SECOND]


def test_batches_that_share_a_cpu_share_its_sessions_and_its_time(play: Play) -> None:
    play.seconds = {SHARED_CPU: 0.02}
    with Executor([GRAPH], [SHARED_CPU]) as executor:
        begin = time.perf_counter()
        done = list(executor.run(jobs(12)))
        elapsed = time.perf_counter() - begin
    assert (play.most_at_work, play.open, len(play.threads[SHARED_CPU])) == (2, 1, 2)
    assert 12 * 0.02 / 2 <= sum(each.seconds for each in done) <= elapsed


@pytest.mark.parametrize("devices", [(FIRST,), (FIRST, SECOND)])
def test_jobs_are_taken_three_a_device_ahead_and_no_more(play: Play, devices: tuple[Device, ...]) -> None:
    play.gate = threading.Event()
    most, taken = 3 * len(devices), 0

    def source() -> Iterator[Job]:
        nonlocal taken
        for job in jobs(50):
            taken += 1
            if taken == most:
                play.gate.set()  # type: ignore[union-attr]
            yield job

    with Executor([GRAPH], devices) as executor:
        results = executor.run(source())
        next(results)
        assert taken == most
        for number, _ in enumerate(results, start=2):
            assert taken - number <= most
    assert taken == 50


def test_a_result_does_not_wait_for_jobs_that_are_slow_to_come(play: Play) -> None:
    came: list[Job] = []

    def source() -> Iterator[Job]:
        for job in jobs(2):
            yield job
            deadline = time.monotonic() + 10
            while not play.ran and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.02)
        assert came, "the first result was held back"

    with Executor([GRAPH], [FIRST]) as executor:
        for done in executor.run(source()):
            came += [done.job]
    assert len(came) == 2


@pytest.mark.parametrize("devices", DEVICES)
def test_several_threads_may_run_jobs_at_once_and_each_gets_its_own_results(
    play: Play, devices: tuple[Device, ...]
) -> None:
    play.seconds = dict.fromkeys(devices, 0.001)
    found: dict[int, list[Done]] = {}
    with Executor([GRAPH, OTHER], devices) as executor:

        def work(caller: int) -> None:
            wanted = [Job((GRAPH, OTHER)[caller % 2], batch_of(3, 4, seed=100 * caller + n), OUTPUTS) for n in range(8)]
            found[caller] = list(executor.run(wanted))
            assert [done.job for done in found[caller]] == wanted

        threads = [threading.Thread(target=work, args=(caller,)) for caller in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert [len(found[caller]) for caller in range(4)] == [8] * 4
    for results in found.values():
        for done in results:
            assert_right(done)


# Errors and the end


@pytest.mark.parametrize("devices", DEVICES)
def test_an_error_in_one_job_comes_in_its_place_and_the_executor_goes_on_for_others(
    play: Play, devices: tuple[Device, ...]
) -> None:
    wanted = list(jobs(20))
    bad = wanted[7].batch
    play.fails = lambda batch: batch is bad
    with Executor([GRAPH], devices) as executor:
        results = executor.run(wanted)
        assert [next(results).job for _ in range(7)] == wanted[:7]
        with pytest.raises(DeviceError, match="CUDA failure 700"):
            next(results)
        assert not list(results)
        assert len(list(executor.run(jobs(5)))) == 5


@pytest.mark.parametrize("devices", DEVICES)
def test_an_error_of_the_source_comes_after_the_results_of_the_jobs_before_it(
    play: Play, devices: tuple[Device, ...]
) -> None:
    def source() -> Iterator[Job]:
        yield from jobs(4)
        raise InstructMiningError("line 5: broken")

    with Executor([GRAPH], devices) as executor:
        results = executor.run(source())
        assert len(list(islice(results, 4))) == 4
        with pytest.raises(InstructMiningError, match="line 5: broken"):
            next(results)
    assert len(play.ran) == 4


@pytest.mark.parametrize("devices", [(FIRST,), (FIRST, SECOND)])
def test_results_that_nobody_wants_any_more_are_not_computed(play: Play, devices: tuple[Device, ...]) -> None:
    wanted = list(jobs(50))
    play.gate, play.passes = threading.Event(), wanted[0].batch
    with Executor([GRAPH], devices) as executor:
        results = executor.run(wanted)
        next(results)
        results.close()  # type: ignore[attr-defined]
        play.gate.set()
        list(executor.run(wanted[:1]))
    assert len(play.ran) <= 1 + len(devices) + 1  # the first, those at work then, and the last


@pytest.mark.parametrize("devices", DEVICES)
def test_a_closed_executor_is_said_and_nobody_hangs(play: Play, devices: tuple[Device, ...]) -> None:
    play.seconds = dict.fromkeys(devices, 0.002)
    with Executor([GRAPH], devices) as executor:
        results = executor.run(jobs(30))
        next(results)
    with pytest.raises(InstructMiningError, match="the executor is closed"):
        list(results)
    with pytest.raises(InstructMiningError, match="the executor is closed"):
        list(executor.run(jobs(1)))


def test_the_threads_end_with_the_executor(play: Play) -> None:
    before = set(threading.enumerate())
    with Executor([GRAPH], [FIRST, SECOND]) as executor:
        list(executor.run(jobs(6)))
        assert set(threading.enumerate()) > before
    assert play.ran
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("devices", [(CPU,), (SHARED_CPU,), (FIRST, SECOND)])
def test_a_text_whose_outputs_are_not_finite_is_computed_again_alone_on_the_cpu(
    play: Play, devices: tuple[Device, ...]
) -> None:
    batch = batch_of(3, 2, 5)
    bad = int(batch.ids[1, 0])
    play.overflows = lambda device, first: device in devices and len(play.ran) == 1 and first == bad
    with Executor([GRAPH], devices) as executor:
        (done,) = executor.run([Job(GRAPH, batch, OUTPUTS)])
        assert executor.retried == 1
    assert_right(done)
    (_, _, shape), (device, _, alone) = play.ran
    assert shape == (3, 5)
    assert device.kind == "cpu"
    assert alone == (1, int(batch.mask[1].sum()))


def test_a_text_that_is_not_finite_alone_either_stays_so_and_costs_no_other(play: Play) -> None:
    batch = batch_of(3, 2, 5)
    bad = int(batch.ids[2, 0])
    play.overflows = lambda _, first: first == bad
    with Executor([GRAPH], [FIRST]) as executor:
        (done,) = executor.run([Job(GRAPH, batch, OUTPUTS)])
    wanted = by_hand(batch)
    for name, values in done.outputs.items():
        of_bad = batch.scored[:, 0] == 2 if name == "nll" else np.arange(3) == 2
        assert not np.isfinite(values[of_bad]).any()
        np.testing.assert_array_equal(values[~of_bad], wanted[name][~of_bad])


def test_a_text_that_fails_alone_stays_as_it_is(play: Play) -> None:
    batch = batch_of(3, 2)
    play.overflows = lambda _, first: first == int(batch.ids[0, 0])
    play.fails = lambda asked: len(asked.members) == 1
    with Executor([GRAPH], [FIRST]) as executor:
        (done,) = executor.run([Job(GRAPH, batch, OUTPUTS)])
        assert executor.retried == 1
    assert np.isfinite(done.outputs["reward"]).tolist() == [False, True]


def test_cuda_graphs_on_several_devices_are_refused(play: Play) -> None:
    with pytest.raises(DeviceError, match="CUDA graphs on 2 devices; they work on one"):
        Executor([GRAPH], [FIRST, SECOND], Acceleration(cuda_graphs=True))
    assert not play.open


def test_the_free_memory_is_the_first_gpus_and_of_a_cpu_not_known(
    play: Play,  # noqa: ARG001 - sessions are played
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {0: Memory(30, 100), 1: Memory(0, 0)}
    monkeypatch.setattr(execution, "CudaDriver", lambda index: SimpleNamespace(memory=lambda: answers.get(index)))
    for device, free in ((FIRST, 30), (SECOND, None), (Device("cuda", 2), None), (CPU, None)):
        with Executor([GRAPH], [device]) as executor:
            assert executor.free_bytes() == free


def test_where_the_nodes_of_each_graph_run_is_known_on_a_gpu(play: Play) -> None:
    play.placement = Placement(45, {"Cast": 1})
    with Executor([GRAPH, OTHER], [FIRST, SECOND]) as executor:
        assert executor.placements() == {GRAPH: play.placement, OTHER: play.placement}
    play.placement = None
    with Executor([GRAPH], [CPU]) as executor:
        assert executor.placements() == {}


# Too little memory


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=12), st.integers(0, 1000))
def test_halves_hold_every_row_once_and_are_as_wide_as_their_longest_or_the_next_multiple_of_16(
    lengths: list[int], seed: int
) -> None:
    batch = batch_of(*lengths, seed=seed)
    halves = halve(batch)
    assert np.concatenate([half.members for half in halves]).tolist() == batch.members.tolist()
    assert abs(len(halves[0].members) - len(halves[1].members)) <= 1
    for half in halves:
        assert half.ids.shape == half.mask.shape == half.positions.shape
        longest = int(half.mask.sum(axis=1).max())
        assert half.ids.shape[1] == min(batch.ids.shape[1], -(-longest // 16) * 16)
        alone = batch_of(*lengths, seed=seed)
        rows = [alone.members.tolist().index(member) for member in half.members.tolist()]
        for row, whole in enumerate(rows):
            np.testing.assert_array_equal(half.ids[row][half.mask[row] == 1], batch.ids[whole][batch.mask[whole] == 1])
            np.testing.assert_array_equal(
                half.scored[half.scored[:, 0] == row, 1], batch.scored[batch.scored[:, 0] == whole, 1]
            )


@pytest.mark.parametrize(("lengths", "widths"), [((100, 90, 41, 35), (100, 48)), ((64, 33, 30, 2), (64, 32))])
def test_halves_keep_widths_that_the_fast_kernels_take(lengths: tuple[int, ...], widths: tuple[int, int]) -> None:
    first, second = halve(batch_of(*lengths))
    assert (first.ids.shape[1], second.ids.shape[1]) == widths  # 100 is the batch's own width: a limit of the model


@pytest.mark.parametrize("devices", [(CPU,), (FIRST,), (FIRST, SECOND)])
@pytest.mark.parametrize("memory", [40, 20, 12, 9])
def test_a_batch_beyond_the_memory_is_split_as_far_as_needed_and_nothing_is_lost(
    play: Play, devices: tuple[Device, ...], memory: int
) -> None:
    play.memory = memory
    wanted = [Job(GRAPH, batch_of(9, 8, 8, 5, 3, 2, 1, seed=seed), OUTPUTS) for seed in range(4)]
    with Executor([GRAPH], devices) as executor:
        for done in executor.run(wanted):
            assert_right(done)
        assert executor.splits >= 4
    fitted = [shape for _, _, shape in play.ran if shape[0] * shape[1] <= memory]
    assert sum(rows for rows, _ in fitted) == 4 * 7


def test_the_limit_is_remembered_and_larger_batches_are_split_before_they_run(play: Play) -> None:
    play.memory = 30
    with Executor([GRAPH, OTHER], [FIRST]) as executor:
        assert executor.limits() == {}
        list(executor.run([Job(GRAPH, batch_of(8, 8, 8, 8), OUTPUTS)]))  # 32 do not fit, 16 do
        assert executor.limits() == {GRAPH: 32}
        assert [shape for _, _, shape in play.ran] == [(4, 8), (2, 8), (2, 8)]
        assert executor.splits == 1
        play.ran.clear()
        list(executor.run([Job(GRAPH, batch_of(10, 10, 10, 10), OUTPUTS), Job(GRAPH, batch_of(7, 7, 7, 7), OUTPUTS)]))
        assert [shape for _, _, shape in play.ran] == [(2, 10), (2, 10), (4, 7)]
        assert executor.splits == 2
        play.memory = 10
        list(executor.run([Job(GRAPH, batch_of(5, 5, 5, 5), OUTPUTS), Job(OTHER, batch_of(2, 2), OUTPUTS)]))
        assert executor.limits() == {GRAPH: 20}  # the smallest found so far; of the other graph none


def test_a_row_that_does_not_fit_alone_is_an_error_that_says_what_to_do(play: Play) -> None:
    play.memory = 12
    with Executor([GRAPH], [SECOND]) as executor:
        results = executor.run([Job(GRAPH, batch_of(3, 2), OUTPUTS), Job(GRAPH, batch_of(13, 4, 4), OUTPUTS)])
        assert_right(next(results))
        message = (
            r"model\.onnx: a text of 13 tokens does not fit into the memory of cuda:1: .* --max-length, .*--device"
        )
        with pytest.raises(DeviceMemoryError, match=message):
            next(results)
        assert executor.limits() == {GRAPH: 26}  # of a row alone nothing is learned that a split could help


def test_a_single_row_is_tried_whatever_the_limit(play: Play) -> None:
    play.memory = 10
    with Executor([GRAPH], [FIRST]) as executor:
        list(executor.run([Job(GRAPH, batch_of(6, 6), OUTPUTS)]))
        play.memory = 100
        (done,) = executor.run([Job(GRAPH, batch_of(50), OUTPUTS)])
    assert_right(done)
    assert executor.splits == 1


def test_other_errors_are_not_answered_with_a_split(play: Play) -> None:
    play.fails = lambda _: True
    with Executor([GRAPH], [FIRST]) as executor:
        with pytest.raises(DeviceError, match="CUDA failure 700"):
            list(executor.run(jobs(1)))
        assert (executor.splits, executor.limits(), len(play.ran)) == (0, {}, 1)


# With real sessions


def values_by_text(results: Iterable[Done]) -> dict[int, float]:
    found = {}
    for done in results:
        batch = done.job.batch
        for row, member in enumerate(batch.members.tolist()):
            found[member] = float(done.outputs["nll"][batch.scored[:, 0] == row].sum())
    return found


def real_jobs(graph: Path, *, max_batch_tokens: int) -> Iterator[Job]:
    rng = np.random.default_rng(5)
    texts = [Tokens(rng.integers(5, 300, size=length), np.arange(1, length)) for length in range(4, 60, 3)]
    for batch in batches(texts, max_batch_tokens=max_batch_tokens):
        yield Job(graph, batch, ("nll", "reward"))


def test_a_split_batch_has_the_values_of_the_whole_one_within_the_gates_bounds(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Bundle.open(small_bundle).roles["perplexity"].graph
    with Executor([graph], [CPU]) as executor:
        whole = values_by_text(executor.run(real_jobs(graph, max_batch_tokens=400)))
    run = GraphSession.run

    def small(self: GraphSession, batch: Batch, outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        if batch.ids.size > 60:
            raise DeviceMemoryError("out of memory")
        return run(self, batch, outputs)

    monkeypatch.setattr(GraphSession, "run", small)
    with Executor([graph], [CPU]) as executor:
        split = values_by_text(executor.run(real_jobs(graph, max_batch_tokens=400)))
        assert executor.splits > 5
    assert split == pytest.approx(whole, abs=1e-4)


@pytest.mark.gpu
def test_a_gpu_with_too_little_memory_gives_the_values_that_it_gives_with_enough(small_bundle: Path) -> None:
    devices = choose_devices("cuda")
    graph = Bundle.open(small_bundle).roles["perplexity"].graph
    rng = np.random.default_rng(5)
    texts = [Tokens(rng.integers(5, 300, size=500), np.arange(1, 500)) for _ in range(64)]
    (batch,) = batches(texts, max_batch_tokens=100_000)
    work = [Job(graph, batch, ("nll", "reward"))] * 3
    with Executor([graph], devices) as executor:
        enough = [done.outputs for done in executor.run(work)]
        assert executor.splits == 0
    # 64 times 499 scored positions over 400 words are 51 MB of float32 logits.
    with Executor([graph], devices, Acceleration(memory_bytes=48 << 20)) as executor:
        little = [done.outputs for done in executor.run(work)]
        assert executor.splits > 0
        assert executor.limits()[graph] <= batch.ids.size
    for one, other in zip(enough, little, strict=True):
        for name in one:
            np.testing.assert_allclose(other[name], one[name], rtol=0, atol=1e-3)


@pytest.mark.gpu
def test_two_graphs_on_a_gpu_take_turns_and_give_the_values_of_the_cpu(small_bundle: Path) -> None:
    roles = Bundle.open(small_bundle).roles
    rng = np.random.default_rng(6)
    work = []
    for number in range(8):
        texts = [Tokens(rng.integers(5, 300, size=length), np.arange(1, length)) for length in (40, 30, 12 + number)]
        (batch,) = batches(texts, max_batch_tokens=1000)
        work += [Job(roles["perplexity"].graph, batch, ("nll", "reward"))]
        work += [Job(roles["embedding"].graph, batch, ("embedding",))]
    graphs = [roles["perplexity"].graph, roles["embedding"].graph]
    with Executor(graphs, [CPU]) as executor:
        wanted = [done.outputs for done in executor.run(work)]
    for acceleration in (Acceleration(), Acceleration(cuda_graphs=True)):
        with Executor(graphs, choose_devices("cuda"), acceleration) as executor:
            for number, done in enumerate(executor.run(work)):
                for name in done.outputs:
                    np.testing.assert_allclose(done.outputs[name], wanted[number][name], rtol=0, atol=1e-3)
