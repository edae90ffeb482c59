"""vLLM's routes for rewards: score, rerank, classify, pooling; errors are in OpenAI's form."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from instructmining_serving.http import schemas
from instructmining_serving.http.answers import answer, within
from instructmining_serving.http.bodies import BodyLimits, read_json
from instructmining_serving.http.forms import answering, openai_form
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.http.one_text import activated, embeddings_of, numbers, rewards_of, source_id
from instructmining_serving.http.prompts import ParameterError, model_name, one_of, prompts_of
from instructmining_serving.rows import Row
from instructmining_serving.service import ScoringService

# The prompts and the responses of a request, in the order in which vLLM looks for them.
PAIRS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
LABEL = "LABEL_0"  # of the one label that a reward model has
# What would change the numbers and is not done; a template in a request would be code.
_REFUSED = {
    "activation": "is now use_activation",
    "softmax": "is now use_activation",
    "normalize": "is now use_activation",
    "instruction": "is not in the bundle's template",
    "chat_template": "the bundle's template is used",
    "chat_template_kwargs": "the bundle's template is used",
    "truncate_prompt_tokens": "the model's own limit holds",
    "max_tokens_per_query": "the model's own limit holds",
    "max_tokens_per_doc": "the model's own limit holds",
    "mm_processor_kwargs": "texts alone are read",
}


def vllm_routes(service: ScoringService, metrics: Metrics, bodies: BodyLimits, seconds: float) -> APIRouter:
    """Return the routes but those that other clients use differently: ``/v1/score``, ``/rerank`` and ``/tokenize``.

    Args:
        service: that computes.
        metrics: of the service.
        bodies: limits of a request's body.
        seconds: that a request may take.
    """
    router = APIRouter(route_class=answering(metrics, openai_form))

    @router.post("/score", openapi_extra=SCORE)
    async def score(request: Request) -> Response:
        """Return the reward of each response to its prompt, in order."""
        body = await read_json(request, bodies)
        return await within(request, service, lambda: scores_of(service, body), seconds)

    @router.post("/v2/rerank", openapi_extra=RERANK)
    @router.post("/v1/rerank", openapi_extra=RERANK)
    async def rerank(request: Request) -> Response:
        """Return responses to one prompt, the best first."""
        body = await read_json(request, bodies)
        return await within(request, service, lambda: ranked(service, body), seconds)

    @router.post("/classify", openapi_extra=_CLASSIFY)
    async def classify(request: Request) -> Response:
        """Return the reward of each text, as the probability of the one label."""
        body = await read_json(request, bodies)

        async def compute() -> Response:
            found, tokens = await _rewards(service, body)
            data = [
                {"index": number, "label": LABEL, "probs": [value], "num_classes": 1}
                for number, value in enumerate(found.tolist())
            ]
            return _listed(service, body, "classify", data, tokens)

        return await within(request, service, compute, seconds)

    @router.post("/pooling", openapi_extra=_POOLING)
    async def pooling(request: Request) -> Response:
        """Return the reward of each text, or its embedding where the task is "embed"."""
        body = await read_json(request, bodies)

        async def compute() -> Response:
            form = one_of(body, "encoding_format", "float", "base64")
            one_of(body, "embed_dtype", "float32")
            one_of(body, "endianness", "native", "little")
            usual, other = ("classify", "embed") if "reward" in service.roles else ("embed", "classify")
            task = one_of(body, "task", usual, other)
            if task == "embed":
                vectors, tokens = await _embeddings(service, body)
                rows = numbers(vectors, form)
            else:
                rewards, tokens = await _rewards(service, body)
                rows = numbers(rewards[:, None], form)
            data = [{"index": number, "object": "pooling", "data": row} for number, row in enumerate(rows)]
            return _listed(service, body, "pool", data, tokens, role="embedding" if task == "embed" else "reward")

        return await within(request, service, compute, seconds)

    return router


def asks_vllm(body: Mapping[str, Any]) -> bool:
    """Return whether a request to ``/v1/score`` is one of vLLM."""
    return any(first in body and second in body for first, second in PAIRS)


async def scores_of(service: ScoringService, body: Mapping[str, Any]) -> Response:
    """Answer ``/score``.

    Raises:
        ParameterError: the body is wrong.
        InstructMiningError: as of :meth:`ScoringService.rewards`.
    """
    first, second = next((pair for pair in PAIRS if pair[0] in body and pair[1] in body), PAIRS[0])
    prompts, responses = _texts(body, first), _texts(body, second)
    if len(prompts) not in {1, len(responses)}:
        raise ParameterError(
            first,
            f"has {len(prompts)} texts, and {second!r} has {len(responses)}; "
            "input lengths must be either 1:1, 1:N or N:N",
        )
    if len(prompts) == 1:
        prompts *= len(responses)
    found, tokens = await _of_pairs(service, body, zip(prompts, responses, strict=True))
    data = [{"index": number, "object": "score", "score": value} for number, value in enumerate(found.tolist())]
    return _listed(service, body, "score", data, tokens)


async def ranked(service: ScoringService, body: Mapping[str, Any]) -> Response:
    """Answer ``/rerank`` with documents.

    Raises:
        ParameterError: the body is wrong.
        InstructMiningError: as of :meth:`ScoringService.rewards`.
    """
    query = body.get("query")
    if not isinstance(query, str):
        raise ParameterError("query", "wanted a text")
    documents = _texts(body, "documents")
    top = body.get("top_n")
    if top is not None and (type(top) is not int or top < 0):
        raise ParameterError("top_n", "wanted a whole number from 0; 0 means all")
    with_text = one_of(body, "return_documents", True, False)
    raw = one_of(body, "raw_scores", False, True)  # infinity's name of the switch
    found, tokens = await _of_pairs(service, body, ((query, document) for document in documents), raw=raw)
    order = np.argsort(-found, kind="stable")[: top or None].tolist()
    results: list[dict[str, object]] = [{"index": number, "relevance_score": float(found[number])} for number in order]
    if with_text:
        for result, number in zip(results, order, strict=True):
            result["document"] = {"text": documents[number], "multi_modal": None}
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    name = model_name(body, source_id(service.roles["reward"]))
    return answer({"id": f"rerank-{uuid.uuid4().hex}", "model": name, "usage": usage, "results": results})


async def _of_pairs(
    service: ScoringService,
    body: Mapping[str, Any],
    pairs: Iterable[tuple[str, str]],
    *,
    raw: bool = False,
) -> tuple[NDArray[np.float64], int]:
    _check(body)
    return await _of_rows(service, body, [{"prompt": one, "response": other} for one, other in pairs], raw=raw)


async def _of_rows(
    service: ScoringService, body: Mapping[str, Any], rows: Sequence[Row], *, raw: bool = False
) -> tuple[NDArray[np.float64], int]:
    activation = one_of(body, "use_activation", True, False)
    rewards = await service.rewards(rows)
    return activated(rewards.values, raw=raw or not activation), rewards.tokens


async def _rewards(service: ScoringService, body: Mapping[str, Any]) -> tuple[NDArray[np.float64], int]:
    """Return the rewards of ``input``, texts as they are, or of ``messages``, a conversation in the template."""
    _check(body)
    if ("input" in body) == ("messages" in body):
        raise ParameterError("input", "wanted either input, texts as they are, or messages, a conversation")
    if "messages" in body:
        one_of(body, "add_generation_prompt", False)
        one_of(body, "continue_final_message", False)
        return await _of_rows(service, body, [{"messages": body["messages"]}])
    activation = one_of(body, "use_activation", True, False)
    special = one_of(body, "add_special_tokens", True, False)
    values, tokens = await rewards_of(service, prompts_of(body, "input"), "input", special=special)
    return activated(values, raw=not activation), tokens


async def _embeddings(service: ScoringService, body: Mapping[str, Any]) -> tuple[NDArray[np.float32], int]:
    _check(body)
    service.role("embedding", ["embedding"])
    one_of(body, "use_activation", True, why=": all vectors have length 1")
    one_of(body, "add_special_tokens", True)
    one_of(body, "dimensions", service.scorer.embedding_size, why=", the size of the model's vectors")
    return await embeddings_of(service, prompts_of(body, "input"), "input")


def _check(body: Mapping[str, Any]) -> None:
    for name, why in _REFUSED.items():
        if body.get(name) is not None:
            raise ParameterError(name, f"is not taken: {why}; leave it out")


def _texts(body: Mapping[str, Any], param: str) -> list[str]:
    value = body.get(param)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ParameterError(param, "wanted a text, or a list of texts that is not empty")
    return list(texts)


def _listed(
    service: ScoringService,
    body: Mapping[str, Any],
    kind: str,
    data: list[dict[str, object]],
    tokens: int,
    *,
    role: str = "reward",
) -> Response:
    return answer(
        {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": model_name(body, source_id(service.roles[role])),
            "data": data,
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        }
    )


_SWITCH: dict[str, object] = {
    "model": schemas.TEXT,
    "use_activation": {
        "type": ["boolean", "null"],
        "default": True,
        "description": "true: the sigmoid of the reward, 0 to 1; false: the reward itself, as in the column",
    },
}
_USAGE = {"prompt_tokens": 14, "total_tokens": 14, "completion_tokens": 0, "prompt_tokens_details": None}
_LIST = {"id": "…-1f0c", "object": "list", "created": 1790000000, "model": "any", "usage": _USAGE}
SCORE_FORMS = [schemas.members({one: schemas.TEXTS, other: schemas.TEXTS}, _SWITCH) for one, other in PAIRS]
SCORE = schemas.operation(
    SCORE_FORMS,
    {"queries": "Name a colour.", "documents": ["Green is a colour.", "No."]},
    _LIST | {"data": [{"index": 0, "object": "score", "score": 0.6}, {"index": 1, "object": "score", "score": 0.3}]},
)
RERANK_FORM = schemas.members(
    {"query": schemas.TEXT, "documents": schemas.TEXTS},
    _SWITCH
    | {
        "top_n": {"type": ["integer", "null"], "minimum": 0, "description": "0 or absent: all"},
        "return_documents": {"type": "boolean", "default": True},
        "raw_scores": {"type": "boolean", "default": False, "description": "as use_activation false"},
    },
)
RERANK = schemas.operation(
    [RERANK_FORM],
    {"query": "Name a colour.", "documents": ["No.", "Green is a colour."], "top_n": 1},
    {
        "id": "rerank-1f0c",
        "model": "any",
        "usage": {"prompt_tokens": 14, "total_tokens": 14},
        "results": [
            {"index": 1, "relevance_score": 0.6, "document": {"text": "Green is a colour.", "multi_modal": None}}
        ],
    },
)
_MESSAGES_EXAMPLE = {
    "messages": [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Green is a colour."}]
}
_INPUT = _SWITCH | {"add_special_tokens": {"type": "boolean", "default": True}}
_CLASSIFY = schemas.operation(
    [
        schemas.members({"messages": schemas.MESSAGES}, _SWITCH),
        schemas.members({"input": schemas.TEXTS_OR_IDS}, _INPUT),
    ],
    _MESSAGES_EXAMPLE,
    _LIST | {"data": [{"index": 0, "label": LABEL, "probs": [0.6], "num_classes": 1}]},
)
_POOL: dict[str, object] = {
    "task": {"enum": ["classify", "embed"], "description": "classify, the usual one: the reward"},
    "encoding_format": {"enum": ["float", "base64"], "default": "float"},
}
_POOLING = schemas.operation(
    [
        schemas.members({"messages": schemas.MESSAGES}, _SWITCH | _POOL),
        schemas.members({"input": schemas.TEXTS_OR_IDS}, _INPUT | _POOL),
    ],
    _MESSAGES_EXAMPLE | {"use_activation": False},
    _LIST | {"data": [{"index": 0, "object": "pooling", "data": [0.408]}]},
)
