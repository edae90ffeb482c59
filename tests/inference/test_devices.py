from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from placed_nodes import assigned

from instructmining import Bundle
from instructmining.errors import DeviceError
from instructmining.inference import devices
from instructmining.inference.cuda_driver import DRIVER
from instructmining.inference.devices import Device, choose_devices, choose_devices_for, cpu_threads, cuda_problem


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where CUDA does not work, whatever runs the tests."""
    monkeypatch.setattr(devices, "cuda_problem", lambda _=0: "cannot load libcuda.so.1; install the NVIDIA driver")


@pytest.fixture
def fresh_probe() -> Iterator[None]:
    """The probe of CUDA runs anew, and what it found here is forgotten."""
    cuda_problem.cache_clear()
    yield
    cuda_problem.cache_clear()


# The choice of a device


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("asked", ["cpu", "auto"])
def test_without_cuda_cpu_and_auto_are_the_cpu_with_all_its_threads(asked: str) -> None:
    (device,) = choose_devices(asked)
    assert device == Device("cpu", threads=cpu_threads(), batches_at_once=min(8, cpu_threads()))


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "cuda:1"])
def test_cuda_asked_for_where_it_does_not_work_is_an_error_that_names_what_is_missing(asked: str) -> None:
    with pytest.raises(
        DeviceError, match=rf"device '{asked}' does not work here: cannot load libcuda\.so\.1; install the NVIDIA"
    ):
        choose_devices(asked)


@pytest.mark.parametrize(
    "asked",
    ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "cpu:0", "auto:1", "cuda:0 ", "cuda:0,", "cuda:,1", "cuda:²"],
)
def test_a_device_that_does_not_exist_is_an_error_that_lists_those_that_do(asked: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{asked}'; wanted auto, cpu, cuda, cuda:N, or several as cuda:0,1"):
        choose_devices(asked)


@pytest.mark.parametrize(
    ("asked", "indices"),
    [
        ("auto", [0]),
        ("cuda", [0]),
        ("cuda:0", [0]),
        ("cuda:1", [1]),
        ("cuda:12", [12]),
        ("cuda:0,1", [0, 1]),
        ("cuda:3,0,12", [3, 0, 12]),
    ],
)
def test_where_cuda_works_it_is_taken_and_each_device_that_was_asked_for_is_proved(
    monkeypatch: pytest.MonkeyPatch, asked: str, indices: list[int]
) -> None:
    proved: list[int] = []
    monkeypatch.setattr(devices, "cuda_problem", lambda index=0: proved.append(index))
    chosen = choose_devices(asked)
    assert [(device.kind, device.index) for device in chosen] == [("cuda", index) for index in indices]
    assert [str(device) for device in chosen] == [f"cuda:{index}" for index in indices]
    assert proved == indices


def test_of_several_devices_the_one_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_problem", lambda index: "invalid device ordinal" if index == 7 else None)
    with pytest.raises(DeviceError, match="device 'cuda:0,7,1': cuda:7 does not work here: invalid device ordinal"):
        choose_devices("cuda:0,7,1")


@pytest.mark.parametrize(("asked", "twice"), [("cuda:0,0", 0), ("cuda:2,1,01", 1)])
def test_a_device_named_twice_is_an_error(monkeypatch: pytest.MonkeyPatch, asked: str, twice: int) -> None:
    monkeypatch.setattr(devices, "cuda_problem", lambda _: None)
    with pytest.raises(DeviceError, match=f"device '{asked}': cuda:{twice} is named twice"):
        choose_devices(asked)


def test_cpu_asked_for_never_looks_at_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(index: int = 0) -> NoReturn:
        raise AssertionError(index)

    monkeypatch.setattr(devices, "cuda_problem", looked)
    assert [device.kind for device in choose_devices("cpu")] == ["cpu"]


@pytest.mark.parametrize(
    ("threads", "asked", "found", "said"),
    [
        (1, None, 1, "cpu (1 threads)"),
        (2, None, 2, "cpu (2 threads, 2 batches at once)"),
        (64, None, 8, "cpu (64 threads, 8 batches at once)"),
        (64, 1, 1, "cpu (64 threads)"),
        (4, 9, 4, "cpu (4 threads, 4 batches at once)"),
    ],
)
def test_a_cpu_computes_a_batch_a_thread_or_as_many_as_asked(
    monkeypatch: pytest.MonkeyPatch, threads: int, asked: int | None, found: int, said: str
) -> None:
    monkeypatch.setattr(devices, "cpu_threads", lambda: threads)
    (device,) = choose_devices("cpu", asked)
    assert (device.threads, device.batches_at_once, str(device)) == (threads, found, said)


# What keeps CUDA from working


@pytest.mark.usefixtures("fresh_probe")
def test_int8_graphs_run_on_the_cpu_and_nowhere_else(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instructmining.inference.devices.cuda_problem", lambda _index=0: None)  # as if CUDA worked
    roles = Bundle.open(small_bundle).roles
    full, half, integers = (replace(roles["perplexity"], precision=name) for name in ("fp32", "fp16", "int8"))
    assert [device.kind for device in choose_devices_for([full], "auto")] == ["cuda"]
    assert [device.index for device in choose_devices_for([half], "cuda:1,0")] == [1, 0]
    for asked in ("auto", "cpu"):
        assert [device.kind for device in choose_devices_for([full, integers], asked)] == ["cpu"]
    for asked in ("cuda", "cuda:0,1"):
        with pytest.raises(DeviceError, match="role 'perplexity' is int8, which runs on the CPU only; give --device"):
            choose_devices_for([full, integers], asked)


def test_an_onnxruntime_without_cuda_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "is built without CUDA; install onnxruntime-gpu in place of onnxruntime" in str(cuda_problem())


@pytest.fixture
def cuda_build(fresh_probe: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - for its order
    """An onnxruntime that is built for CUDA."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)


def lacking(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    def load(library: str) -> None:
        if Path(library).name in missing:
            raise OSError(f"{library}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)


@pytest.mark.usefixtures("cuda_build")
def test_without_a_driver_no_session_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, DRIVER)
    monkeypatch.setattr(ort, "InferenceSession", None)
    assert cuda_problem() == f"cannot load {DRIVER}; install the NVIDIA driver"


class FakeSession:
    """A session as onnxruntime gives it: where it opened may not be where it was asked for."""

    def __init__(self, providers: list[str], failure: str = "", *, error: float = 0.0) -> None:
        self._providers = providers
        self._failure = failure
        self._error = np.float32(error)

    def get_providers(self) -> list[str]:
        return self._providers

    def get_provider_graph_assignment_info(self) -> list[object]:
        return assigned(*((self._providers[0], operator) for operator in ("Gemm", "TopK")))

    def run(self, outputs: list[str], feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if self._failure:
            raise RuntimeError(self._failure)
        assert outputs == ["values", "indices"]
        products = feeds["queries"] @ feeds["points"].T
        indices = np.argsort(-products, axis=1)[:, : int(feeds["k"][0])]
        return [np.take_along_axis(products, indices, axis=1) + self._error, indices]


@pytest.mark.usefixtures("cuda_build")
def test_a_probe_that_opened_on_the_cpu_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch)
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: FakeSession(["CPUExecutionProvider"]))
    assert "opened the session on the CPU instead" in str(cuda_problem())


@pytest.mark.usefixtures("cuda_build")
def test_a_probe_that_fails_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch)
    opened = FakeSession(["CUDAExecutionProvider", "CPUExecutionProvider"], "CUDA failure 35: driver too old")
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: opened)
    assert cuda_problem() == "CUDA failure 35: driver too old"


@pytest.mark.usefixtures("cuda_build")
def test_a_probe_that_gives_wrong_numbers_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch)
    opened = FakeSession(["CUDAExecutionProvider", "CPUExecutionProvider"], error=0.5)
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: opened)
    assert str(cuda_problem()).startswith("a small graph ran and gave wrong numbers: products [[20.5, 14.5], ")


@pytest.mark.usefixtures("cuda_build")
def test_a_probe_that_runs_on_cuda_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch)
    indices: list[int] = []

    def opened(_: str, __: object, *, providers: list[tuple[str, dict[str, int]]], **___: object) -> FakeSession:
        indices.append(providers[0][1]["device_id"])
        return FakeSession([providers[0][0], "CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", opened)
    assert cuda_problem(1) is None
    assert indices == [1]


@pytest.mark.usefixtures("cuda_build")
def test_an_onnxruntime_that_does_not_load_the_libraries_itself_is_probed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacking(monkeypatch)
    monkeypatch.delattr(ort, "preload_dlls", raising=False)
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: FakeSession(["CUDAExecutionProvider"]))
    assert cuda_problem() is None


@pytest.mark.usefixtures("cuda_build")
def test_what_onnxruntime_prints_while_it_loads_stays_off_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking(monkeypatch)
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: FakeSession(["CPUExecutionProvider"]))
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load libcudnn"), raising=False)  # noqa: T201
    assert cuda_problem() is not None
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Failed to load libcudnn" in captured.err


@pytest.mark.usefixtures("cuda_build")
def test_a_probe_that_cannot_be_opened_is_a_problem_and_keeps_standard_output_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking(monkeypatch)

    def fails(self: ort.InferenceSession, *_: object) -> NoReturn:  # noqa: ARG001 - a method
        raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fails)
    assert cuda_problem() == "CUDA failure 100: no CUDA-capable device is detected"
    assert capsys.readouterr().out == ""


# Threads


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, 8),
        ({"cpu.max": ""}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu.cfs_quota_us": "300000\n", "cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.cfs_quota_us": "300000\n"}, 8),
    ],
)
def test_the_threads_are_the_cpus_within_the_containers_quota(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], threads: int
) -> None:
    def read(path: Path, **_: object) -> str:
        if path.name not in files:
            raise FileNotFoundError(path)
        return files[path.name]

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(Path, "read_text", read)
    assert cpu_threads() == threads


def test_without_a_quota_the_threads_are_the_cpus_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> NoReturn:
        raise FileNotFoundError

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr(Path, "read_text", missing)
    assert cpu_threads() == 3
