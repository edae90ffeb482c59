"""Measures how fast a device multiplies by weights through onnxruntime, the peak that graphs are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from statistics import median

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from instructmining.bundle import PrecisionName
from instructmining.errors import DeviceError
from instructmining.inference.devices import Device
from instructmining.inference.placement import RECORDED, Placement

# Rows of a batch and size of a square weight. Large enough for full speed, small enough to take about a second: a CPU
# is fastest from a few hundred rows on; on a GPU a product must take longer than its launch.
SHAPES = {"cpu": ((512, 1024), (512, 2048), (1024, 2048)), "cuda": ((16384, 4096), (32768, 4096))}
_SHAPE_S = 0.4  # least time per shape
_MIN_REPEATS = 5
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_TYPES: dict[PrecisionName, tuple[type[np.generic], type[np.generic]]] = {
    "fp32": (np.float32, np.float32),
    "fp16": (np.float16, np.float16),
    "int8": (np.uint8, np.float32),
}


@dataclass(frozen=True, slots=True)
class Peak:
    """The speed of the fastest shape."""

    multiply_adds_per_s: float
    rows: int
    size: int  # of the square weight

    @property
    def gflop_per_s(self) -> float:
        """Billions of operations per second; a multiply-add is two."""
        return 2 * self.multiply_adds_per_s / 1e9


def product_peak(
    device: Device,
    precision: PrecisionName,
    *,
    shapes: tuple[tuple[int, int], ...] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Peak:
    """Measure single products with constant weights and return the best shape, by the median of its repeats.

    Inputs and outputs stay on the device. The session's threads spin between repeats, its fastest setting, so nothing
    else should run at the same time.

    Args:
        device: device to measure.
        precision: precision of the product; int8 uses the operator of int8 bundles.
        shapes: rows and size of each product to try; by default :data:`SHAPES`.
        clock: returns seconds.

    Raises:
        DeviceError: the product does not run on the device.
    """
    found = [
        Peak(rows * size * size / _seconds(device, precision, rows, size, clock), rows, size)
        for rows, size in shapes or SHAPES[device.kind]
    ]
    return max(found, key=lambda peak: peak.multiply_adds_per_s)


def _seconds(device: Device, precision: PrecisionName, rows: int, size: int, clock: Callable[[], float]) -> float:
    """Return the median seconds of one product."""
    input_type, output_type = _TYPES[precision]
    try:
        session = _open(device, precision, rows, size)
        x = ort.OrtValue.ortvalue_from_numpy(_input(rows, size, input_type), device.kind, device.index)
        y = ort.OrtValue.ortvalue_from_shape_and_type([rows, size], output_type, device.kind, device.index)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", x)
        binding.bind_ortvalue_output("y", y)
        session.run_with_iobinding(binding)  # warms up
        spent: list[float] = []
        while len(spent) < _MIN_REPEATS or sum(spent) < _SHAPE_S:
            begin = clock()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            spent.append(clock() - begin)
    except Exception as error:  # onnxruntime's error classes share no other base
        raise DeviceError(
            f"{device}: a product of {rows} rows with {size} x {size} {precision} failed: {error}"
        ) from error
    return median(spent)


def _open(device: Device, precision: PrecisionName, rows: int, size: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # With both dimensions fixed, the weights become a constant, laid out as in a bundle's graph.
    options.add_free_dimension_override_by_name("rows", rows)
    options.add_free_dimension_override_by_name("size", size)
    settings: dict[str, object] = {"device_id": device.index, "use_tf32": 0}
    if device.kind == "cuda":
        options.add_session_config_entry(RECORDED, "1")
    else:
        settings = {}
        options.intra_op_num_threads = device.threads
        options.add_session_config_entry("session.x64quantprecision", "1")  # as in the engine's sessions
    graph = resources.files("instructmining_cli.machine") / f"peak_{precision}.onnx"
    providers = [(_PROVIDERS[device.kind], settings)]
    session = ort.InferenceSession(graph.read_bytes(), options, providers=providers, enable_fallback=0)
    if device.kind == "cuda":
        Placement.of_session(session).check(f"the product of the peak in {precision}", device)
    return session


def _input(rows: int, size: int, kind: type[np.generic]) -> NDArray[np.generic]:
    """Return random numbers; a GPU multiplies constant ones faster."""
    rng = np.random.default_rng(0)
    if kind is np.uint8:
        return rng.integers(0, 256, size=(rows, size), dtype=np.uint8)
    return rng.standard_normal(size=(rows, size), dtype=np.float32).astype(kind)
