"""How fast a device multiplies matrices with weights through onnxruntime: what a graph's own speed is held against."""

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

# Rows of a batch and size of a square weight. Large enough for full speed, small enough for a second: a CPU reaches
# its best at a few hundred rows; a GPU must be kept busy for longer than it takes to start it.
SHAPES = {"cpu": ((512, 1024), (512, 2048), (1024, 2048)), "cuda": ((16384, 4096), (32768, 4096))}
_SHAPE_S = 0.4  # spent on each, at least
_LEAST_RUNS = 5
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_TYPES: dict[PrecisionName, tuple[type[np.generic], type[np.generic]]] = {
    "fp32": (np.float32, np.float32),
    "fp16": (np.float16, np.float16),
    "int8": (np.uint8, np.float32),
}


@dataclass(frozen=True, slots=True)
class Peak:
    """The fastest of the shapes that were tried."""

    multiply_adds_per_s: float
    rows: int
    size: int  # of the square weight

    @property
    def gflop_per_s(self) -> float:
        """A multiply-add is two operations."""
        return 2 * self.multiply_adds_per_s / 1e9


def product_peak(
    device: Device,
    precision: PrecisionName,
    *,
    shapes: tuple[tuple[int, int], ...] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Peak:
    """Multiply-adds a second of single products with constant weights, the median over some runs of the best shape.

    Inputs and outputs stay on the device. The session's threads spin between runs, its best setting: nothing else
    should run meanwhile.

    Args:
        device: where.
        precision: of the product; int8 by the operator that int8 bundles are made of.
        shapes: rows and size of each product tried; by default :data:`SHAPES`.
        clock: seconds.

    Raises:
        DeviceError: the product does not run there.
    """
    found = [
        Peak(rows * size * size / _seconds(device, precision, rows, size, clock), rows, size)
        for rows, size in shapes or SHAPES[device.kind]
    ]
    return max(found, key=lambda peak: peak.multiply_adds_per_s)


def _seconds(device: Device, precision: PrecisionName, rows: int, size: int, clock: Callable[[], float]) -> float:
    """Of one product, the median."""
    taken, output = _TYPES[precision]
    try:
        session = _open(device, precision, rows, size)
        x = ort.OrtValue.ortvalue_from_numpy(_input(rows, size, taken), device.kind, device.index)
        y = ort.OrtValue.ortvalue_from_shape_and_type([rows, size], output, device.kind, device.index)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", x)
        binding.bind_ortvalue_output("y", y)
        session.run_with_iobinding(binding)  # warms up
        spent: list[float] = []
        while len(spent) < _LEAST_RUNS or sum(spent) < _SHAPE_S:
            begin = clock()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            spent.append(clock() - begin)
    except Exception as error:  # onnxruntime's own classes have no common root but this one
        raise DeviceError(
            f"{device}: a product of {rows} rows with {size} x {size} {precision} failed: {error}"
        ) from error
    return median(spent)


def _open(device: Device, precision: PrecisionName, rows: int, size: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # With both dimensions fixed, the graph's weights become a constant, laid out as those of a bundle's graph.
    options.add_free_dimension_override_by_name("rows", rows)
    options.add_free_dimension_override_by_name("size", size)
    settings: dict[str, object] = {"device_id": device.index, "use_tf32": 0}
    if device.kind == "cpu":
        settings = {}
        options.intra_op_num_threads = device.threads
        options.add_session_config_entry("session.x64quantprecision", "1")  # as the engine's sessions
    graph = resources.files("instructmining_cli.machine") / f"peak_{precision}.onnx"
    providers = [(_PROVIDERS[device.kind], settings)]
    return ort.InferenceSession(graph.read_bytes(), options, providers=providers, enable_fallback=0)


def _input(rows: int, size: int, kind: type[np.generic]) -> NDArray[np.generic]:
    """Numbers without pattern: a GPU multiplies constant ones faster."""
    rng = np.random.default_rng(0)
    if kind is np.uint8:
        return rng.integers(0, 256, size=(rows, size), dtype=np.uint8)
    return rng.standard_normal(size=(rows, size), dtype=np.float32).astype(kind)
