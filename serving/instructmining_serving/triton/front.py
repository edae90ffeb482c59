"""The front of a model repository: takes rows as text, batches their tokens, and has Triton run the models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.bundle import Bundle
from instructmining.errors import DeviceError
from instructmining.indicators.columns import rows_of
from instructmining.inference.executor import Job
from instructmining.inference.sessions import OF_POSITIONS
from instructmining.rules import Rule
from instructmining.scorer.requests import RowRequests
from instructmining.types import InputWindow, Reject, ScoredWindow
from instructmining_serving.joint import JointScoring, Outputs
from instructmining_serving.rows import RowsRefusedError, reason_of, result_of, window_of_each
from instructmining_serving.triton.layout import BUNDLE, INPUT, RESULT, RULE, FrontSettings

_ONE = np.array([[0, 1]], dtype=np.int64)  # a scored position where the graph wants one and nothing reads its value


class Front:
    """Scores the rows of the requests that Triton collects; the Python backend's model delegates to it.

    Args of the methods and their results are the backend's own types, which exist in its process alone.
    """

    def __init__(self, folder: Path, backend: Any) -> None:  # noqa: ANN401 - Triton's module
        """Load the tokenizers; no graph is opened here.

        Args:
            folder: of the front's version, which ``export --triton`` wrote.
            backend: the module ``triton_python_backend_utils``.

        Raises:
            BundleError: a file is missing or damaged.
        """
        self._backend = backend
        settings = FrontSettings.read(folder)
        bundle = Bundle.open(folder / BUNDLE, tokenizers_alone=True)
        rule = Rule.load(folder / RULE) if settings.has_rule else None
        requests = RowRequests.elsewhere(bundle, rule, settings.indicators, device_kind=settings.device_kind)
        models = {bundle.path / graph: model for graph, model in settings.models.items()}
        self._columns = requests.columns
        self._joint = JointScoring(requests, partial(_computed, backend, models, settings.inputs))

    @classmethod
    def of(cls, args: Mapping[str, str], backend: Any) -> Front:  # noqa: ANN401
        """Open the front from what the backend's ``initialize`` is given."""
        return cls(Path(args["model_repository"]) / args["model_version"], backend)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests; their texts share batches, and a bad row is the error of its request alone.

        Args:
            requests: each with :data:`INPUT`, bytes (rows, 1) or (rows,).
        """
        windows = [self._window(request) for request in requests]
        good = [window for window in windows if isinstance(window, InputWindow)]
        scored = iter(self._joint.score(good))
        return [
            self._answer(request, next(scored) if isinstance(window, InputWindow) else window)
            for request, window in zip(requests, windows, strict=True)
        ]

    def _window(self, request: Any) -> InputWindow | str:  # noqa: ANN401
        """Return the rows of a request, or what is wrong with them."""
        texts = self._backend.get_input_tensor_by_name(request, INPUT).as_numpy()
        rows: list[object] = []
        for number, text in enumerate(texts.reshape(-1).tolist()):
            try:
                rows.append(orjson.loads(text))
            except orjson.JSONDecodeError as error:
                return f"{INPUT}, element {number}: is not JSON: {error.msg} at character {error.pos}"
        window = window_of_each(rows)
        bad = [item for item in window.items if isinstance(item, Reject)]
        return _reasons(bad) if bad else window

    def _answer(self, request: Any, scored: ScoredWindow | DeviceError | str) -> Any:  # noqa: ANN401
        backend = self._backend
        if isinstance(scored, DeviceError):
            return _error(backend, str(scored), backend.TritonError.INTERNAL)
        if isinstance(scored, ScoredWindow) and scored.rejects:
            scored = _reasons(scored.rejects)
        if isinstance(scored, str):
            return _error(backend, scored, backend.TritonError.INVALID_ARG)
        wanted = set(request.requested_output_names())
        tensors = self._tensors(scored)
        return backend.InferenceResponse(
            output_tensors=[backend.Tensor(name, values) for name, values in tensors.items() if name in wanted]
        )

    def _tensors(self, scored: ScoredWindow) -> dict[str, NDArray[Any]]:
        """Return each column, float64 (rows, 1) with NaN where it has no value, and the results as JSON."""
        rows = list(rows_of(scored, self._columns))
        tensors: dict[str, NDArray[Any]] = {
            column: np.array([[_number(row.columns.get(column))] for row in rows], dtype=np.float64)
            for column in self._columns
        }
        tensors[RESULT] = np.array([[orjson.dumps(result_of(row))] for row in rows], dtype=np.object_)
        return tensors


def _computed(
    backend: Any,  # noqa: ANN401
    models: Mapping[Path, str],
    inputs: Mapping[str, Sequence[str]],
    jobs: Sequence[Job],
) -> Iterator[Outputs | DeviceError]:
    """Have Triton run each batch, as one request to the model of its graph."""
    for job in jobs:
        model = models[job.graph]
        feeds = _feeds(job)
        response = backend.InferenceRequest(
            model_name=model,
            requested_output_names=list(job.outputs),
            inputs=[backend.Tensor(name, feeds[name]) for name in inputs[model]],
            preferred_memory=backend.PreferredMemory(backend.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            yield DeviceError(
                f"{model}: failed on a batch of shape {job.batch.ids.shape}: {response.error().message()}"
            )
            continue
        found = {name: backend.get_output_tensor_by_name(response, name).as_numpy() for name in job.outputs}
        scored = len(job.batch.scored)
        yield {name: values[:scored] if name in OF_POSITIONS else values for name, values in found.items()}


def _feeds(job: Job) -> dict[str, NDArray[np.int64]]:
    """Return every input that a graph may have; none is empty, which not every server takes."""
    batch = job.batch
    scored = batch.scored if not OF_POSITIONS.isdisjoint(job.outputs) and len(batch.scored) else _ONE
    return {
        "input_ids": batch.ids,
        "position_ids": batch.positions,
        "attention_mask": batch.mask,
        "scored": scored,
        "best_of": np.zeros(1, dtype=np.int64),  # of an output that no column reads
    }


def _reasons(rejects: Sequence[Reject]) -> str:
    return str(RowsRefusedError([reason_of(reject) for reject in rejects]))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _error(backend: Any, message: str, code: int) -> Any:  # noqa: ANN401
    return backend.InferenceResponse(error=backend.TritonError(message, code))
