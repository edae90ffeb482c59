"""The wordings are onnxruntime's and CUDA's own, as they were seen or stand in their sources."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import onnxruntime as ort
import pytest

from instructmining.inference import cuda_errors
from instructmining.inference.cuda_driver import DRIVER
from instructmining.inference.cuda_errors import explained, missing_driver, why_not_opened

CUDA_CALL = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, Status> "
    "onnxruntime::CudaCall(ERRTYPE, const char*, int) [with ERRTYPE = cudaError; bool THRW = true] "
    "CUDA failure {}: {} ; GPU=0 ; hostname=vm ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/"
    "cuda_execution_provider.cc ; line=355 ; expr=cudaSetDevice(info_.device_id); \n\n\n"
)
NO_CUDNN = (
    "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Non-zero status code returned while running MultiHeadAttention node. "
    "Name:'node_12' Status Message: cuda_kernel.h:296 RequireCudnnHandle(cudnnHandle_t) [ONNXRuntimeError] : 9 : "
    "NOT_IMPLEMENTED : cuDNN is unavailable or disabled for CUDA Execution Provider: dlopen failed for libcudnn.so: "
    "libcudnn.so: cannot open shared object file: No such file or directory\n"
)
NO_CODE = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Cast node. Name:'node_Cast_3' Status "
    "Message: CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution on the device"
)


class Blackwell:
    def __init__(self, index: int) -> None:
        assert index == 2

    def name(self) -> str:
        return "NVIDIA B200"

    def compute_capability(self) -> str:
        return "10.0"


def test_a_failure_of_cuda_is_said_without_types_hosts_and_files() -> None:
    error = RuntimeError(CUDA_CALL.format(100, "no CUDA-capable device is detected"))
    assert explained(error, 0) == "CUDA failure 100: no CUDA-capable device is detected"


def test_a_driver_that_is_too_old_is_to_be_renewed() -> None:
    said = "CUDA driver version is insufficient for CUDA runtime version"
    assert explained(RuntimeError(CUDA_CALL.format(35, said)), 0) == (
        f"CUDA failure 35: {said}; install a newer NVIDIA driver"
    )


def test_a_gpu_that_onnxruntime_has_no_code_for_is_named_with_its_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_errors, "CudaDriver", Blackwell)
    said = explained(RuntimeError(NO_CODE), 2)
    assert said.endswith(
        f"no kernel image is available for execution on the device: onnxruntime {ort.__version__} has no code for this "
        "GPU (NVIDIA B200, compute capability 10.0); install a version of onnxruntime-gpu that has, or give "
        "--device cpu"
    )


def test_a_library_that_an_operator_needs_is_named_with_the_extra_that_brings_it() -> None:
    said = explained(RuntimeError(NO_CUDNN), 0)
    assert "cuDNN is unavailable" in said
    assert said.endswith("No such file or directory; pip install 'instructmining[cuda]'")
    assert "\n" not in said


@pytest.mark.parametrize(("error", "said"), [(RuntimeError("first\nlast"), "last"), (ValueError(), "ValueError")])
def test_any_other_error_is_its_last_line(error: Exception, said: str) -> None:
    assert explained(error, 0) == said


def test_the_library_that_the_provider_cannot_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(library: str) -> None:
        loaded.append(library)
        if "providers_cuda" in library:
            raise OSError("libcublasLt.so.13: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert why_not_opened() == (
        "libcublasLt.so.13: cannot open shared object file: No such file or directory; "
        "pip install 'instructmining[cuda]'"
    )
    assert [Path(library).parent for library in loaded] == [Path(ort.__file__).parent / "capi"] * 2


def test_a_provider_that_loads_and_still_is_not_used_has_said_why_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
    assert why_not_opened() == "onnxruntime opened the session on the CPU instead; see its messages above"
    assert missing_driver() is None


@pytest.mark.skipif(os.name != "posix", reason="the driver has another name there")
def test_a_driver_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(library: str) -> None:
        raise OSError(f"{library}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert missing_driver() == "cannot load libcuda.so.1; install the NVIDIA driver"
    assert DRIVER == "libcuda.so.1"
