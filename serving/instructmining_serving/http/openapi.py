"""What OpenAPI says of all routes alike: the token, and the errors that each may answer with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI

from instructmining_serving.http import schemas
from instructmining_serving.http.access import OPEN

_OF_FASTAPI = "HTTPValidationError"  # which no route here answers with
_OF_BODIES = (400, 408, 413, 415, 429, 503, 504)
_ERROR = {"type": "object", "required": ["error"], "description": "in the form that the route's clients read"}


class DescribedApp(FastAPI):
    """An application whose routes read their bodies themselves."""

    needs_token = False
    in_paths: Mapping[str, str] = {}  # the one value that a name in a path may have

    def openapi(self) -> dict[str, Any]:
        """Return the description of the routes."""
        if self.openapi_schema is None:
            found = super().openapi()
            found.pop("components", None)  # FastAPI's form of errors alone
            for path, method, operation in _operations(found):
                for parameter in operation.get("parameters", ()):
                    parameter["schema"]["enum"] = [self.in_paths[parameter["name"]]]
                operation["responses"] = self._responses(path, method, operation["responses"])
            if self.needs_token:
                found["security"] = [{"bearer": []}]
                found["components"] = {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}}
                for path, _, operation in _operations(found):
                    operation["security"] = [] if path in OPEN else found["security"]
            self.openapi_schema = found
        return self.openapi_schema

    def _responses(self, path: str, method: str, given: Mapping[str, Any]) -> dict[str, Any]:
        found = {status: said for status, said in given.items() if _OF_FASTAPI not in str(said)}
        if method == "post":
            for status in _OF_BODIES:
                found.setdefault(str(status), {"description": schemas.STATUSES[status]})
        found.pop("401", None)
        if self.needs_token and path not in OPEN:
            found["401"] = {"description": schemas.STATUSES[401]}
        errors = {status: {"content": {"application/json": {"schema": _ERROR}}, **found[status]} for status in found}
        return {status: found[status] if status == "200" else errors[status] for status in sorted(found)}


def _operations(found: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation
