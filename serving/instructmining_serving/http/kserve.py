"""Routes of KServe's open inference protocol, version 2, which Triton's clients speak; with its errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from instructmining import __version__
from instructmining.types import ScoredRow
from instructmining_serving.http import schemas
from instructmining_serving.http.answers import NotReadyError, answer, within
from instructmining_serving.http.bodies import BodyLimits, read_body
from instructmining_serving.http.forms import answering, kserve_form
from instructmining_serving.http.kserve_tensors import HEADER, INPUT, Asked, Values, answered, number_of, rows_in
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.rows import result_of
from instructmining_serving.service import NotServedError, ScoringService

MODEL, VERSION = "instructmining", "1"
RESULT = "RESULT"  # the output with all of a row's result as JSON


def kserve_routes(service: ScoringService, metrics: Metrics, bodies: BodyLimits, seconds: float) -> APIRouter:
    """Return the routes.

    Args:
        service: that scores.
        metrics: of the service.
        bodies: limits of a request's body.
        seconds: that a request may take.
    """
    router = APIRouter(prefix="/v2", route_class=answering(metrics, kserve_form))
    of_model = "/models/{model}"

    @router.get("")
    async def server() -> Response:
        """Say what serves."""
        return answer({"name": "instructmining", "version": __version__, "extensions": ["binary_tensor_data"]})

    @router.get("/health/live")
    async def live() -> Response:
        """Answer while the process runs."""
        return answer({"live": True})

    @router.get("/health/ready", responses=_NOT_READY)
    async def ready() -> Response:
        """Answer 200 where requests are taken."""
        return answer({"ready": _ready(service)})

    @router.get(f"{of_model}/versions/{{version}}/ready", responses=_NO_MODEL | _NOT_READY)
    @router.get(f"{of_model}/ready", responses=_NO_MODEL | _NOT_READY)
    async def model_ready(model: str, version: str = VERSION) -> Response:
        """Answer 200 where requests are taken."""
        _check(model, version)
        return answer({"name": MODEL, "ready": _ready(service)})

    @router.get(f"{of_model}/versions/{{version}}", responses=_NO_MODEL)
    @router.get(of_model, responses=_NO_MODEL)
    async def describe(model: str, version: str = VERSION) -> Response:
        """Say what goes in and comes out: rows as JSON, and a number for each column."""
        _check(model, version)
        outputs = [*((column, "FP64") for column in service.scorer.columns), (RESULT, "BYTES")]
        return answer(
            {
                "name": MODEL,
                "versions": [VERSION],
                "platform": "instructmining",
                "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
                "outputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in outputs],
            }
        )

    @router.post(f"{of_model}/versions/{{version}}/infer", openapi_extra=_INFER)
    @router.post(f"{of_model}/infer", openapi_extra=_INFER)
    async def infer(request: Request, model: str, version: str = VERSION) -> Response:
        """Score rows, each an element with a row as JSON; one bad row refuses the request with the reason for each."""
        _check(model, version)
        asked = Asked.of(await read_body(request, bodies), request.headers.get(HEADER))
        rows = rows_in(asked.texts)
        scored = await within(request, service, lambda: service.score(rows), seconds)
        tensors = _tensors(service.scorer.columns, scored)
        content, headers = answered(asked, {"model_name": MODEL, "model_version": VERSION}, tensors)
        return Response(content, headers=headers)

    return router


def _ready(service: ScoringService) -> bool:
    """Return True.

    Raises:
        NotReadyError: no requests are taken now.
    """
    if (reason := service.not_ready) is not None:
        raise NotReadyError(f"not ready: {reason}")
    return True


def _check(model: str, version: str) -> None:
    """Check that a model is the one that is served.

    Raises:
        NotServedError: it is not.
    """
    if (model, version) != (MODEL, VERSION):
        raise NotServedError(f"no such model is served; there is {MODEL!r}, version {VERSION!r}")


def _tensors(columns: Sequence[str], scored: Sequence[ScoredRow]) -> dict[str, Values]:
    """Return a number of each row for each column, NaN where it has none, and the results."""
    tensors: dict[str, Values] = {
        column: np.array([number_of(row.columns.get(column)) for row in scored], dtype=np.float64) for column in columns
    }
    tensors[RESULT] = [orjson.dumps(result_of(row)).decode() for row in scored]
    return tensors


_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "not ready"}}
_NO_MODEL: dict[int | str, dict[str, Any]] = {404: {"description": "another model is not served"}}
_ROW = '{"instruction": "Name a colour.", "output": "Green is a colour."}'
_INFER = schemas.operation(
    [
        schemas.members(
            {
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": schemas.members(
                        {
                            "name": {"const": INPUT},
                            "datatype": {"const": "BYTES"},
                            "shape": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer"}},
                        },
                        {"data": {"type": "array", "items": schemas.TEXT}, "parameters": {"type": "object"}},
                    ),
                }
            },
            {
                "id": schemas.TEXT,
                "outputs": {"type": "array", "items": schemas.members({"name": schemas.TEXT})},
                "parameters": {"type": "object"},
            },
        )
    ],
    {
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [1], "data": [_ROW]}],
        "outputs": [{"name": RESULT}],
    },
    {
        "model_name": MODEL,
        "model_version": VERSION,
        "outputs": [{"name": "reward", "datatype": "FP64", "shape": [1], "data": [0.408]}],
    },
    statuses={**schemas.STATUSES, 400: "a wrong request, or bad rows", 404: "another model is not served"},
)
