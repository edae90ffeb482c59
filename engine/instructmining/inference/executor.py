"""Runs batches on one or more devices: results in order; batches too large for the memory are split in half."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, local
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import DeviceError, DeviceMemoryError, InstructMiningError
from instructmining.inference.batching import Batch
from instructmining.inference.cuda_driver import CudaDriver
from instructmining.inference.devices import Device, cpu_threads
from instructmining.inference.memory import trim
from instructmining.inference.placement import Placement
from instructmining.inference.sessions import NO_ACCELERATION, OF_POSITIONS, Acceleration, GraphSession

_IN_FLIGHT = 3  # jobs per worker: one computed, one ready, one whose result waits for those before it
_WIDTHS = 16  # halves' widths are multiples of this
MOST_HELD = 8 << 20  # bytes of rows in jobs whose results are not used yet; a single job may hold more


@dataclass(frozen=True, slots=True)
class Job:
    """A batch, and the outputs to compute for it."""

    graph: Path
    batch: Batch
    outputs: tuple[str, ...]
    held: int = 0  # bytes of rows that memory holds until the result is used


@dataclass(frozen=True, slots=True)
class Done:
    """The results of a job."""

    job: Job
    outputs: Mapping[str, NDArray[np.float32]]  # of the job's whole batch, even where it was split
    seconds: float  # seconds that the device worked on it; its share where batches ran in parallel
    device: Device


class Executor:
    """Sessions of graphs on one or more devices; a context manager, safe to share between threads.

    Where a CPU computes one batch at a time, a job runs in the thread that reads its result. Otherwise each device has
    its own sessions and a thread per parallel batch, and jobs go to whichever is free.
    """

    def __init__(
        self,
        graphs: Iterable[Path],
        devices: Sequence[Device],
        acceleration: Acceleration = NO_ACCELERATION,
        *,
        cuda_graphs: Mapping[Path, Path] = MappingProxyType({}),
    ) -> None:
        """Open a session for each graph on each device.

        Args:
            graphs: what jobs may name.
            devices: to compute on.
            acceleration: options to turn on there.
            cuda_graphs: by graph, the file that takes its place on CUDA.

        Raises:
            BundleError: a graph cannot be loaded.
            DeviceError: a session opened on another device, an acceleration is not available, or CUDA graphs were asked
                for on several devices.
            DeviceMemoryError: the graphs' weights do not fit.
        """
        if acceleration.cuda_graphs and len(devices) > 1:
            # While one device records, CUDA forbids the others to allocate or to wait for a copy.
            raise DeviceError(f"CUDA graphs on {len(devices)} devices; they work on one: turn them off, or give one")
        self.devices = tuple(devices)
        self.splits = 0  # batches split for memory so far
        self.retried = 0  # texts computed again, alone, because an output was not finite
        self._acceleration, self._cuda_graphs = acceleration, cuda_graphs
        wanted = list(dict.fromkeys(graphs))
        self._sessions = {
            (device, graph): GraphSession(
                cuda_graphs.get(graph, graph) if device.kind == "cuda" else graph, device, acceleration
            )
            for device in devices
            for graph in wanted
        }
        self._limits: dict[Path, int] = {}
        self._changing = Lock()  # guards the counts and the limits
        self._opening = Lock()  # guards sessions beyond the devices' own
        self._closed = False
        self._pool: ThreadPoolExecutor | None = None
        workers = [device for device in devices for _ in range(device.batches_at_once)]
        self._most_in_flight = _IN_FLIGHT * len(workers)
        if len(workers) > 1 or devices[0].kind != "cpu":
            self._own = local()  # the device of each thread of the pool
            free = deque(workers)
            self._pool = ThreadPoolExecutor(
                len(workers), "instructmining-device", lambda: setattr(self._own, "device", free.popleft())
            )

    def __enter__(self) -> Self:
        """Return the executor."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Drop jobs that have not started, wait for the others, and free the sessions and their memory."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._sessions.clear()

    def output_size(self, graph: Path, output: str) -> int | None:
        """Return the size of an output's last dimension; None where the graph leaves it open."""
        return self._sessions[self.devices[0], graph].output_size(output)

    def outputs(self, graph: Path) -> frozenset[str]:
        """Return what a graph computes; graphs of earlier exporters have fewer outputs."""
        return self._sessions[self.devices[0], graph].outputs

    def placements(self) -> dict[Path, Placement]:
        """Return where the nodes of each graph run, as proved when it was opened; empty on a CPU."""
        first = self.devices[0]
        placed = {graph: session.placement for (device, graph), session in self._sessions.items() if device == first}
        return {graph: placement for graph, placement in placed.items() if placement is not None}

    def free_bytes(self) -> int | None:
        """Return the memory that no program uses on the first device; None on a CPU, or where it is not known."""
        first = self.devices[0]
        memory = CudaDriver(first.index).memory() if first.kind == "cuda" else None
        return memory.free if memory is not None and memory.total else None

    def limits(self) -> dict[Path, int]:
        """Padded tokens that were too many for the memory, by graph."""
        with self._changing:
            return dict(self._limits)

    def run(self, jobs: Iterable[Job]) -> Iterator[Done]:
        """Yield results in the order of the jobs.

        Args:
            jobs: read as results are yielded, in the same thread; a few ahead where jobs run in other threads.

        Raises:
            DeviceMemoryError: a single row does not fit in memory.
            DeviceError: a graph fails on a batch.
            InstructMiningError: the executor was closed.
        """
        if self._closed:
            raise _closed()
        if self._pool is None:
            return (self._finished(job, self.devices[0]) for job in jobs)
        return self._in_flight(jobs, self._pool)

    def compute(self, job: Job, device: Device) -> Done:
        """Compute one job in this thread, on one of the devices.

        Raises:
            DeviceMemoryError: a single row does not fit in memory.
            DeviceError: a graph fails on the batch.
            InstructMiningError: the executor was closed.
        """
        if self._closed:
            raise _closed()
        return self._finished(job, device)

    def reopen(self, job: Job, device: Device) -> None:
        """Open the graph of a job in a new session, after a fault.

        Raises:
            DeviceError: it does not open.
            BundleError: the graph cannot be loaded.
        """
        file = self._cuda_graphs.get(job.graph, job.graph) if device.kind == "cuda" else job.graph
        self._sessions[device, job.graph] = GraphSession(file, device, self._acceleration)

    def release(self, device: Device) -> None:
        """Return the memory of earlier batches to a device, and of what the process freed to the system.

        The next batches take it again, a little later than else: for when nothing waits.

        Raises:
            DeviceError: a graph fails.
        """
        for (of_session, _), session in list(self._sessions.items()):
            if of_session == device:
                session.release()
        trim()

    def _in_flight(self, jobs: Iterable[Job], pool: ThreadPoolExecutor) -> Iterator[Done]:
        source = iter(jobs)
        begun: deque[tuple[Job, Future[Done]]] = deque()
        held = 0
        ended: Exception | None = None
        try:
            while True:
                try:
                    job = next(source)
                except StopIteration:
                    break
                except Exception as error:  # whatever it is, the results of earlier jobs come first
                    ended = error
                    break
                begun.append((job, self._begin(job, pool)))
                held += job.held
                while begun and (len(begun) >= self._most_in_flight or held >= MOST_HELD or begun[0][1].done()):
                    job, future = begun.popleft()
                    held -= job.held
                    yield _result(future)
            while begun:
                yield _result(begun.popleft()[1])
            if ended is not None:
                raise ended
        finally:
            for _, future in begun:
                future.cancel()

    def _begin(self, job: Job, pool: ThreadPoolExecutor) -> Future[Done]:
        try:
            return pool.submit(lambda: self._finished(job, self._own.device))
        except RuntimeError as error:  # the pool is shut down
            raise _closed() from error

    def _finished(self, job: Job, device: Device) -> Done:
        session = self._sessions.get((device, job.graph))
        if session is None:
            raise (
                _closed() if self._closed else DeviceError(f"{job.graph}: has no session here; open it with the others")
            )
        begin = time.perf_counter()
        outputs = self._outputs(job, job.batch, session, device)
        if any(not np.isfinite(values).all() for values in outputs.values()):
            outputs = self._retried(job, outputs)
        return Done(job, outputs, (time.perf_counter() - begin) / device.batches_at_once, device)

    def _retried(self, job: Job, outputs: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
        """Compute outputs that are not finite again, each text alone, on the CPU.

        A half-precision graph may overflow on a GPU but not here: on the CPU onnxruntime computes in float32 whatever
        it has no half-precision kernel for, above all matrix products.
        """
        better = {name: values.copy() for name, values in outputs.items()}
        session = self._cpu_session(job.graph)
        rows = _not_finite(job.batch, outputs)
        for row in rows:
            places = job.batch.scored[:, 0] == row
            try:
                alone = session.run(_rows(job.batch, row, row + 1), job.outputs)
            except DeviceError:
                continue  # it stays as it is, and its row becomes a reject
            for name, values in alone.items():
                better[name][places if name in OF_POSITIONS else row] = values if name in OF_POSITIONS else values[0]
        with self._changing:
            self.retried += len(rows)
        return better

    def _cpu_session(self, graph: Path) -> GraphSession:
        cpu = next((device for device in self.devices if device.kind == "cpu"), Device("cpu", threads=cpu_threads()))
        with self._opening:
            if (cpu, graph) not in self._sessions:
                self._sessions[cpu, graph] = GraphSession(graph, cpu, NO_ACCELERATION)
            return self._sessions[cpu, graph]

    def _outputs(
        self, job: Job, batch: Batch, session: GraphSession, device: Device
    ) -> Mapping[str, NDArray[np.float32]]:
        rows, width = batch.ids.shape
        limit = self._limits.get(job.graph)
        if limit is None or batch.ids.size < limit or rows == 1:
            try:
                return session.run(batch, job.outputs)
            except DeviceMemoryError as error:
                if rows == 1:
                    raise DeviceMemoryError(
                        f"{job.graph}: a text of {width} tokens does not fit into the memory of {device}: {error}; "
                        "export it with a lower --max-length, or use another --device"
                    ) from error
                with self._changing:
                    self._limits[job.graph] = min(batch.ids.size, self._limits.get(job.graph, batch.ids.size))
        with self._changing:
            self.splits += 1
        first, second = (self._outputs(job, half, session, device) for half in halve(batch))
        return {name: np.concatenate([first[name], second[name]]) for name in job.outputs}


def _not_finite(batch: Batch, outputs: Mapping[str, NDArray[np.float32]]) -> list[int]:
    """Return the rows of a batch with an output that is not finite."""
    bad = np.zeros(len(batch.members), dtype=bool)
    for name, values in outputs.items():
        finite = np.isfinite(values)
        if name in OF_POSITIONS:
            bad[batch.scored[~finite, 0]] = True
        else:
            bad |= ~finite.reshape(len(bad), -1).all(axis=1)
    return np.flatnonzero(bad).tolist()


def halve(batch: Batch) -> tuple[Batch, Batch]:
    """Split a batch of at least two rows in half; each is as wide as its own longest row or up to 15 tokens wider.

    A GPU's fast kernels take multiples of 8 in half precision and of 16 in float32, so widths stay such multiples, but
    never beyond the batch's own width.
    """
    middle = (len(batch.members) + 1) // 2
    return _rows(batch, 0, middle, _WIDTHS), _rows(batch, middle, len(batch.members), _WIDTHS)


def _rows(batch: Batch, begin: int, end: int, width_multiple: int = 1) -> Batch:
    longest = int(batch.mask[begin:end].sum(axis=1).max())
    width = min(batch.ids.shape[1], -(-longest // width_multiple) * width_multiple)
    scored = batch.scored[(batch.scored[:, 0] >= begin) & (batch.scored[:, 0] < end)]
    return Batch(
        members=batch.members[begin:end],
        ids=np.ascontiguousarray(batch.ids[begin:end, :width]),
        positions=np.ascontiguousarray(batch.positions[begin:end, :width]),
        mask=np.ascontiguousarray(batch.mask[begin:end, :width]),
        scored=scored - np.array([begin, 0]),
    )


def _result(future: Future[Done]) -> Done:
    try:
        return future.result()
    except CancelledError as error:
        raise _closed() from error


def _closed() -> InstructMiningError:
    return InstructMiningError("the executor is closed: run jobs inside its with block")
