"""Stands for Triton's Python backend: its module, whose requests to other models run onnxruntime on their files."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

TYPES = {"TYPE_STRING": np.object_, "TYPE_INT64": np.int64, "TYPE_FP32": np.float32, "TYPE_FP64": np.float64}


class Tensor:
    def __init__(self, name: str, values: NDArray[Any]) -> None:
        assert isinstance(values, np.ndarray)
        assert values.size, name
        self._name, self._values = name, values

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._values


class TritonError:
    INTERNAL, INVALID_ARG = 1, 3

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class InferenceResponse:
    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self._tensors, self._error = list(output_tensors), error

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors


class Asked(NamedTuple):
    """A request to a model by the front."""

    model: str
    inputs: dict[str, NDArray[Any]]
    outputs: list[str]


class PretendedTriton:
    """A server with one model repository: loads the front, and runs the others for it."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.asked: list[Asked] = []
        self.failing: set[str] = set()  # models whose requests fail
        self._sessions: dict[str, ort.InferenceSession] = {}
        self.module = self._module()
        file = repository / "instructmining" / "1" / "model.py"
        spec = importlib.util.spec_from_file_location("model", file)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        sys.modules["triton_python_backend_utils"] = self.module
        try:
            spec.loader.exec_module(made)
        finally:
            del sys.modules["triton_python_backend_utils"]
        self.model = made.TritonPythonModel()
        self.model.initialize(
            {"model_repository": str(repository / "instructmining"), "model_version": "1", "model_config": "{}"}
        )

    def request(self, rows: Sequence[bytes], *outputs: str) -> Any:  # noqa: ANN401
        values = np.array([[row] for row in rows], dtype=np.object_)
        return self.module.InferenceRequest("", list(outputs), [Tensor("EXAMPLE", values)])

    def _run(self, asked: Asked) -> InferenceResponse:
        self.asked.append(asked)
        if asked.model in self.failing:
            return InferenceResponse(error=TritonError("no memory"))
        if asked.model not in self._sessions:
            file = self.repository / asked.model / "1" / "model.onnx"
            self._sessions[asked.model] = ort.InferenceSession(str(file / "model.onnx" if file.is_dir() else file))
        found = self._sessions[asked.model].run(asked.outputs, asked.inputs)
        return InferenceResponse([Tensor(*pair) for pair in zip(asked.outputs, found, strict=True)])

    def _module(self) -> ModuleType:
        server = self

        class InferenceRequest:
            def __init__(
                self,
                model_name: str,
                requested_output_names: list[str],
                inputs: list[Tensor],
                preferred_memory: object = None,
            ) -> None:
                self.model, self.outputs, self.inputs, self.memory = (
                    model_name,
                    requested_output_names,
                    inputs,
                    preferred_memory,
                )

            def requested_output_names(self) -> list[str]:
                return self.outputs

            def exec(self) -> InferenceResponse:
                assert self.memory is not None  # else outputs may be on a GPU
                inputs = {tensor.name(): tensor.as_numpy() for tensor in self.inputs}
                return server._run(Asked(self.model, inputs, self.outputs))

        def by_name(tensors: Sequence[Tensor], name: str) -> Tensor | None:
            return next((tensor for tensor in tensors if tensor.name() == name), None)

        made: Any = ModuleType("triton_python_backend_utils")
        made.Tensor, made.TritonError, made.InferenceResponse = Tensor, TritonError, InferenceResponse
        made.InferenceRequest = InferenceRequest
        made.TRITONSERVER_MEMORY_CPU = 0
        made.PreferredMemory = lambda kind, number: (kind, number)
        made.get_input_tensor_by_name = lambda request, name: by_name(request.inputs, name)
        made.get_output_tensor_by_name = lambda response, name: by_name(response.output_tensors(), name)
        return made  # type: ignore[no-any-return]
