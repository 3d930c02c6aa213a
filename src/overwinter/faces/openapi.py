"""The API as an OpenAPI 3.1 document, made of the table of operations and that of scopes; and whether the server is up."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from overwinter.app import App
from overwinter.faces.operations import OPERATIONS, SHAPES, Operation
from overwinter.faces.problems import PROBLEM
from overwinter.faces.scopes import NEEDS, Need
from overwinter.frozen import frozen

__all__ = ["document", "openapi_routes"]

Schema = dict[str, Any]
OBJECT: Schema = {"type": "object"}
KINDS: Mapping[str, Schema] = {
    "text": {"type": "string"},
    "whole": {"type": "integer", "format": "int64"},
    "number": {"type": "number"},
    "flag": {"type": "boolean"},
    "instant": {"type": "string", "format": "date-time"},
    "object": OBJECT,
    "any": {},
}
NUMBERED = frozenset({"seq"})
"""Parts of paths that are whole numbers."""
KEY_HEADER: Schema = {
    "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 1_024},
    "description": "A request that comes again under its key is told what the first one was told, and changes nothing.",
}  # fmt: skip
CURSOR_HEADER: Schema = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": KINDS["whole"],
    "description": "As `after`.",
}
PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "required": ["error", "type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "exit_code": {"type": "integer"},
                "findings": {"type": "array", "items": {"$ref": "#/components/schemas/Finding"}},
                "report": OBJECT,
            },
        },
    },
}
EVENTS = "GET /v1/runs/{run}/events"


def openapi_routes(app: App) -> list[Route]:
    """Return the routes: the document, and what those who watch over servers ask."""
    face = _Watched(app)
    return [Route("/openapi.json", _document), Route("/healthz", face.up), Route("/readyz", face.ready)]


@frozen(kw_only=False)
class _Watched:
    app: App

    async def up(self, request: Request) -> Response:
        del request
        return JSONResponse({"is_up": True})

    async def ready(self, request: Request) -> Response:
        """Answer 503 where each call would be denied. It is for everybody, so it names the part and not the fault."""
        del request
        faults = [
            name for name, fault in (("rules", self.app.rulebook.fault), ("log", self.app.auditing.log.fault)) if fault
        ]
        return JSONResponse({"is_ready": not faults, "faults": faults}, status_code=503 if faults else 200)


async def _document(request: Request) -> Response:
    del request
    return JSONResponse(document())


@cache
def document() -> Mapping[str, Any]:
    """Return the OpenAPI document."""
    paths: dict[str, Schema] = {}
    for key, operation in OPERATIONS.items():
        method, _, path = key.partition(" ")
        paths.setdefault(path, {})[method.lower()] = _operation(key, operation, NEEDS[key])
    return {
        "openapi": "3.1.0",
        "info": {"title": "overwinter", "version": "v1", "description": "See docs/api.md."},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "Over TCP."}},
            "schemas": {**{name: _shape(shape) for name, shape in SHAPES.items()}, "Problem": PROBLEM_SCHEMA},
        },
    }


def _operation(key: str, operation: Operation, need: Need) -> Schema:
    path = key.partition(" ")[2]
    parameters: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": KINDS["whole" if name in NUMBERED else "text"]}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    for name, kind, is_needed in _fields(operation.query):
        parameters.append({"name": name, "in": "query", "required": is_needed, "schema": _kind(kind)})
    parameters += [KEY_HEADER] if operation.has_key or operation.again else [CURSOR_HEADER] if key == EVENTS else []
    shown: Schema = {
        "operationId": re.sub(r"\W+", "_", key.removeprefix("GET ").replace("/v1/", "")).strip("_").lower(),
        "summary": operation.summary,
        "parameters": parameters,
        "responses": _responses(key, operation),
        "x-scope": need.scope,
    }
    if need.scope == "open":
        shown["security"] = []
    if operation.body:
        has_needed = any(is_needed for _, _, is_needed in _fields(operation.body))
        content = {"application/json": {"schema": {**_shape(operation.body), "additionalProperties": False}}}
        shown["requestBody"] = {"required": has_needed, "content": content}
    return shown


def _responses(key: str, operation: Operation) -> Schema:
    answer = operation.answer
    content: Schema = (
        {answer: {}} if "/" in answer else {"application/json": {"schema": _shape(answer) if " " in answer else _kind(answer)}}
    )  # fmt: skip
    found: Schema = {str(operation.status): {"description": operation.summary, "content": content}}
    if key == EVENTS:
        content["text/event-stream"] = {}
        found["204"] = {"description": "The run has ended, and everything was told."}
    if key == "GET /v1/values/{handle}":
        content["application/octet-stream"] = {}
    if key == "GET /readyz":
        found["503"] = found["200"]
    if key.endswith("/{verb}"):
        found["201"] = found["200"]
    found["default"] = {
        "description": "An error: docs/errors.md",
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    return found


def _fields(shape: str) -> list[tuple[str, str, bool]]:
    """Return name, kind and whether it must be there of each field of a shape."""
    rows = [each.split(" ") for each in shape.split(", ") if each]
    return [(name.removesuffix("?"), kind, not name.endswith("?")) for name, kind in rows]


def _shape(shape: str) -> Schema:
    fields = _fields(shape)
    needed = [name for name, _, is_needed in fields if is_needed]
    return {"type": "object", "properties": {name: _kind(kind) for name, kind, _ in fields}} | (
        {"required": needed} if needed else {}
    )


def _kind(kind: str) -> Schema:
    if kind.endswith("?"):
        return {"anyOf": [_kind(kind.removesuffix("?")), {"type": "null"}]}
    if kind.startswith("["):
        return {"type": "array", "items": _kind(kind[1:-1])}
    return KINDS.get(kind, {"$ref": f"#/components/schemas/{kind}"})
