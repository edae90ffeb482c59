"""Routes that clients of OpenAI speak: completions, embeddings, models; errors are in OpenAI's form too."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from instructmining_serving.http import schemas
from instructmining_serving.http.answers import answer, within
from instructmining_serving.http.bodies import BodyLimits, read_json
from instructmining_serving.http.completions import OUTPUTS, Completion, Prompts
from instructmining_serving.http.forms import answering, openai_form
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.http.one_text import embeddings_of, numbers, source_id
from instructmining_serving.http.prompts import model_name, one_of, prompts_of
from instructmining_serving.service import ScoringService

_Handler: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]
_SERVER_ERROR, _OVERLOADED = 500, 429
_NOT_POSITIONS = np.empty(0, dtype=np.int64)


def openai_routes(service: ScoringService, metrics: Metrics, bodies: BodyLimits, seconds: float) -> APIRouter:
    """Return the routes.

    Args:
        service: that computes.
        metrics: of the service.
        bodies: limits of a request's body.
        seconds: that a request may take.
    """
    router = APIRouter(route_class=answering(metrics, openai_form))
    tokenizers = service.raw_tokenizers
    started = int(time.time())

    @router.get("/v1/models")
    async def models() -> Response:
        """List the models that are open, by the ids that they were exported from; requests may give any name."""
        listed = {source_id(role): role for role in service.roles.values()}
        common = {"object": "model", "created": started, "owned_by": "instructmining"}
        data = [{"id": name, **common, "max_model_len": role.max_length} for name, role in listed.items()]
        return answer({"object": "list", "data": data})

    @router.post("/v1/completions", openapi_extra=_COMPLETIONS)
    async def completions(request: Request) -> Response:
        """Return the log probabilities of prompts' tokens, and the likeliest token after each; nothing is sampled."""
        body = await read_json(request, bodies)
        role = service.role("perplexity", OUTPUTS)

        async def compute() -> Response:
            asked = Completion.of(body)
            service.check_rows(len(asked.prompts))
            name = model_name(body, source_id(service.roles["perplexity"]))
            size = sum(map(len, asked.prompts))
            prompts = await service.tokenize(lambda: Prompts(asked, role, tokenizers["perplexity"]), size=size)
            found = (await service.compute([prompts.texts]))[0] if prompts.texts.texts else None

            def finish() -> Response:
                choices, usage = prompts.answers(found)
                return answer(
                    {
                        "id": f"cmpl-{uuid.uuid4().hex}",
                        "object": "text_completion",
                        "created": int(time.time()),
                        "model": name,
                        "system_fingerprint": service.scorer.bundle.digest[:12],
                        "choices": choices,
                        "usage": usage,
                    }
                )

            return await service.in_thread(finish, first=True)

        return await within(request, service, compute, seconds)

    @router.post("/v1/embeddings", openapi_extra=_EMBEDDINGS)
    async def embeddings(request: Request) -> Response:
        """Return a vector for each text, of the text alone: no prompt is put before it, and nothing is truncated."""
        body = await read_json(request, bodies)
        service.role("embedding", ["embedding"])

        async def compute() -> Response:
            texts = prompts_of(body, "input")
            service.check_rows(len(texts))
            form = one_of(body, "encoding_format", "float", "base64")
            size = service.scorer.embedding_size
            one_of(body, "dimensions", size, why=", the size of the model's vectors")
            name = model_name(body, source_id(service.roles["embedding"]))
            values, tokens = await embeddings_of(service, texts, "input")
            usage = {"prompt_tokens": tokens, "total_tokens": tokens}
            return await service.in_thread(
                lambda: answer({"object": "list", "data": _vectors(values, form), "model": name, "usage": usage}),
                first=True,
            )

        return await within(request, service, compute, seconds)

    return router


def _vectors(values: NDArray[np.float32], form: str) -> list[dict[str, object]]:
    """Return OpenAI's embeddings: lists of numbers, or float32 in base64, the lowest byte first."""
    return [
        {"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(numbers(values, form))
    ]


_TEXT: dict[str, object] = {"type": "string", "minLength": 1}
_MANY: dict[str, object] = {"type": "array", "minItems": 1, "items": _TEXT}
_ONE_OR_MANY = {
    "oneOf": [_TEXT, _MANY, schemas.IDS, {"type": "array", "minItems": 1, "items": schemas.IDS}],
}
_COMPLETIONS = schemas.operation(
    [
        schemas.members(
            {
                "prompt": _ONE_OR_MANY,
                "max_tokens": {"type": "integer", "minimum": 0, "maximum": 1, "description": "0 with echo alone"},
            },
            {
                "model": schemas.TEXT,
                "echo": {"type": "boolean", "default": False},
                "logprobs": {"type": "integer", "minimum": 0, "maximum": 1},
                "temperature": {
                    "type": "number",
                    "description": "0 or absent: the likeliest token is generated; with max_tokens 0 also 1",
                },
                "add_special_tokens": {
                    "type": "boolean",
                    "default": True,
                    "description": "of texts; token ids are complete",
                },
                "seed": {"description": "changes nothing"},
            },
        )
    ],
    {"model": "any", "prompt": "Green is a colour.", "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1},
    {
        "object": "text_completion",
        "model": "any",
        "choices": [
            {
                "index": 0,
                "text": "Green is",
                "finish_reason": "length",
                "logprobs": {
                    "tokens": ["Green", " is"],
                    "token_logprobs": [None, -1.2],
                    "top_logprobs": [None, {" is": -1.2}],
                    "text_offset": [0, 5],
                },
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    },
)
_EMBEDDINGS = schemas.operation(
    [
        schemas.members(
            {"input": _ONE_OR_MANY},
            {
                "model": schemas.TEXT,
                "encoding_format": {"enum": ["float", "base64"], "default": "float"},
                "dimensions": {"type": "integer", "description": "the size of the model's vectors, or absent"},
            },
        )
    ],
    {"model": "any", "input": ["Green is a colour.", "The train leaves at noon."]},
    {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2, 0.3]}],
        "model": "any",
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    },
)
