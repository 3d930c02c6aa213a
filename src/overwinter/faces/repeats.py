"""Routes that may be asked again under a key. Those whose acts keep it with what they change (a start, a message, an answer) do so themselves."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from overwinter.app import App
from overwinter.app.repeats import Again, Answer
from overwinter.faces import scopes
from overwinter.faces.bodies import body_of, key_of
from overwinter.faces.operations import OPERATIONS

__all__ = ["repeatable"]


def repeatable(routes: Sequence[Route], app: App) -> list[Route]:
    """Return the routes, those whose operation has it so with their answers kept under keys."""
    return [
        Route(each.path, _once(each.endpoint, again, app), methods=sorted(each.methods or ()))
        if (again := OPERATIONS[scopes.key_of(each)].again) is not None
        else each
        for each in routes
    ]


def _once(
    endpoint: Callable[[Request], Awaitable[Response]], again: Again, app: App
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        body = await body_of(request)
        key = key_of(request, body)
        if key is None:
            return await endpoint(request)
        asked = {name: value for name, value in body.items() if name != "dedup"}
        place = f"{request.method} {request.url.path}?{request.url.query}"
        digest = hashlib.sha256(f"{place}\0{json.dumps(asked, sort_keys=True)}".encode()).digest()

        async def act() -> Answer:
            response = await endpoint(request)
            return response.status_code, bytes(response.body)

        status, raw = await app.repeats.once(f"{body['by']}\0{key}", digest, again, act)
        # What one answer holds may be a secret: a token.
        return Response(raw, status, media_type="application/json", headers={"cache-control": "no-store"})

    return answer
