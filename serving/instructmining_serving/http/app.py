"""The application: routes behind a token, with metrics; every error is JSON, and none shows a row's text."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from instructmining import __version__
from instructmining.errors import InstructMiningError
from instructmining_serving.http.access import BearerToken, Scope
from instructmining_serving.http.answers import counted
from instructmining_serving.http.bodies import BodyError, BodyLimits
from instructmining_serving.http.forms import form_at
from instructmining_serving.http.held import HeldBodies
from instructmining_serving.http.kserve import MODEL, VERSION, kserve_routes
from instructmining_serving.http.metrics import MeasuredRequests, Metrics
from instructmining_serving.http.native import native_routes
from instructmining_serving.http.openai import openai_routes
from instructmining_serving.http.openapi import DescribedApp
from instructmining_serving.http.tei import tei_routes
from instructmining_serving.http.tokenize import token_routes, tokenizer_info_routes
from instructmining_serving.http.tracing import TracedRequests
from instructmining_serving.http.vllm import vllm_routes
from instructmining_serving.service import ScoringService

_BODIES_HELD = 8  # of the largest size, in memory at a time
_log = logging.getLogger("instructmining.serving")


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How requests are taken."""

    token: str | None = None  # that every request but those of probes must bear; None for none
    bodies: BodyLimits = field(default_factory=BodyLimits)
    seconds: float = 60.0  # that a request may take
    tokenizer_info: bool = False  # whether clients may take the service's tokenizer for their own
    warms_up: bool = True  # before it takes requests; where not, the caller warms the service up


def create_app(service: ScoringService, metrics: Metrics, options: HttpOptions) -> FastAPI:
    """Return the application of a service.

    Args:
        service: entered by the caller.
        metrics: whose observer the service has.
        options: how requests are taken.
    """

    @asynccontextmanager
    async def warm(_: FastAPI) -> AsyncIterator[None]:
        if options.warms_up:
            await service.warm_up()
        yield

    app = DescribedApp(
        title="instructmining",
        version=__version__,
        lifespan=warm,
        # FastAPI's own spans have paths and messages of errors, and so texts of users.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.needs_token = options.token is not None
    app.in_paths = {"model": MODEL, "version": VERSION}
    families = (native_routes, openai_routes, vllm_routes, tei_routes, token_routes, kserve_routes)
    routers: list[APIRouter] = [routes(service, metrics, options.bodies, options.seconds) for routes in families]
    if options.tokenizer_info:
        routers.append(tokenizer_info_routes(service, metrics))
    for router in routers:
        app.include_router(router)

    def answer_to(scope: Scope, error: Exception) -> Response:
        form = form_at(scope["path"], (route for router in routers for route in router.routes))
        return form(error, counted(error, metrics))

    async def refused(request: Request, error: Exception) -> Response:
        return answer_to(request.scope, error)

    async def unforeseen(_: Request, error: Exception) -> Response:
        _log.error("%s in a request", type(error).__name__, exc_info=error)
        return counted(error, metrics)

    for kind in (BodyError, InstructMiningError, TimeoutError, HTTPException):
        app.add_exception_handler(kind, refused)
    app.add_exception_handler(Exception, unforeseen)
    scorer = service.scorer
    rule = scorer.rule.id if scorer.rule is not None else ""
    metrics.info.labels(__version__, scorer.bundle.digest[:12], rule, str(scorer.device)).set(1)
    app.add_middleware(BearerToken, token=options.token, refused=answer_to)
    app.add_middleware(HeldBodies, most_bytes=_BODIES_HELD * options.bodies.max_bytes)
    app.add_middleware(TracedRequests)
    app.add_middleware(MeasuredRequests, metrics=metrics)
    return app
