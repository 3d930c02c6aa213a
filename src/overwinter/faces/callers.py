"""Who stands at the home's own socket: whose process it is, as the kernel says, and for whom it says to act.

Whoever can open the socket's file owns the home: they could write into its store, or make a token in anybody's name. So a name
that they give is taken, and shown for what it is, `ana@example.com (claimed by uid 1000)`; `[approvals] claims = false` refuses it.
"""

import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from overwinter.actor import Actor, called
from overwinter.app import App
from overwinter.errors import Denied
from overwinter.faces.bodies import READ, body_of
from overwinter.faces.scopes import CALLER

__all__ = ["ACTOR", "PEER", "account", "actor_of", "known", "uid_of"]

PEER = "overwinter.peer"
"""Key of the ASGI scope under which the socket's server leaves the user id of who connected."""
ACTOR = "overwinter.actor"
"""The same for the `Actor` that was made of it."""
UNKNOWN = "an unknown user"
"""Where the kernel does not say who connected; there the socket's mode alone keeps others out."""


def uid_of(connected: socket.socket) -> int | None:
    """Return the user id of the process that connected to a unix socket; None: this system does not say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid


def account(uid: int) -> str:
    """Return the name of a user's account on this machine, or `uid N`."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def actor_of(scope: Mapping[str, Any], said: object) -> Actor:
    """Return who put a request.

    Args:
        scope: of the request.
        said: for whom it says to act; empty: for whoever it is.

    Raises:
        UsageError: that is no name.
    """
    if CALLER in scope:
        return Actor(person=scope[CALLER].person)
    uid: int | None = scope.get(PEER)
    user = UNKNOWN if uid is None else f"uid {uid}"
    name = user if uid is None else account(uid)
    if not said or said == name:
        return Actor(person=name, user=user)
    return Actor(person=called(str(said)), user=user, is_claimed=True)


def known(routes: Sequence[Route], app: App) -> list[Route]:
    """Return the routes for the home's own socket: `by` in a body is who it is, whatever stood there."""
    return [Route(each.path, _known(each.endpoint, app), methods=sorted(each.methods or ())) for each in routes]


def _known(endpoint: Callable[[Request], Awaitable[Response]], app: App) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            body = await body_of(request)
            actor = actor_of(request.scope, body.get("by"))
            if actor.is_claimed and not app.config.approvals.claims:
                raise Denied(
                    f"that {actor.user} is {actor.person} is a claim, and [approvals] refuses claims: they come over TCP with a token "
                    "of theirs, or from their own account"
                )
            request.scope[READ], request.scope[ACTOR] = {**body, "by": str(actor)}, actor
        return await endpoint(request)

    return answer
