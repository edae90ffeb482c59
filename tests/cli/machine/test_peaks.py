from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import onnxruntime as ort
import pytest
from placed_nodes import assigned

from instructmining.bundle import PrecisionName
from instructmining.errors import DeviceError
from instructmining.inference.devices import Device
from instructmining_cli.machine import peaks
from instructmining_cli.machine.peaks import Peak, product_peak

CPU = Device("cpu", threads=1)


class Clock:
    """Each product takes a tenth of a second, but the first of each shape a whole one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        if self.asked % 2 == 0:
            self.now += 1.0 if self.asked % 10 == 2 else 0.1
        return self.now


@pytest.mark.parametrize("precision", get_args(PrecisionName))
def test_a_product_of_every_precision_runs_on_the_cpu(precision: PrecisionName) -> None:
    peak = product_peak(CPU, precision, shapes=((64, 128),))
    assert (peak.rows, peak.size) == (64, 128)
    assert 1e7 < peak.multiply_adds_per_s < 1e14


def test_the_rate_is_that_of_the_median_run_and_the_best_shape_counts() -> None:
    peak = product_peak(CPU, "fp32", shapes=((8, 16), (8, 32), (4, 16)), clock=Clock())
    assert peak == Peak(pytest.approx(8 * 32 * 32 / 0.1), 8, 32)
    assert peak.gflop_per_s == pytest.approx(2 * 8 * 32 * 32 / 0.1 / 1e9)


def test_a_device_on_which_the_product_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peaks._PROVIDERS, "cpu", "NoSuchExecutionProvider")
    with pytest.raises(DeviceError, match=r"cpu \(1 threads\): a product of 8 rows with 16 x 16 fp32 failed: "):
        product_peak(CPU, "fp32", shapes=((8, 16),))


def test_a_peak_that_a_gpu_leaves_to_the_cpu_is_no_peak_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = SimpleNamespace(
        get_provider_graph_assignment_info=lambda: assigned(("CPUExecutionProvider", "MatMulIntegerToFloat"))
    )
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: placed)
    with pytest.raises(DeviceError, match="opened on cuda:0, but 1 MatMulIntegerToFloat would run on the CPU"):
        product_peak(Device("cuda"), "int8", shapes=((8, 16),))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_product_runs_on_the_gpu_faster_than_any_cpu(precision: PrecisionName) -> None:
    assert product_peak(Device("cuda"), precision).gflop_per_s > 5000
