"""Texts to tokens and back, as vLLM's and text-embeddings-inference's clients ask for them; no model runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from instructmining.bundle import Role, RoleName
from instructmining.errors import RowError
from instructmining.reading.conversations import TurnKeys, Unread, turn_list
from instructmining.types import Example
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
            raise BodyError(
                422, 'wanted either "prompt" or "messages", of vLLM, or "inputs", of text-embeddings-inference'
            )
        speak(request, tei_form if asked == ["inputs"] else openai_form)
        task = _of_tei if asked == ["inputs"] else _of_vllm
        return await within(
            request, service, lambda: service.in_thread(lambda: answer(task(service, body)), first=True), seconds
        )

    @router.post("/detokenize", openapi_extra=_DETOKENIZE)
    async def detokenize(request: Request) -> Response:
        """Return the text of token ids, with special tokens."""
        body = await read_json(request, bodies)
        return await within(
            request, service, lambda: service.in_thread(lambda: answer(_text_of(service, body)), first=True), seconds
        )

    @router.post("/decode", openapi_extra=_DECODE)
    async def decode(request: Request) -> Response:
        """Return the texts of token ids, without special tokens, as text-embeddings-inference does."""
        speak(request, tei_form)
        body = await read_json(request, bodies)
        return await within(
            request, service, lambda: service.in_thread(lambda: answer(_texts_of(service, body)), first=True), seconds
        )

    return router


def tokenizer_info_routes(service: ScoringService, metrics: Metrics) -> APIRouter:
    """Return vLLM's ``/tokenizer_info``, by which lm-eval decides to use this tokenizer.

    Args:
        service: whose tokenizers are used.
        metrics: of the service.
    """
    router = APIRouter(route_class=answering(metrics, openai_form))

    @router.get("/tokenizer_info", responses={404: {"description": "no model is open"}})
    async def tokenizer_info() -> Response:
        """Say which special tokens the tokenizer has."""
        return answer(_info(service))

    return router


def _of_vllm(service: ScoringService, body: Mapping[str, Any]) -> dict[str, object]:
    name, tokenizer = _tokenizer(service, body, _VLLM)
    role = service.roles[name]
    strings = one_of(body, "return_token_strs", False, True)
    ids = _of_messages(role, tokenizer, body) if "messages" in body else _of_prompt(tokenizer, body)
    return {
        "count": len(ids),
        "max_model_len": role.max_length,
        "tokens": ids,
        "token_strs": tokenizer.names(ids) if strings else None,
    }


def _of_prompt(tokenizer: RawTokenizer, body: Mapping[str, Any]) -> list[int]:
    text = body["prompt"]
    if not isinstance(text, str):
        raise ParameterError("prompt", "wanted a text")
    special = one_of(body, "add_special_tokens", True, False)
    return [piece.id for piece in _pieces(tokenizer, text, "prompt", special=special)]


def _of_messages(role: Role, tokenizer: RawTokenizer, body: Mapping[str, Any]) -> list[int]:
    """Return the tokens of a conversation in the role's template, which has all special tokens that there are."""
    for name in ("chat_template", "chat_template_kwargs", "tools"):
        one_of(body, name, None, why="; the bundle's template is used")
    one_of(body, "add_special_tokens", False, why="; the template has them")
    one_of(body, "continue_final_message", False)
    open_end = one_of(body, "add_generation_prompt", True, False)
    value = body["messages"]
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        raise ParameterError("messages", "wanted a list of messages that is not empty")
    try:
        example = Example(tuple(turn_list(value, "messages", TurnKeys(), Unread())))
        return tokenizer.conversation(example, role.template, open_end=open_end)
    except RowError as error:
        raise ParameterError("messages", str(error)) from error


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
    ids = _ids(service, body.get("tokens"), "tokens")
    _, tokenizer = _tokenizer(service, body, _VLLM)
    return {"prompt": tokenizer.text(_known(tokenizer, ids, "tokens"))}


def _texts_of(service: ScoringService, body: Mapping[str, Any]) -> list[str]:
    given = body.get("ids")
    many = given if isinstance(given, list) and given and isinstance(given[0], list) else [given]
    service.check_rows(len(many))
    found = [_ids(service, ids, "ids") for ids in many]
    special = not one_of(body, "skip_special_tokens", True, False)
    _, tokenizer = _tokenizer(service, body, _TEI)
    return [tokenizer.text(_known(tokenizer, ids, "ids"), special=special) for ids in found]


def _ids(service: ScoringService, ids: object, param: str) -> list[int]:
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise ParameterError(param, "wanted a list of token ids")
    if len(ids) > service.options.max_tokens:
        raise TooLargeError(f"the request has {len(ids):,} tokens, more than {service.options.max_tokens:,}")
    return ids


def _known(tokenizer: RawTokenizer, ids: list[int], param: str) -> list[int]:
    if wrong := [token for token in ids if not 0 <= token < tokenizer.words]:
        raise ParameterError(param, f"no token has the id {wrong[0]}; ids are below {tokenizer.words}")
    return ids


def _info(service: ScoringService) -> dict[str, object]:
    name, _ = _tokenizer(service, {}, _VLLM)
    role = service.roles[name]
    gaps = role.template.gaps
    after = gaps.get("response>end", gaps.get("assistant>end", gaps.get("document>end", ())))
    end = next((token for kind, token in after if kind == "special"), None)
    if end is None:
        raise NotServedError(f"the template of the {name} model has no token that ends a text, which clients need")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": role.max_length,
        "bos_token": role.bos,
        "eos_token": end,
        "pad_token": None,
        "unk_token": None,
        "chat_template": None,
    }


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
_IDS: dict[str, object] = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_STRINGS = {"return_token_strs": {"type": "boolean", "default": False}}
_TOKENIZE = schemas.operation(
    [
        schemas.members({"prompt": schemas.TEXT}, {**_MODEL, **_SPECIAL, **_STRINGS}),
        schemas.members(
            {"messages": schemas.MESSAGES},
            {**_MODEL, **_STRINGS, "add_generation_prompt": {"type": "boolean", "default": True}},
        ),
        schemas.members({"inputs": schemas.TEXTS}, {**_MODEL, **_SPECIAL}),
    ],
    {"prompt": "Green"},
    {"count": 2, "max_model_len": 512, "tokens": [76, 329], "token_strs": None},
    statuses={**schemas.STATUSES, 422: "neither prompt nor inputs, or wrong inputs"},
)
_DECODE = schemas.operation(
    [
        schemas.members(
            {"ids": {"oneOf": [_IDS, {"type": "array", "minItems": 1, "items": _IDS}]}},
            {**_MODEL, "skip_special_tokens": {"type": "boolean", "default": True}},
        )
    ],
    {"ids": [76, 329]},
    ["Green"],
    statuses={**schemas.STATUSES, 400: "not JSON", 422: "wrong ids"},
)
_DETOKENIZE = schemas.operation(
    [schemas.members({"tokens": _IDS}, _MODEL)],
    {"tokens": [76, 329]},
    {"prompt": "Green"},
)
