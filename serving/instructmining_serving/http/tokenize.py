"""Texts to tokens and back, as vLLM's and text-embeddings-inference's clients ask for them; no model runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from instructmining.bundle import RoleName
from instructmining.errors import RowError
from instructmining_serving.http import schemas
from instructmining_serving.http.answers import answer, within
from instructmining_serving.http.bodies import BodyError, BodyLimits, read_json
from instructmining_serving.http.forms import answering, openai_form, own_form, speak, tei_form
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.http.one_text import source_id
from instructmining_serving.http.prompts import EMPTY, ParameterError, model_name, one_of
from instructmining_serving.raw_texts import Piece, RawTokenizer
from instructmining_serving.service import NotServedError, ScoringService, TooLargeError

# Whose tokenizer a client means that names no model.
_VLLM: tuple[RoleName, ...] = ("perplexity", "reward", "embedding")
_TEI: tuple[RoleName, ...] = ("embedding", "reward", "perplexity")


def token_routes(service: ScoringService, metrics: Metrics, bodies: BodyLimits, seconds: float) -> APIRouter:
    """Return the routes.

    Args:
        service: whose tokenizers are used.
        metrics: of the service.
        bodies: limits of a request's body.
        seconds: that a request may take.
    """
    router = APIRouter(route_class=answering(metrics, openai_form))

    @router.post("/tokenize", openapi_extra=_TOKENIZE)
    async def tokenize(request: Request) -> Response:
        """Return tokens: of "prompt" as vLLM does, of "inputs" as text-embeddings-inference does."""
        speak(request, own_form)
        body = await read_json(request, bodies)
        asked = [name for name in ("prompt", "messages", "inputs") if name in body]
        if len(asked) != 1:
            raise BodyError(422, 'wanted either "prompt", of vLLM, or "inputs", of text-embeddings-inference')
        speak(request, tei_form if asked == ["inputs"] else openai_form)
        task = _of_tei if asked == ["inputs"] else _of_vllm
        return await within(request, service, lambda: service.in_thread(lambda: answer(task(service, body))), seconds)

    @router.post("/detokenize", openapi_extra=_DETOKENIZE)
    async def detokenize(request: Request) -> Response:
        """Return the text of token ids, with special tokens."""
        body = await read_json(request, bodies)
        return await within(
            request, service, lambda: service.in_thread(lambda: answer(_text_of(service, body))), seconds
        )

    return router


def _of_vllm(service: ScoringService, body: Mapping[str, Any]) -> dict[str, object]:
    text = body.get("prompt")
    if not isinstance(text, str):
        raise ParameterError("prompt", "wanted a text; a conversation (messages) is not tokenized here")
    role, tokenizer = _tokenizer(service, body, _VLLM)
    found = _pieces(tokenizer, text, "prompt", special=one_of(body, "add_special_tokens", True, False))
    strings = one_of(body, "return_token_strs", False, True)
    return {
        "count": len(found),
        "max_model_len": service.roles[role].max_length,
        "tokens": [piece.id for piece in found],
        "token_strs": [piece.name for piece in found] if strings else None,
    }


def _of_tei(service: ScoringService, body: Mapping[str, Any]) -> list[list[dict[str, object]]]:
    value = body["inputs"]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ParameterError("inputs", "wanted a text, or a list of texts")
    if not texts or not all(texts):
        raise ParameterError("inputs", "a text is empty, or there is none", EMPTY)
    service.check_rows(len(texts))
    one_of(body, "prompt_name", None, why=": texts are taken as they are")
    special = one_of(body, "add_special_tokens", True, False)
    _, tokenizer = _tokenizer(service, body, _TEI)
    return [[_described(piece) for piece in _pieces(tokenizer, text, "inputs", special=special)] for text in texts]


def _text_of(service: ScoringService, body: Mapping[str, Any]) -> dict[str, object]:
    ids = body.get("tokens")
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise ParameterError("tokens", "wanted a list of token ids")
    if len(ids) > service.options.max_tokens:
        raise TooLargeError(f"the request has {len(ids):,} tokens, more than {service.options.max_tokens:,}")
    _, tokenizer = _tokenizer(service, body, _VLLM)
    if wrong := [token for token in ids if not 0 <= token < tokenizer.words]:
        raise ParameterError("tokens", f"no token has the id {wrong[0]}; ids are below {tokenizer.words}")
    return {"prompt": tokenizer.text(ids)}


def _tokenizer(
    service: ScoringService, body: Mapping[str, Any], usual: tuple[RoleName, ...]
) -> tuple[RoleName, RawTokenizer]:
    """Return the role that a request names by its model, or the first that is open.

    Raises:
        NotServedError: none is open.
        ParameterError: the model is not a name.
    """
    name = model_name(body, "")
    opened = [role for role in usual if role in service.roles]
    if not opened:
        raise NotServedError("no model with a tokenizer is open; serve with --roles perplexity")
    chosen = next((role for role in opened if source_id(service.roles[role]) == name), opened[0])
    return chosen, service.raw_tokenizers[chosen]


def _pieces(tokenizer: RawTokenizer, text: str, param: str, *, special: bool) -> list[Piece]:
    try:
        return tokenizer.pieces(text, special=special)
    except RowError as error:
        raise ParameterError(param, str(error)) from error


def _described(piece: Piece) -> dict[str, object]:
    start, stop = piece.place or (None, None)
    return {"id": piece.id, "text": piece.text, "special": piece.place is None, "start": start, "stop": stop}


_SPECIAL = {"add_special_tokens": {"type": "boolean", "default": True}}
_MODEL = {"model": {**schemas.TEXT, "description": "an id of /v1/models; another name means the usual one"}}
_TOKENIZE = schemas.operation(
    [
        schemas.members(
            {"prompt": schemas.TEXT}, {**_MODEL, **_SPECIAL, "return_token_strs": {"type": "boolean", "default": False}}
        ),
        schemas.members({"inputs": schemas.TEXTS}, {**_MODEL, **_SPECIAL}),
    ],
    {"prompt": "Green"},
    {"count": 2, "max_model_len": 512, "tokens": [76, 329], "token_strs": None},
    statuses={**schemas.STATUSES, 422: "neither prompt nor inputs, or wrong inputs"},
)
_DETOKENIZE = schemas.operation(
    [schemas.members({"tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}}}, _MODEL)],
    {"tokens": [76, 329]},
    {"prompt": "Green"},
)
