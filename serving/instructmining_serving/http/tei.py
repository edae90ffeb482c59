"""Routes of text-embeddings-inference: embed, predict, rerank, info; with its errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from instructmining import __version__
from instructmining_serving.http import schemas
from instructmining_serving.http.answers import answer, within
from instructmining_serving.http.bodies import BodyError, BodyLimits, read_json
from instructmining_serving.http.forms import answering, openai_form, own_form, speak, tei_form
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.http.one_text import activated, embeddings_of, rewards_of, source_id
from instructmining_serving.http.prompts import EMPTY, ParameterError, Prompt, one_of
from instructmining_serving.http.vllm import LABEL, RERANK_FORM, ranked
from instructmining_serving.raw_texts import Cut
from instructmining_serving.service import TOKENIZERS, NotServedError, ScoringService

_Pair: TypeAlias = tuple[str, str]
_PAIR = 2
_DTYPES = {"fp32": "float32", "fp16": "float16"}


def tei_routes(service: ScoringService, metrics: Metrics, bodies: BodyLimits, seconds: float) -> APIRouter:
    """Return the routes, with ``/rerank``, which vLLM's clients use too.

    Args:
        service: that computes.
        metrics: of the service.
        bodies: limits of a request's body.
        seconds: that a request may take.
    """
    router = APIRouter(route_class=answering(metrics, tei_form))

    @router.get("/info", responses={404: {"description": "neither model is open"}})
    async def info() -> Response:
        """Say which model answers here, and the limits of a request."""
        return answer(_info(service))

    @router.post("/embed", openapi_extra=_EMBED)
    async def embed(request: Request) -> Response:
        """Return a vector for each text, of the text alone."""
        body = await read_json(request, bodies)
        return await within(request, service, lambda: _embedded(service, body), seconds)

    @router.post("/predict", openapi_extra=_PREDICT)
    async def predict(request: Request) -> Response:
        """Return the reward of a text, of a pair of prompt and response, or of a list of such lists."""
        body = await read_json(request, bodies)
        return await within(request, service, lambda: _predicted(service, body), seconds)

    @router.post("/", openapi_extra=_USUAL)
    async def usual(request: Request) -> Response:
        """Answer for the model that /info names: as /predict where rewards are open, else as /embed."""
        body = await read_json(request, bodies)
        answer_to = _predicted if "reward" in service.roles else _embedded
        return await within(request, service, lambda: answer_to(service, body), seconds)

    @router.post("/rerank", openapi_extra=_RERANK)
    async def rerank(request: Request) -> Response:
        """Return responses to one prompt, the best first: "texts" of text-embeddings-inference, "documents" of vLLM."""
        speak(request, own_form)
        body = await read_json(request, bodies)
        if ("texts" in body) == ("documents" in body):
            raise BodyError(422, 'wanted either "texts", of text-embeddings-inference, or "documents", of vLLM')
        speak(request, tei_form if "texts" in body else openai_form)
        answer_to = _ranked if "texts" in body else ranked
        return await within(request, service, lambda: answer_to(service, body), seconds)

    return router


def _info(service: ScoringService) -> dict[str, object]:
    """Describe the reward model, or the embedding model where that is open alone.

    Raises:
        NotServedError: neither is open.
    """
    name = next((name for name in ("reward", "embedding") if name in service.roles), None)
    if name is None:
        raise NotServedError("no model of these routes is open; serve with --roles reward")
    role = service.roles[name]
    kind: dict[str, object] = {"reranker": {"id2label": {"0": LABEL}, "label2id": {LABEL: 0}}}
    if name == "embedding":
        kind = {"embedding": {"pooling": str(role.parity.get("pooling", "mean"))}}
    options = service.options
    return {
        "model_id": source_id(role),
        "model_sha": role.source.get("revision"),
        "model_dtype": _DTYPES.get(role.precision, role.precision),
        "served_model_name": source_id(role),
        "model_type": kind,
        # Requests are admitted by tokens, and none has less than one.
        "max_concurrent_requests": options.limits.queue_tokens,
        "max_input_length": role.max_length,
        "max_batch_tokens": max(service.scorer.batching.max_batch_tokens.values()),
        "max_batch_requests": None,
        "max_client_batch_size": options.max_rows,
        "auto_truncate": True,
        "tokenization_workers": TOKENIZERS,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


async def _embedded(service: ScoringService, body: Mapping[str, Any]) -> Response:
    role = service.role("embedding", ["embedding"])
    texts = _inputs(body)
    one_of(body, "normalize", True, why=": all vectors have length 1")
    one_of(body, "prompt_name", None, why=": texts are taken as they are")
    one_of(body, "dimensions", service.scorer.embedding_size, why=", the size of the model's vectors")
    vectors, _ = await embeddings_of(service, texts, "inputs", cut=_cut(body, role.max_length))
    return answer(vectors.tolist())


async def _predicted(service: ScoringService, body: Mapping[str, Any]) -> Response:
    service.role("reward", ["reward"])
    items, single = _items(body)
    raw = one_of(body, "raw_scores", False, True)
    cut = _cut(body, service.roles["reward"].max_length)
    service.check_rows(len(items))
    values = np.zeros(len(items))
    pairs = {number: item for number, item in enumerate(items) if not isinstance(item, str)}
    if pairs:
        values[[*pairs]] = await _of_pairs(service, list(pairs.values()), "inputs", refuse_long=cut is None)
    texts = {number: item for number, item in enumerate(items) if isinstance(item, str)}
    if texts:
        values[[*texts]], _ = await rewards_of(service, list(texts.values()), "inputs", cut=cut)
    found = [[{"score": value, "label": LABEL}] for value in activated(values, raw=raw).tolist()]
    return answer(found[0] if single else found)


async def _ranked(service: ScoringService, body: Mapping[str, Any]) -> Response:
    query, texts = body.get("query"), body["texts"]
    if not isinstance(query, str):
        raise ParameterError("query", "wanted a text")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ParameterError("texts", "wanted a list of texts")
    if not texts:
        raise ParameterError("texts", "there are none", EMPTY)
    raw = one_of(body, "raw_scores", False, True)
    with_text = one_of(body, "return_text", False, True)
    cut = _cut(body, service.role("reward", ["reward"]).max_length)
    pairs = [(query, text) for text in texts]
    values = activated(await _of_pairs(service, pairs, "texts", refuse_long=cut is None), raw=raw)
    order = np.argsort(-values, kind="stable").tolist()
    more = [{"text": texts[number]} if with_text else {} for number in order]
    return answer(
        [{"index": number, "score": float(values[number]), **text} for number, text in zip(order, more, strict=True)]
    )


async def _of_pairs(
    service: ScoringService, pairs: Sequence[_Pair], param: str, *, refuse_long: bool
) -> NDArray[np.float64]:
    """Return the raw reward of each response to its prompt, in the bundle's template, float64 (pairs,).

    Raises:
        ParameterError: a pair is too long, and that is to be refused.
    """
    rewards = await service.rewards([{"prompt": prompt, "response": response} for prompt, response in pairs])
    if refuse_long and any(rewards.truncated):
        longest = service.roles["reward"].max_length
        raise ParameterError(param, f"pair {rewards.truncated.index(True)} has more than {longest:,} tokens")
    return rewards.values


def _inputs(body: Mapping[str, Any]) -> list[Prompt]:
    """Return texts or token ids, which may stand side by side.

    Raises:
        ParameterError: there are none, or they are of another type.
    """
    value = body.get("inputs")
    is_one = isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(type(each) is int for each in value)
    )
    found = [value] if is_one else value
    if not isinstance(found, list) or not all(isinstance(each, str) or _is_ids(each) for each in found):
        raise ParameterError("inputs", "wanted a text, token ids, or a list of either")
    if not found or not all(found):
        raise ParameterError("inputs", "a text is empty, or there is none", EMPTY)
    return found


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(type(each) is int for each in value)


def _items(body: Mapping[str, Any]) -> tuple[list[str | _Pair], bool]:
    """Return what is to be scored, and whether it is one text or one pair.

    Raises:
        ParameterError: there is nothing, or it is of another type.
    """
    value = body.get("inputs")
    if isinstance(value, str):
        return [_checked(value)], True
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        if len(value) != _PAIR:
            raise ParameterError(
                "inputs", f"a list of {len(value)} texts; wanted one pair [prompt, response], or a list of lists"
            )
        return [(value[0], _checked(value[1]))], True
    if value == []:
        raise ParameterError("inputs", "there are none", EMPTY)
    if not isinstance(value, list) or not all(_is_item(each) for each in value):
        raise ParameterError("inputs", "wanted a text, one pair [prompt, response], or a list of [text] and pairs")
    return [_checked(each[0]) if len(each) == 1 else (each[0], _checked(each[1])) for each in value], False


def _is_item(value: object) -> bool:
    return isinstance(value, list) and len(value) in {1, _PAIR} and all(isinstance(each, str) for each in value)


def _checked(text: str) -> str:
    if not text:
        raise ParameterError("inputs", "a text is empty", EMPTY)
    return text


def _cut(body: Mapping[str, Any], length: int) -> Cut | None:
    """Return how longer texts are shortened; None refuses them."""
    given = body.get("truncation_direction")
    lower = {"truncation_direction": given.lower() if isinstance(given, str) else given}
    side = one_of(lower, "truncation_direction", "right", "left")
    return Cut(length, side) if one_of(body, "truncate", True, False) else None


_STATUSES = {
    **schemas.STATUSES,
    400: "not JSON, or nothing to compute",
    422: "a wrong parameter",
    424: "the model fails",
    503: "not ready",
}
_TRUNCATE = {
    "truncate": {"type": ["boolean", "null"], "default": True},
    "truncation_direction": {"enum": ["Right", "right", "Left", "left"], "default": "Right"},
}
_RAW = {
    "raw_scores": {
        "type": "boolean",
        "default": False,
        "description": "false: the sigmoid of the reward, 0 to 1; true: the reward itself, as in the column",
    }
}
_ALONE: list[dict[str, object]] = [schemas.TEXT, schemas.IDS]
_ITEM = {"type": "array", "minItems": 1, "maxItems": 2, "items": schemas.TEXT}
_EMBED = schemas.operation(
    [
        schemas.members(
            {"inputs": {"oneOf": [*_ALONE, {"type": "array", "minItems": 1, "items": {"oneOf": _ALONE}}]}},
            _TRUNCATE | {"normalize": {"enum": [True, None]}, "dimensions": {"type": ["integer", "null"]}},
        )
    ],
    {"inputs": ["Green is a colour."]},
    [[0.1, -0.2, 0.3]],
    statuses=_STATUSES,
)
_PREDICT = schemas.operation(
    [
        schemas.members(
            {"inputs": {"oneOf": [schemas.TEXT, _ITEM, {"type": "array", "minItems": 1, "items": _ITEM}]}},
            _TRUNCATE | _RAW,
        )
    ],
    {"inputs": [["Name a colour.", "Green is a colour."]], "raw_scores": True},
    [[{"score": 0.408, "label": LABEL}]],
    statuses=_STATUSES,
)
_USUAL = schemas.operation(
    [schemas.members({"inputs": {}}, _TRUNCATE | _RAW)],
    {"inputs": "Green is a colour."},
    [{"score": 0.6, "label": LABEL}],
    statuses=_STATUSES,
)
_RERANK_TEXTS = schemas.members(
    {"query": schemas.TEXT, "texts": {"type": "array", "minItems": 1, "items": schemas.TEXT}},
    _TRUNCATE | _RAW | {"return_text": {"type": "boolean", "default": False}},
)
_RERANK = schemas.operation(
    [_RERANK_TEXTS, RERANK_FORM],
    {"query": "Name a colour.", "texts": ["No.", "Green is a colour."]},
    [{"index": 1, "score": 0.6}, {"index": 0, "score": 0.3}],
    statuses=_STATUSES,
)
