"""The service's own routes: score, select, health, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import PlainTextResponse

from instructmining import __version__
from instructmining.types import PREDICTION, ScoredRow
from instructmining_serving.http import schemas
from instructmining_serving.http.answers import answer, problem, within
from instructmining_serving.http.bodies import BodyError, BodyLimits, read_json
from instructmining_serving.http.forms import answering, openai_form, own_form, speak
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.http.streams import LINES, LineStream, has_lines
from instructmining_serving.http.vllm import SCORE_FORMS, asks_vllm, scores_of
from instructmining_serving.rows import result_of
from instructmining_serving.service import ScoringService

_WANTED = 'wanted either {"examples": [{…}, …]}, or two of vLLM\'s lists, such as {"queries", "documents"}'
_WANTED_TO_SELECT = 'wanted one JSON object, such as {"examples": [{…}, …], "top": 10}'
_AMOUNTS = ("top", "fraction", "max_loss")


def native_routes(service: ScoringService, metrics: Metrics, bodies: BodyLimits, seconds: float) -> APIRouter:
    """Return the routes.

    Args:
        service: that scores.
        metrics: of the service.
        bodies: limits of a request's body.
        seconds: that a request may take.
    """
    router = APIRouter(route_class=answering(metrics, own_form))

    @router.post("/v1/score", openapi_extra=_SCORE)
    async def score(request: Request) -> Response:
        """Score rows, in order; one bad row refuses the request with the reason for each. Also vLLM's /score.

        Lines of JSON, each a row, are answered with lines while they come; a bad one with its error.
        """
        if has_lines(request):
            return LineStream(request, service, metrics, bodies, seconds)
        body = await read_json(request, bodies)
        if asks_vllm(body):
            if "examples" in body:
                raise BodyError(422, f'"examples" and texts to compare at once; {_WANTED}')
            speak(request, openai_form)
            return await within(request, service, lambda: scores_of(service, body), seconds)
        if "examples" not in body:
            raise BodyError(422, f'"examples" is missing or empty; {_WANTED}')
        rows = rows_of(body)
        scored = await within(request, service, lambda: service.score(rows), seconds)
        return answer({"results": [result_of(row) for row in scored]})

    @router.post("/v1/select", openapi_extra=_SELECT)
    async def select(request: Request) -> Response:
        """Score rows, and return the places of those with the least predicted loss, best first."""
        if has_lines(request):
            raise BodyError(415, f"lines are not taken here, since a selection needs all rows; {_WANTED_TO_SELECT}")
        body = await read_json(request, bodies)
        rows = rows_of(body)
        name, amount = _amount(body)
        if service.scorer.rule is None:
            raise BodyError(422, "the service has no rule, and nothing to select by; serve with --rule")
        scored = await within(request, service, lambda: service.score(rows), seconds)
        chosen = _selected(scored, name, amount)
        return answer({"selected": chosen, "results": [{"row": row, **result_of(scored[row])} for row in chosen]})

    @router.get("/health", responses=_NOT_READY)
    async def health() -> Response:
        """Say what runs here, and whether it takes requests."""
        reason = service.not_ready
        scorer = service.scorer
        said = {
            "status": "ready" if reason is None else "not ready",
            "reason": reason,
            "version": __version__,
            "bundle": scorer.bundle.digest,
            "rule": None if scorer.rule is None else {"id": scorer.rule.id, "digest": scorer.rule.digest},
            "columns": list(scorer.columns),
            "devices": [str(device) for device in scorer.devices],
            "onnxruntime": scorer.runtime_version,
        }
        return answer(said, 200 if reason is None else 503)

    @router.get("/health/live")
    async def live() -> Response:
        """Answer while the process runs."""
        return answer({"status": "live"})

    @router.get("/health/ready", responses=_NOT_READY)
    async def ready() -> Response:
        """Answer 200 where requests are taken."""
        if (reason := service.not_ready) is not None:
            return problem(503, "not_ready", reason, retry_after=5)
        return answer({"status": "ready"})

    @router.get("/metrics", response_class=PlainTextResponse)
    async def measured() -> Response:
        """Return the metrics in Prometheus' text form."""
        metrics.queue_tokens.set(service.scheduler.waiting_tokens)
        metrics.queue_requests.set(service.scheduler.waiting_requests)
        metrics.ready.set(service.not_ready is None)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def rows_of(body: Mapping[str, Any]) -> Sequence[object]:
    """Return the examples of a request, whatever they are.

    Raises:
        BodyError: there are none.
    """
    rows = body.get("examples")
    if not isinstance(rows, list) or not rows:
        raise BodyError(422, '"examples" is missing or empty; wanted a list of rows: {"examples": [{…}, …]}')
    return rows


def _amount(body: Mapping[str, Any]) -> tuple[str, float]:
    given = [name for name in _AMOUNTS if body.get(name) is not None]
    if len(given) != 1:
        raise BodyError(422, f"wanted exactly one of {', '.join(_AMOUNTS)}; found {', '.join(given) or 'none'}")
    (name,) = given
    value = body[name]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or (name == "top" and (not isinstance(value, int) or value < 1)):
        raise BodyError(422, f'"{name}": wanted {"a whole number above 0" if name == "top" else "a number"}')
    if name == "fraction" and not 0 < value <= 1:
        raise BodyError(422, '"fraction": wanted a number above 0, at most 1')
    return name, float(value)


def _selected(scored: Sequence[ScoredRow], name: str, amount: float) -> list[int]:
    losses = [(row.columns[PREDICTION], number) for number, row in enumerate(scored)]
    ranked = sorted((loss, number) for loss, number in losses if loss is not None)
    if name == "max_loss":
        return [number for loss, number in ranked if loss <= amount]
    most = int(amount) if name == "top" else max(1, int(amount * len(scored)))
    return [number for _, number in ranked[:most]]


_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "not ready"}}
_EXAMPLES: dict[str, object] = {
    "examples": {"type": "array", "minItems": 1, "items": {"type": "object", "minProperties": 1}}
}
_BODY = {"examples": [{"instruction": "Name a colour.", "output": "Green is a colour."}]}
_RESULT = {"columns": {"reward": 0.408}, "score_notes": {}, "truncated": [], "unread": []}
_STATUSES = {**schemas.STATUSES, 400: "not JSON", 422: "bad rows, each with its reason, or a wrong parameter"}
_SCORE = schemas.operation(
    [schemas.members(_EXAMPLES), *SCORE_FORMS], _BODY, {"results": [_RESULT]}, statuses=_STATUSES
)
_LINE = '{"instruction": "Name a colour.", "output": "Green is a colour."}\n'
_SCORE["requestBody"]["content"][LINES] = {
    "schema": {"type": "string", "description": "a row as JSON on each line"},
    "example": _LINE,
}
_SCORE["responses"]["200"]["content"][LINES] = {
    "schema": {"type": "string", "description": "a result, or an error, as JSON for each line"}
}
_SELECT = schemas.operation(
    [
        schemas.members({**_EXAMPLES, name: amount})
        for name, amount in (
            ("top", {"type": "integer", "minimum": 1}),
            ("fraction", {"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
            ("max_loss", {"type": "number"}),
        )
    ],
    {**_BODY, "top": 1},
    {"selected": [0], "results": [{"row": 0, **_RESULT}]},
    statuses={**_STATUSES, 415: "lines, or an unknown content encoding"},
)
