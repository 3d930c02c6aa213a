"""`POST /in/...`: what others tell a run. The address is all that they need, and opens nothing but that run's mailbox.

It is the run's id and a code that only this home can make, so nothing of it is stored. It ends with the run; cancelling that closes it.
"""

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from overwinter.app import App
from overwinter.errors import Conflict, OverwinterError, UsageError
from overwinter.store import MESSAGE_BYTES_MAX
from overwinter.values import Value

__all__ = ["InboundDoor"]

PREFIX = "/in/"
HEADERS_MAX = 50
OURS = frozenset({"authorization", "cookie", "host", "connection", "content-length", "accept-encoding"})
"""Headers that say nothing to a program, or that it must not see."""
KEYS = ("webhook-id", "x-github-delivery", "idempotency-key")
"""Headers by which a sender names a delivery: a second one of a name is the first one again."""


class InboundDoor:
    """An ASGI application before another, for the socket and for TCP alike: it asks for no token."""

    def __init__(self, inner: ASGIApp, app: App) -> None:
        self._inner, self._app = inner, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not scope["path"].startswith(PREFIX):
            await self._inner(scope, receive, send)
            return
        status, said = await self._taken(scope, receive)
        raw = json.dumps(said).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": raw, "more_body": False})

    async def _taken(self, scope: Scope, receive: Receive) -> tuple[int, dict[str, Value]]:
        run_id = self._app.hooks.run_of(scope["path"].removeprefix(PREFIX))
        if run_id is None:
            return 404, {"error": "nobody is told anything at this address"}
        if scope["method"] != "POST":
            return 405, {"error": "it takes POST"}
        body = await _body(receive)
        if body is None:
            return 413, {"error": f"it takes at most {MESSAGE_BYTES_MAX >> 20} MB"}
        return await self._handed_over(run_id, body, _headers(scope))

    async def _handed_over(self, run_id: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Value]]:
        name = next((headers[each] for each in KEYS if headers.get(each)), None)
        message: dict[str, Value] = {"body": _value(body, headers), "headers": headers}
        try:
            is_new = await self._app.send(
                run_id, message, dedup=None if name is None else f"hook {name[:200]}", by="a webhook"
            )
        except Conflict as error:
            return 410, {"error": str(error)}
        except UsageError as error:  # its mailbox is full: later
            return 429, {"error": str(error)}
        except OverwinterError as error:
            return 503, {"error": str(error)}
        return 202, {"is_new": is_new}


async def _body(receive: Receive) -> bytes | None:
    """Return a request's body; None: it is too large, or its sender left."""
    parts, size_bytes = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        size_bytes += len(message.get("body", b""))
        if size_bytes > MESSAGE_BYTES_MAX // 2:  # its JSON, with headers, must fit a message
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _headers(scope: Scope) -> dict[str, str]:
    rows = [(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in scope["headers"]]
    return dict([row for row in rows if row[0] not in OURS][:HEADERS_MAX])


def _value(body: bytes, headers: Mapping[str, str]) -> Value:
    """Return JSON as what it says, anything else as text."""
    text = body.decode(errors="replace")
    if "json" not in headers.get("content-type", ""):
        return text
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found
