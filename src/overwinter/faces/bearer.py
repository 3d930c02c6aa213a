"""The door on TCP: who comes in. A bearer token on every request, from this machine too, and no page of another site.

Any page in a browser can send requests to a port of its own machine, and a name that its owner controls can be made to lead
there (DNS rebinding). So the names by which the door is called are counted, an `Origin` is its own or refused, and no request
is trusted for where it comes from.
"""

import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import lru_cache
from urllib.parse import unquote

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overwinter.app.tokens import Access
from overwinter.errors import OverwinterError
from overwinter.faces import wire
from overwinter.faces.models import dialect_of
from overwinter.faces.problems import problem
from overwinter.faces.scopes import CALLER, NEEDS, refused
from overwinter.tokens import FORM, PREFIX, Token, digest_of

__all__ = ["Attempts", "Bearer"]

OPEN = frozenset(key.partition(" ")[2] for key, need in NEEDS.items() if need.scope == "open")
"""Paths for everybody: public keys."""
REALM = 'Bearer realm="overwinter"'
UNKNOWN = (
    "an API token is needed, `Authorization: Bearer ow_...`, and none came, or one that is unknown, has expired or was revoked: "
    "`overwinter token create` makes one, on the home's machine"
)
"""Says the same of a token that is unknown, has expired or was revoked: whoever tries some learns nothing."""
FAILURES_MAX = 10
"""Wrong tokens in a row from one address; one more is allowed each `FAILURE_S`."""
FAILURE_S = 6.0
ADDRESSES_MAX = 4_096
KNOWN_MAX = 1_024
LOOK_S = 1.0
"""How often a stream of a model asks whether its token still counts: revoking one cuts its streams at once, so this is for
those that expire; a look for each event would cost more than the event."""
PREFIX_6 = 64
"""Bits of an IPv6 address that are somebody's network: within it, one host has as many addresses as it likes."""
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+?)\.?(?::\d{1,5})?")


class Attempts:
    """Counts wrong tokens by address, in bounded memory: the address that was quiet longest is forgotten first."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._free_at = OrderedDict[str, float]()
        """When the last failure of an address is paid off."""

    def wait_s(self, address: str) -> float:
        """Return how long an address must wait before its next attempt; 0: not at all."""
        debt_s = self._free_at.get(_network(address), 0.0) - self._now_s()
        return max(0.0, debt_s - (FAILURES_MAX - 1) * FAILURE_S)

    def failed(self, address: str) -> None:
        """Count a wrong token."""
        network = _network(address)
        free_at = max(self._free_at.pop(network, 0.0), self._now_s()) + FAILURE_S
        self._free_at[network] = free_at
        while len(self._free_at) > ADDRESSES_MAX:
            self._free_at.popitem(last=False)


class Bearer:
    """An ASGI application before another: lets in who has a token that counts, and leaves it in the scope.

    Args:
        inner: gets what was let in.
        access: knows tokens.
        is_ended: told a path and a token that counts no more in the middle of an answer; returns whether somebody else ends it,
            in words that its client knows.
        names: host names by which the door may be called, besides `localhost` and bare addresses: those cannot be rebound.
        attempts: counts failures.
    """

    def __init__(
        self,
        inner: ASGIApp,
        access: Access,
        names: Collection[str],
        attempts: Attempts | None = None,
        *,
        is_ended: Callable[[str, Token], bool] = lambda _path, _token: False,
    ) -> None:
        self._inner, self._access, self._is_ended = inner, access, is_ended
        self._names = {"localhost", *(each.lower().rstrip(".") for each in names)}
        self._attempts = attempts or Attempts()
        self._is_name = lru_cache(KNOWN_MAX)(self._names_us)
        self._known = OrderedDict[tuple[str, bytes], None]()
        """Who came with a right token before: others' failures at the same address do not keep them out."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", f"the door serves HTTP alone, not {scope['type']}"
        refusal = self._misplaced(scope)
        if refusal is None and scope["path"] not in OPEN:
            try:
                came = await self._recognised(scope)
            except OverwinterError as error:  # the store is in trouble: doubt means deny
                came = problem(wire.status_of(error), wire.error(error))
            if isinstance(came, Token):
                scope[CALLER] = came
                send = self._watched(came, scope["path"], send)
            else:
                refusal = came
        await (self._inner if refusal is None else refusal)(scope, receive, send)

    def _watched(self, token: Token, path: str, send: Send) -> Send:
        """Return what sends as long as a token counts: a stream ends with the next thing that it would have told."""
        is_over = False
        look_s = LOOK_S if dialect_of(path) is not None else 0.0
        look_at_s = time.monotonic() + look_s

        async def sent(message: Message) -> None:
            nonlocal is_over, look_at_s
            if is_over:
                return
            is_counted = True
            if message.get("more_body") and time.monotonic() >= look_at_s:
                look_at_s = time.monotonic() + look_s
                is_counted = await self._access.counts(token.id)
            if not is_counted and not self._is_ended(path, token):
                is_over, message = True, {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        return sent

    def _misplaced(self, scope: Scope) -> Response | None:
        """Return why a request is not for this door, or None."""
        hosts, origins = _headers(scope, b"host"), _headers(scope, b"origin")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if not self._is_name(host):
            message = "this door is not called by that Host: name it with `overwinter serve --name`, or use its address"
            return refused(421, "HTTPError", message)
        if any(each.lower().removeprefix("http://").removeprefix("https://") != host for each in origins):
            return refused(403, "HTTPError", "requests from pages of other sites are refused: Origin is not Host")
        if _holds_token(scope):
            message = "a token in an address ends up in logs: revoke it, and send a new one as `Authorization: Bearer`"
            return refused(400, "HTTPError", message)
        return None

    def _names_us(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        try:
            ipaddress.ip_address(found[1].strip("[]"))
        except ValueError:
            return found[1] in self._names
        return True

    async def _recognised(self, scope: Scope) -> Token | Response:
        text = _given(scope)
        if text is None:
            return refused(401, "TokenRefused", UNKNOWN, REALM, exit_code=8)
        address, text = str((scope.get("client") or ("",))[0]), text.strip()
        who = (address, digest_of(text))
        if who not in self._known and (wait_s := self._attempts.wait_s(address)):
            answer = refused(429, "HTTPError", f"too many wrong tokens from your address: wait {wait_s:.0f} s")
            answer.headers["retry-after"] = str(int(wait_s) + 1)
            return answer
        token = await self._access.recognise(text)
        self._known.pop(who, None)
        if token is None:
            self._attempts.failed(address)
            return refused(401, "TokenRefused", UNKNOWN, f'{REALM}, error="invalid_token"', exit_code=8)
        self._known[who] = None
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return token


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _given(scope: Scope) -> str | None:
    """Return the token of a request, wherever the official clients of model providers put theirs; None: there is none, or two."""
    given = _headers(scope, b"authorization")
    plain = [*_headers(scope, b"x-api-key"), *_headers(scope, b"x-goog-api-key")]
    if len(given) + len(plain) != 1:
        return None
    if plain:
        return plain[0]
    scheme, _, text = given[0].partition(" ")
    return text if scheme.lower() == "bearer" else None


def _holds_token(scope: Scope) -> bool:
    query = scope["query_string"].decode("latin-1")
    place = f"{scope['path']}?{unquote(query)}" if query else scope["path"]
    return (PREFIX in place and FORM.search(place) is not None) or re.search(r"(^|&)access_token=", query) is not None


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, PREFIX_6), strict=False))
    return str(found)
