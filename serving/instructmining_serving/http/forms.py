"""The forms of errors: what each family of clients reads of a refused request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, ClassVar, TypeAlias

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from instructmining.errors import InstructMiningError
from instructmining_serving.http.answers import answer, counted
from instructmining_serving.http.bodies import BodyError
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.http.prompts import EMPTY, ParameterError

_Handler: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]
Form: TypeAlias = Callable[[Exception, Response], Response]  # an error, and its answer in the service's own form
_SERVER_ERROR, _OVERLOADED = 500, 429
_KEPT = ("Retry-After", "Allow", "WWW-Authenticate")  # headers, in every form


class FormedRoute(APIRoute):
    """A route whose errors have a form of their own."""

    usual: ClassVar[staticmethod[[Exception, Response], Response]]


def answering(metrics: Metrics, form_of_errors: Form) -> type[APIRoute]:
    """Return a class of routes whose errors are in a form, or in that of :func:`speak`."""

    class Route(FormedRoute):
        usual = staticmethod(form_of_errors)

        def get_route_handler(self) -> _Handler:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                try:
                    return await handle(request)
                except (BodyError, InstructMiningError, TimeoutError, HTTPException) as error:
                    form: Form = getattr(request.state, "form", form_of_errors)
                    return form(error, counted(error, metrics))

            return handled

    return Route


def speak(request: Request, form: Form) -> None:
    """Answer the errors of one request in another form than usual on its route."""
    request.state.form = form


def own_form(_: Exception, found: Response) -> Response:
    """Return the service's own form."""
    return found


def form_at(path: str, routes: Iterable[BaseRoute]) -> Form:
    """Return the form of errors on a path: that of its route, of no route KServe's below /v2, else the service's."""
    for route in routes:
        if isinstance(route, FormedRoute) and route.path_regex.match(path):
            return route.usual
    return kserve_form if path.startswith("/v2/") else own_form


def openai_form(error: Exception, found: Response) -> Response:
    """Return OpenAI's form, which vLLM has too: ``{"error": {"message", "type", "param", "code"}}``."""
    said = _said(found)
    status = 400 if found.status_code == 422 else found.status_code
    kind = "server_error" if status >= _SERVER_ERROR else "invalid_request_error"
    param, code = (error.param, error.code) if isinstance(error, ParameterError) else (None, said["type"])
    content = {
        "message": said["message"],
        "type": "rate_limit_error" if status == _OVERLOADED else kind,
        "param": param,
        "code": code,
    }
    return _answer(found, status, {"error": content})


def tei_form(error: Exception, found: Response) -> Response:
    """Return the form of text-embeddings-inference: ``{"error", "error_type"}``, with its statuses."""
    said = _said(found)
    status, kind = _TEI.get(said["type"], (found.status_code, "Validation"))
    if isinstance(error, ParameterError):
        status, kind = (400, "Empty") if error.code == EMPTY else (422, "Validation")
    return _answer(found, status, {"error": said["message"], "error_type": kind})


# By the kind of an error in the service's own form.
_TEI: Mapping[str, tuple[int, str]] = {
    "overloaded": (429, "Overloaded"),
    "not_ready": (503, "Unhealthy"),
    "timeout": (504, "Backend"),
    "model_fault": (424, "Backend"),
}


def kserve_form(_: Exception, found: Response) -> Response:
    """Return the form of KServe's protocol: ``{"error": message}``; each bad row with its reason."""
    said = _said(found)
    rows = [f"row {bad['row']}: {bad['reason']}" for bad in said.get("rows", ())]
    status = 400 if found.status_code == 422 else found.status_code
    return _answer(found, status, {"error": "; ".join(rows) or said["message"]})


def _said(found: Response) -> Mapping[str, Any]:
    said: Mapping[str, Any] = orjson.loads(found.body)["error"]
    return said


def _answer(found: Response, status: int, content: object) -> Response:
    return answer(content, status, {name: found.headers[name] for name in _KEPT if name in found.headers})
