"""What OpenAPI says of the routes that read their bodies themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STATUSES: Mapping[int, str] = {
    400: "a wrong parameter",
    401: "no token",
    404: "the model is not open",
    408: "the body came too slowly",
    413: "too large",
    415: "an unknown content encoding",
    429: "overloaded",
    503: "not ready, or the model fails",
    504: "it took too long",
}

TEXT: dict[str, object] = {"type": "string"}
_MANY = {"type": "array", "minItems": 1, "items": TEXT}
TEXTS = {"oneOf": [TEXT, _MANY]}
IDS: dict[str, object] = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
TEXTS_OR_IDS = {"oneOf": [TEXT, _MANY, IDS, {"type": "array", "minItems": 1, "items": IDS}]}
MESSAGES = {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["role", "content"]}}


def members(required: Mapping[str, object], others: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return the schema of an object.

    Args:
        required: schemas of the members that it must have.
        others: schemas of those that it may have; null is as if they were absent.
    """
    optional = {name: _or_null(schema) for name, schema in (others or {}).items()}
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _or_null(schema: Any) -> object:  # noqa: ANN401 - JSON
    match schema:
        case {"enum": [*values]} if None not in values:
            return schema | {"enum": [*values, None]}
        case {"type": str(kind)}:
            return schema | {"type": [kind, "null"]}
    return schema


def operation(
    forms: Sequence[dict[str, object]],
    example: object,
    result: object,
    *,
    statuses: Mapping[int, str] = STATUSES,
    media: str = "application/json",
) -> dict[str, Any]:
    """Return what OpenAPI says of a route.

    Args:
        forms: schemas of the bodies that it takes.
        example: of a body.
        result: the answer to such a body.
        statuses: of errors.
        media: type of the answer.
    """
    schema = forms[0] if len(forms) == 1 else {"oneOf": list(forms)}
    answers: dict[str, object] = {str(status): {"description": what} for status, what in statuses.items()}
    answers["200"] = {"description": "the answer", "content": {media: {"example": result}}}
    body = {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
    return {"requestBody": body, "responses": answers}
