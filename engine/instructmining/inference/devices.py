"""Chooses where graphs run: the CPU's threads, and CUDA devices that work here, as a probe shows."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from instructmining.bundle import Role
from instructmining.errors import DeviceError
from instructmining.errors.arguments import check_type, shown
from instructmining.inference.cuda_errors import explained, missing_driver, why_not_opened
from instructmining.inference.placement import CUDA_PROVIDER, RECORDED, Placement

_PROBE = "neighbours.onnx"
# Small integers, whose products are exact in every precision, and all different.
_QUERIES = np.array([[1, 2, 3, 4], [4, -1, 2, 0]], dtype=np.float32)
_POINTS = np.array([[3, 0, 1, 2], [0, 5, 2, 1], [4, 1, 0, 0], [1, 1, 1, 1]], dtype=np.float32)
_NEAREST = 2
# Files with a container's CPU quota and period, in control groups version 2 and 1.
_V1 = "/sys/fs/cgroup/cpu/cpu.cfs"
_QUOTAS = (("/sys/fs/cgroup/cpu.max",), (f"{_V1}_quota_us", f"{_V1}_period_us"))
_BATCHES_AT_ONCE = 8  # default maximum, since each takes memory of its own; measured on two threads only


@dataclass(frozen=True, slots=True)
class Device:
    """A device that sessions run on."""

    kind: str  # "cpu" or "cuda"
    index: int = 0
    threads: int = 1  # CPU only
    batches_at_once: int = 1  # CPU only: batches that share the threads

    def __str__(self) -> str:
        """Return the device as the run file names it."""
        if self.kind == "cuda":
            return f"cuda:{self.index}"
        parallel = f", {self.batches_at_once} batches at once" if self.batches_at_once > 1 else ""
        return f"cpu ({self.threads} threads{parallel})"


def choose_devices(asked: str, batches_at_once: int | None = None) -> tuple[Device, ...]:
    """Return the devices that sessions really run on, in the order given.

    Args:
        asked: "auto", "cpu", "cuda", "cuda:N", or several as "cuda:0,1". "auto" uses one CUDA device, and only where a
            session runs there.
        batches_at_once: batches computed in parallel on a CPU, at most one per thread; by default one per thread up to
            eight, which is fastest for many rows. 1 gives a single row the lowest latency.

    Raises:
        DeviceError: the text names no device, or one twice, or CUDA was asked for and a device does not work; the
            message names that device and what is missing.
    """
    check_device(asked, batches_at_once)
    if asked == "cpu":
        threads = cpu_threads()
        return (Device("cpu", threads=threads, batches_at_once=min(threads, batches_at_once or _BATCHES_AT_ONCE)),)
    indices = named_devices(asked)
    for index in indices:
        problem = cuda_problem(index)
        if problem is None:
            continue
        if asked == "auto":
            return choose_devices("cpu", batches_at_once)
        named = f"device {asked!r}" if len(indices) == 1 else f"device {asked!r}: cuda:{index}"
        raise DeviceError(f"{named} does not work here: {problem}")
    return tuple(Device("cuda", index) for index in indices)


def check_device(asked: object, batches_at_once: object) -> None:
    """Check the types of the device options.

    Raises:
        DeviceError: a type is wrong, or ``batches_at_once`` is below 1.
    """
    wanted = f"text: give 'cuda:{asked}'" if type(asked) is int else "'auto', 'cpu', 'cuda', 'cuda:N' or 'cuda:0,1'"
    check_type("device", asked, str, wanted=wanted, error=DeviceError)
    if batches_at_once is not None and (type(batches_at_once) is not int or batches_at_once < 1):
        raise DeviceError(f"batches_at_once is {shown(batches_at_once)}, wanted a number of at least 1, or None")


def named_devices(asked: str) -> list[int]:
    """Parse the numbers of the CUDA devices; "auto" and "cuda" mean the first, "cpu" none.

    Raises:
        DeviceError: the text names no device, or one twice.
    """
    if asked == "cpu":
        return []
    match = re.fullmatch(r"auto|cuda(?::([0-9]+(?:,[0-9]+)*))?", asked)
    if match is None:
        raise DeviceError(f"device {asked!r}; wanted auto, cpu, cuda, cuda:N, or several as cuda:0,1")
    indices = [int(index) for index in (match.group(1) or "0").split(",")]
    for index in indices:
        if indices.count(index) > 1:
            raise DeviceError(f"device {asked!r}: cuda:{index} is named twice; name each device once")
    return indices


def choose_devices_for(roles: Iterable[Role], asked: str, batches_at_once: int | None = None) -> tuple[Device, ...]:
    """Choose the devices for the graphs of these roles; int8 graphs run only on the CPU.

    Args:
        roles: the roles that will run.
        asked: as for :func:`choose_devices`; "auto" uses the CPU where a graph is int8.
        batches_at_once: as for :func:`choose_devices`.

    Raises:
        DeviceError: as for :func:`choose_devices`; or CUDA was asked for int8 graphs, whose products onnxruntime would
            silently run on the CPU.
    """
    check_device(asked, batches_at_once)
    whole = [role.name for role in roles if role.precision == "int8"]
    if not whole:
        return choose_devices(asked, batches_at_once)
    if asked not in {"auto", "cpu"}:
        raise DeviceError(
            f"device {asked!r}: role {whole[0]!r} is int8, which runs on the CPU only; "
            "give --device cpu, or export it with --precision fp16"
        )
    return choose_devices("cpu", batches_at_once)


def runtime_version() -> str:
    """Return the version of onnxruntime."""
    return str(ort.__version__)


def cpu_threads() -> int:
    """Return the number of CPUs that this process may use, by its affinity and the container's quota."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in _QUOTAS:
        try:
            quota, period = " ".join(Path(file).read_text(encoding="ascii") for file in files).split()
        except (OSError, ValueError):
            continue
        return available if quota in {"max", "-1"} else max(1, min(available, int(quota) // int(period)))
    return available


@cache
def cuda_problem(index: int = 0) -> str | None:
    """Return what keeps CUDA from running on a device; None if a small graph ran on it and gave the right numbers."""
    if CUDA_PROVIDER not in ort.get_available_providers():
        return (
            f"this onnxruntime ({ort.__version__}) is built without CUDA; "
            "install onnxruntime-gpu in place of onnxruntime"
        )
    no_driver = missing_driver()
    if no_driver is not None:
        return no_driver
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(sys.stderr):  # it prints what is missing, and standard output is for results
            ort.preload_dlls()
    options = ort.SessionOptions()
    options.add_session_config_entry(RECORDED, "1")
    try:
        session = ort.InferenceSession(
            probe_path(), options, providers=[(CUDA_PROVIDER, {"device_id": index})], enable_fallback=0
        )
        if CUDA_PROVIDER not in session.get_providers():
            return why_not_opened()
        Placement.of_session(session).check("the probe", f"cuda:{index}")
        feeds = {"queries": _QUERIES, "points": _POINTS, "k": np.array([_NEAREST], dtype=np.int64)}
        products, indices = session.run(["values", "indices"], feeds)
    except Exception as error:  # onnxruntime's own classes have no other common root
        return explained(error, index)
    return _wrong(np.asarray(products), np.asarray(indices))


def _wrong(products: NDArray[np.float32], indices: NDArray[np.int64]) -> str | None:
    """Return how the results of the probe differ from those of numpy; None where they are equal."""
    every = _QUERIES @ _POINTS.T
    nearest = np.argsort(-every, axis=1)[:, :_NEAREST]
    wanted = np.take_along_axis(every, nearest, axis=1)
    if np.array_equal(products, wanted) and np.array_equal(indices, nearest):
        return None
    return (
        f"a small graph ran and gave wrong numbers: products {products.tolist()}, wanted {wanted.tolist()}; "
        "check the driver, and the GPU with nvidia-smi"
    )


def probe_path() -> str:
    """Return the path of the probe's graph, which also finds nearest neighbours."""
    return str(resources.files("instructmining.knn") / _PROBE)
