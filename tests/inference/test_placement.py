from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import onnxruntime as ort
import pytest
from placed_nodes import assigned

from instructmining.errors import DeviceError
from instructmining.inference.placement import Placement

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Session:
    """A session whose nodes stand where the test says."""

    def __init__(self, *nodes: tuple[str, str]) -> None:
        self._nodes = nodes

    def get_provider_graph_assignment_info(self) -> list[object]:
        return assigned(*self._nodes)


def placement(*nodes: tuple[str, str]) -> Placement:
    return Placement.of_session(cast(ort.InferenceSession, Session(*nodes)))


def test_nodes_are_counted_on_the_device_and_by_operator_on_the_cpu() -> None:
    found = placement((CUDA, "MatMul"), (CPU, "Squeeze"), (CUDA, "Gemm"), (CPU, "Cast"), (CPU, "Squeeze"))
    assert found == Placement(2, {"Cast": 1, "Squeeze": 2})
    assert str(found) == "2 nodes on the device, 1 Cast, 2 Squeeze on the CPU"
    assert found.as_json() == {"on_device": 2, "on_cpu": {"Cast": 1, "Squeeze": 2}}
    assert str(placement((CUDA, "MatMul"))) == "1 nodes on the device"


@pytest.mark.parametrize("on_cpu", [{}, {"Cast": 1, "Sub": 1, "Squeeze": 1}, {"Add": 10, "Concat": 10}])
def test_a_graph_may_compute_a_few_sizes_on_the_cpu(on_cpu: Mapping[str, int]) -> None:
    Placement(40, on_cpu).check("model.onnx", "cuda:0")


def test_any_other_operator_on_the_cpu_is_refused_with_its_nodes_and_what_to_do() -> None:
    with pytest.raises(DeviceError) as raised:
        Placement(32, {"Cast": 1, "GroupQueryAttention": 30}).check("model.onnx", "cuda:1")
    assert str(raised.value) == (
        "model.onnx: opened on cuda:1, but 30 GroupQueryAttention would run on the CPU, wanted there only arithmetic "
        "of sizes; export the model again, choose another --precision, or give --device cpu"
    )


def test_arithmetic_of_sizes_in_every_layer_is_refused_since_each_is_a_copy() -> None:
    with pytest.raises(DeviceError, match="20 Add, 1 Cast would run on the CPU, wanted there at most 20 nodes"):
        Placement(400, {"Add": 20, "Cast": 1}).check("model.onnx", "cuda:0")
