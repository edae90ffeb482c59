"""Batch to arrays: the only user of onnxruntime. Which device runs is proved, never assumed."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from instructmining.bundle import Role
from instructmining.errors import BundleError, DeviceError
from instructmining.records import Batch

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_DRIVER = "libcuda.so.1"
# What onnxruntime-gpu 1.31 loads, as found on Linux; the major versions are those it is built for.
_CUDA_LIBRARIES = (
    "libcudart.so.13",
    "libcublas.so.13",
    "libcublasLt.so.13",
    "libcurand.so.10",
    "libcufft.so.12",
    "libcudnn.so.9",
)
_PROBE = "neighbours.onnx"


@dataclass(frozen=True, slots=True)
class Device:
    """Where sessions run."""

    kind: str  # "cpu" or "cuda"
    index: int = 0
    threads: int = 1  # of onnxruntime's pool, CPU only

    def __str__(self) -> str:
        """As the run file says it."""
        return f"cuda:{self.index}" if self.kind == "cuda" else f"cpu ({self.threads} threads)"


def choose_device(asked: str) -> Device:
    """The device that a session really runs on.

    Args:
        asked: "auto", "cpu", "cuda" or "cuda:N". Auto takes CUDA only where a session runs there.

    Raises:
        DeviceError: CUDA was asked for and does not work; the message names what is missing.
    """
    if asked == "cpu":
        return Device("cpu", threads=cpu_threads())
    match = re.fullmatch(r"auto|cuda(?::(\d+))?", asked)
    if match is None:
        raise DeviceError(f"device {asked!r}; wanted auto, cpu, cuda or cuda:N")
    index = int(match.group(1) or 0)
    problem = cuda_problem(index)
    if problem is None:
        return Device("cuda", index)
    if asked == "auto":
        return Device("cpu", threads=cpu_threads())
    raise DeviceError(f"device {asked!r} does not work here: {problem}")


def choose_device_for(roles: Iterable[Role], asked: str) -> Device:
    """The device for the graphs of these roles: int8 graphs run on the CPU alone.

    Args:
        roles: those that will run.
        asked: as for :func:`choose_device`; auto takes the CPU where a graph is int8.

    Raises:
        DeviceError: as :func:`choose_device`, or CUDA was asked for int8 graphs: onnxruntime would run their products
            on the CPU without a word.
    """
    whole = [role.name for role in roles if role.precision == "int8"]
    if not whole:
        return choose_device(asked)
    if asked not in {"auto", "cpu"}:
        raise DeviceError(
            f"device {asked!r}: role {whole[0]!r} is int8, which runs on the CPU only; "
            "give --device cpu, or export it with --precision fp16"
        )
    return choose_device("cpu")


def runtime_version() -> str:
    """Version of onnxruntime."""
    return str(ort.__version__)


def cpu_threads() -> int:
    """CPUs that this process may use: its affinity, and the container's quota where there is one."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return available
    return available if quota == "max" else max(1, min(available, int(quota) // int(period)))


@cache
def cuda_problem(index: int = 0) -> str | None:
    """What keeps CUDA from running here, or None if a small graph ran on it."""
    if _CUDA not in ort.get_available_providers():
        return (
            f"this onnxruntime ({ort.__version__}) is built without CUDA; "
            "install onnxruntime-gpu in place of onnxruntime"
        )
    if os.name == "posix" and not _loads(_DRIVER):
        return f"cannot load {_DRIVER}; install the NVIDIA driver"
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(sys.stderr):  # it prints what it misses, and standard output is for results
            ort.preload_dlls()
    missing = [name for name in _CUDA_LIBRARIES if not _loads(name)] if os.name == "posix" else []
    if missing:
        return f"cannot load {', '.join(missing)}; pip install 'instructmining[cuda]'"
    try:
        session = ort.InferenceSession(_probe_path(), providers=[(_CUDA, {"device_id": index})], enable_fallback=0)
        if _CUDA not in session.get_providers():
            return "onnxruntime opened the session on the CPU instead; see its messages above"
        points = np.eye(4, dtype=np.float32)
        session.run(None, {"queries": points, "points": points, "k": np.array([2], dtype=np.int64)})
    except Exception as error:  # onnxruntime's own classes have no common root but this one
        return (str(error).strip() or type(error).__name__).splitlines()[-1]
    return None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _probe_path() -> str:
    return str(resources.files("instructmining") / _PROBE)


def _open(graph: str, device: Device) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    wanted = _CPU
    settings: dict[str, object] = {}
    if device.kind == "cuda":
        wanted = _CUDA
        # TF32 rounds the inputs of float32 products to 10 bits, and the numbers would not be those of the gate.
        settings = {"device_id": device.index, "arena_extend_strategy": "kSameAsRequested", "use_tf32": 0}
    else:
        options.intra_op_num_threads = device.threads
        # Exact integer products also where the CPU has no VNNI: the default kernel saturates there.
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        # With its fallback on, a provider that fails in the middle of a run is replaced by the CPU, with a print.
        session = ort.InferenceSession(graph, options, providers=[(wanted, settings)], enable_fallback=0)
    except Exception as error:  # onnxruntime's own classes have no common root but this one
        raise BundleError(f"{graph}: onnxruntime cannot load it: {error}") from error
    if session.get_providers()[0] != wanted:
        raise DeviceError(f"{graph}: opened on {session.get_providers()[0]}, asked for {wanted}")
    return session


class GraphSession:
    """One graph on one device; safe to share between threads."""

    def __init__(self, graph: Path, device: Device) -> None:
        """Open the graph.

        Args:
            graph: an ``.onnx`` file with the inputs and outputs of DESIGN's contract.
            device: where it runs.

        Raises:
            BundleError: the graph cannot be loaded.
            DeviceError: the session opened elsewhere than asked.
        """
        self._graph = graph
        self._session = _open(str(graph), device)
        self._inputs = frozenset(value.name for value in self._session.get_inputs())
        self.outputs = frozenset(value.name for value in self._session.get_outputs())

    def run(self, batch: Batch, outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Run one batch.

        Args:
            batch: right-padded texts. Its scored positions are passed only when ``nll`` is among the outputs:
                the vocabulary product is computed for whatever positions are given.
            outputs: names of those wanted.

        Returns:
            ``nll`` (n,), in the order of the batch's scored positions; ``reward`` (rows,); ``embedding`` (rows, size).

        Raises:
            DeviceError: the graph fails on this batch.
        """
        scored = batch.scored if "nll" in outputs else batch.scored[:0]
        feeds = {
            "input_ids": batch.ids,
            "position_ids": batch.positions,
            "attention_mask": batch.mask,
            "scored": scored,
        }
        try:
            values = self._session.run(list(outputs), {name: feeds[name] for name in feeds if name in self._inputs})
        except Exception as error:  # onnxruntime's own classes have no common root but this one
            raise DeviceError(f"{self._graph}: failed on a batch of shape {batch.ids.shape}: {error}") from error
        return dict(zip(outputs, values, strict=True))


class TopKSession:
    """Largest inner products between two sets of vectors, by the small graph that ships with the package."""

    def __init__(self, device: Device) -> None:
        """Open the graph on a device."""
        self._session = _open(_probe_path(), device)

    def __call__(
        self, queries: NDArray[np.float32], points: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k largest inner products of each query with the points, descending.

        Args:
            queries: float32 (queries, size).
            points: float32 (points, size).
            k: how many, at most the number of points.

        Returns:
            float32 (queries, k) products and int64 (queries, k) indices of points.

        Raises:
            DeviceError: the graph fails on these vectors.
        """
        feeds = {"queries": queries, "points": points, "k": np.array([k], dtype=np.int64)}
        try:
            values, indices = self._session.run(["values", "indices"], feeds)
        except Exception as error:  # onnxruntime's own classes have no common root but this one
            raise DeviceError(f"neighbours of {queries.shape} among {points.shape}: failed: {error}") from error
        return values, indices
