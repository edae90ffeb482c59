"""Step ``probe``: the machine, whether CUDA works there, and its ceilings. Step ``tests``: those marked gpu."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import torch

from benchmarks.gpu.parts import Measure, Part, Place
from benchmarks.gpu.subjects import TINY
from benchmarks.machine import ROOT
from instructmining.inference.cuda_driver import CudaDriver
from instructmining.inference.devices import cuda_problem
from instructmining.inference.sessions import TopKSession
from instructmining_cli.machine.diagnosis import describe_machine
from instructmining_cli.machine.hardware import device_name
from instructmining_cli.machine.peaks import product_peak

_PACKAGES = ("onnxruntime-gpu", "onnxruntime", "torch", "transformers", "numpy", "sentence-transformers", "vllm")
_SMI = ("name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.max.sm", "power.limit")
_MOST_GPUS = 8


def probe_parts() -> list[Part]:
    return [
        Part("probe", "machine", _machine, 20),
        Part("probe", "doctor", _doctor, 20),
        Part("probe", "ceilings", _ceilings, 30),
    ]


def test_parts() -> list[Part]:
    """One for each file, so that a package that is missing for one costs no other."""
    marked = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text("utf-8")]
    marked = marked[:1] if TINY else marked  # the others take as long and show no more
    return [Part("tests", file.stem, _tests(str(file.relative_to(ROOT))), 60) for file in marked]


def _machine(place: Place) -> Iterator[Mapping[str, Any]]:
    gpus = [CudaDriver(index) for index in range(_MOST_GPUS)]
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "name": device_name(place.device),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "providers": ort.get_available_providers(),
        "gpus": [{"name": gpu.name(), "generation": gpu.compute_capability()} for gpu in gpus if gpu.name()],
        "cuda_problem": cuda_problem(),
        "torch": {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
        "driver": _smi(),
        "machine": describe_machine(),
    }
    yield found
    rng = np.random.default_rng(31)
    queries, points = (rng.standard_normal((rows, 384), dtype=np.float32) for rows in (64, 5000))
    values, indices = TopKSession(place.device)(queries, points, 6)
    wanted = queries.astype(np.float64) @ points.T.astype(np.float64)
    nearest = np.argsort(-wanted, axis=1)[:, :6]
    difference = float(np.abs(values - np.take_along_axis(wanted, nearest, axis=1)).max())
    yield found | {"neighbours": {"difference": difference, "same": float((indices == nearest).mean())}}


def _doctor(place: Place) -> Iterator[Mapping[str, Any]]:
    command = [
        sys.executable,
        "-m",
        "instructmining",
        "doctor",
        "--json",
        "--device",
        str(place.device).partition(" ")[0],
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    yield {"doctor": orjson.loads(done.stdout)}


def _ceilings(place: Place) -> Iterator[Mapping[str, Any]]:
    """Products by onnxruntime and by torch, and a copy of device memory, read and written."""
    found: dict[str, Any] = {}
    shapes = ((64, 64),) if TINY else None
    for precision in (place.precision, "fp32"):
        peak = product_peak(place.device, precision, shapes=shapes)
        found[f"onnxruntime_{precision}_tflop_s"] = peak.gflop_per_s / 1e3
        yield found
    size, kind = (64, "cpu") if TINY else (8192, place.device.kind)
    one, other = (torch.randn(size, size, device=kind, dtype=torch.float16) for _ in range(2))
    found["torch_fp16_tflop_s"] = 2 * size**3 / _seconds(lambda: one @ other) / 1e12
    large = torch.zeros(1 << (10 if TINY else 30), device=kind, dtype=torch.float32)
    found["copy_tb_s"] = 2 * large.nbytes / _seconds(large.clone) / 1e12
    yield found


def _seconds(work: Callable[[], object], repeats: int = 10) -> float:
    for _ in range(3):
        work()
    synchronize()
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize()
    return (time.perf_counter() - begin) / repeats


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _smi() -> dict[str, str] | None:
    """What the driver's own tool says of the first GPU; None where it is missing."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return dict(zip(_SMI, done.stdout.strip().split(", "), strict=False))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tests(file: str) -> Measure:
    def measure(_: Place) -> Iterator[Mapping[str, Any]]:
        # Other versions of other packages may warn there.
        options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "-o", "filterwarnings=default", "-rfE"]
        if TINY:
            options.append("--collect-only")
        command = [sys.executable, "-m", "pytest", *options, file]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=_plain())
        lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
        result = {"file": file, "exit_code": done.returncode, "last_line": lines[-1], "output": lines[-60:]}
        yield result
        if done.returncode:
            raise RuntimeError(lines[-1])

    return measure


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "BENCH_TINY"}
