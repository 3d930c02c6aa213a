"""`POST /in/...`: what others tell a run. The address is all that they need, and opens nothing but that run's mailbox.

It is the run's id and a code that only this home can make, so nothing of it is stored. It ends with the run; cancelling that closes it.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from overwinter.app import App
from overwinter.app.hooks import BURST_MAX, PACE_S, Address
from overwinter.clock import SECOND_US
from overwinter.errors import Conflict, NotFound, OverwinterError, UsageError
from overwinter.faces.problems import problem
from overwinter.store import MESSAGE_BYTES_MAX
from overwinter.values import Uncrossable, Value
from overwinter.webhook import is_signed

__all__ = ["InboundDoor"]

PREFIX = "/in/"
HEADERS_MAX = 50
BODY_BYTES_MAX = MESSAGE_BYTES_MAX // 2
"""Its JSON, with headers, must fit a message."""
NAME_CHARACTERS = 200
"""Of a delivery; what is longer is known by its digest."""
FULL_S = 59.0
"""After which the sender to a full mailbox may try again."""
OURS = frozenset({"signed-by", "authorization", "cookie", "host", "connection", "content-length", "accept-encoding"})
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
        answer = await self._answer(scope, receive)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        address = self._app.hooks.opened(scope["path"].removeprefix(PREFIX))
        if address is None:
            return _unknown()
        if scope["method"] != "POST":
            return _refused(405, "HTTPError", "it takes POST", {"allow": "POST"})
        wait_s = self._app.hooks.wait_s(address.run_id)
        if wait_s:
            return _later(f"{BURST_MAX} messages at once, then {1 / PACE_S:g} in a second: wait {wait_s:.1f} s", wait_s)
        body = await _body(receive)
        if body is None:
            return _refused(413, "HTTPError", f"it takes at most {BODY_BYTES_MAX >> 10} KB")
        return await self._verified(address, body, _headers(scope))

    async def _verified(self, address: Address, body: bytes, headers: dict[str, str]) -> Response:
        """Hand over what its sender signed, if the address is for one that does."""
        if address.scheme is None:
            return await self._handed_over(address.run_id, body, headers)
        try:
            secret = await self._app.hooks.secret(address)
            is_theirs = is_signed(address.scheme, secret, headers, body, self._app.access.now_us() // SECOND_US)
        except (OverwinterError, ValueError):  # it was removed, or is another one now: doubt means deny
            return _refused(503, "HTTPError", "the secret of this address cannot be read: look at the home's vault")
        if not is_theirs:
            return _refused(401, "HTTPError", f"the message is not signed by its sender ({address.scheme}), or too old")
        return await self._handed_over(address.run_id, body, {**headers, "signed-by": address.scheme})

    async def _handed_over(self, run_id: str, body: bytes, headers: dict[str, str]) -> Response:
        name = next((headers[each] for each in KEYS if headers.get(each)), None)
        message: dict[str, Value] = {"body": _value(body, headers), "headers": headers}
        try:
            is_new = await self._app.send(
                run_id, message, dedup=None if name is None else f"hook {_short(name)}", by="a webhook"
            )
        except NotFound:  # it was deleted since
            return _unknown()
        except Conflict as error:
            return _refused(410, type(error).__name__, str(error))
        except Uncrossable as error:  # sent again it would be no better
            return _refused(400, type(error).__name__, str(error))
        except UsageError as error:  # its mailbox is full
            return _later(str(error), FULL_S)
        except OverwinterError as error:
            return _refused(503, type(error).__name__, str(error))
        return JSONResponse({"is_new": is_new}, status_code=202)


def _short(name: str) -> str:
    """Return a delivery's name, as it is or by its digest: cut, two that begin alike would be one."""
    return name if len(name) <= NAME_CHARACTERS else hashlib.sha256(name.encode()).hexdigest()


def _unknown() -> Response:
    """Return the one answer at addresses that lead nowhere, whatever is wrong with them."""
    return _refused(404, "HTTPError", "nobody is told anything at this address")


def _later(message: str, wait_s: float) -> Response:
    return _refused(429, "HTTPError", message, {"retry-after": str(int(wait_s) + 1)})


def _refused(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return problem(status, {"error": {"type": kind, "message": message}}, headers)


async def _body(receive: Receive) -> bytes | None:
    """Return a request's body; None: it is too large, or its sender left."""
    parts, size_bytes = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        size_bytes += len(message.get("body", b""))
        if size_bytes > BODY_BYTES_MAX:
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
