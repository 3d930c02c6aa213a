"""Logins at MCP servers: kept in the home's vault by issuer and resource, refreshed under a lock, and never twice with one token.

A refresh token that rotates is good for one request: who sends it again may lose the whole login. So it is written down
*before* it is sent that it is; whoever finds that mark and no answer cannot know whether the server has it, and a person logs in
again. The lock is the kernel's and ends with its process; the mark stays. Without the vault's extra there are no logins: a
refresh token is a password that nobody chose, and no file of ours holds one as it is.
"""

import asyncio
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overwinter.adapters.egress import without_userinfo
from overwinter.adapters.mcp_servers.oauth import Attempt, Client, Unsent, begin, discovered, finish, granted
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.clock import SECOND_US, Clock
from overwinter.config import Service
from overwinter.errors import ConfigInvalid, HomeError

if TYPE_CHECKING:
    import httpx2

__all__ = ["Access", "access_of", "begin_login", "finish_login"]

EARLY_US = 60 * SECOND_US
"""A token is refreshed so long before its end, or at half of its life: a request takes time, and clocks differ."""
LIFE_S_MAX = 10 * 365 * 86_400
LOCK_S_MAX = 45.0
"""A refresh takes at most 20 s."""
LOCK_PAUSE_S = 0.02
UNAUTHORIZED, FORBIDDEN = 401, 403


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a login gave."""

    issuer: str
    resource: str
    token_url: str
    client_id: str
    client_secret: str
    """Of a registration; one that the operator has is read anew each time."""
    method: str
    access: str
    refresh: str = ""
    soon_us: int = 0
    """From when on it is refreshed; 0: its end is not known."""
    ends_us: int = 0
    at_us: int = 0
    is_sent: bool = False
    """The refresh token was sent, and what came of it was not written down."""


class Access:
    """The bearer token of one service, of this moment."""

    def __init__(
        self, name: str, service: Service, references: Callable[[], References], vault: Vault, clock: Clock
    ) -> None:
        self._name, self._service, self._references = name, service, references
        self._vault, self._clock = vault, clock
        self._own: Login | None = None
        self._alone = asyncio.Lock()
        self.fault = ""
        """Why the server takes no token of this login; a new login ends it."""
        self._faulty = ""

    async def bearer(self, refused: str = "") -> str:
        """Return a token that is good for now.

        Args:
            refused: one that the server did not take.

        Raises:
            ConfigInvalid: there is none, and what to do.
            OSError: nobody knows what became of a request for one.
        """
        async with self._alone:
            if self._service.auth == "oauth-client":
                return await self._machine(refused)
            login = self._kept()
            if self.fault and login.access == self._faulty:
                raise ConfigInvalid(self.fault)
            self.fault = ""
            if login.access != refused and not self._is_due(login):
                return login.access
            async with _locked(self._vault.home, _name(self._server()[0], login.issuer)):
                return await self._refreshed(login, refused)

    def auth(self, hide: Callable[[str], None]) -> "httpx2.Auth":
        """Return what puts the token on each request, told to `hide` before it is sent; after a 401 it is renewed once."""
        import httpx2  # noqa: PLC0415 - the SDK's, which many homes do not need

        access = self

        class Bearer(httpx2.Auth):
            async def async_auth_flow(
                self, request: "httpx2.Request"
            ) -> "AsyncGenerator[httpx2.Request, httpx2.Response]":
                token = await access.bearer()
                hide(token)
                request.headers["Authorization"] = f"Bearer {token}"
                response = yield request
                if response.status_code == UNAUTHORIZED:
                    token = await access.bearer(token)
                    hide(token)
                    request.headers["Authorization"] = f"Bearer {token}"
                    response = yield request
                access.judge(response.status_code, response.headers.get("WWW-Authenticate", ""), token)

        return Bearer()

    def judge(self, status: int, words: str, token: str) -> None:
        """Note that a server does not take what was just given out for it: the next call says so instead of asking again."""
        if status == UNAUTHORIZED:
            self.fault, self._faulty = self._again("the server takes no token of it"), token
        elif status == FORBIDDEN and "insufficient_scope" in words:
            why = f"it wants other scopes: add them to services.{self._name}.scopes"
            self.fault, self._faulty = self._again(why), token

    async def _machine(self, refused: str) -> str:
        """Return a token of the client's own (RFC 6749, 4.4): asked for when it is needed, kept in memory alone."""
        own, service = self._own, self._service
        if self.fault and own is not None and own.access == self._faulty:
            raise ConfigInvalid(
                f"services.{self._name}: the server takes no token of this client: see client_id and scopes"
            )
        if own is not None and own.access != refused and not self._is_due(own):
            return own.access
        server, references = self._server()
        authority = await discovered(server, service.issuer)
        client = _client(service, references, authority.methods)
        assert client is not None
        scopes = service.scopes or authority.scopes
        asked = {"grant_type": "client_credentials", **({"scope": " ".join(scopes)} if scopes else {})}
        body = await granted(authority.token, asked, client, authority.resource, (server, service.issuer))
        blank = Login(
            issuer=authority.issuer, resource=authority.resource, token_url=authority.token, client_id=client.id,
            client_secret="", method=client.method, access="",
        )  # fmt: skip
        self._own = _with(blank, body, self._clock.now_us())
        return self._own.access

    async def _refreshed(self, before: Login, refused: str) -> str:
        """Refresh a login that this process alone holds now, unless another one has while we waited."""
        login = self._kept()
        if login.access not in (before.access, refused) and not self._is_due(login):
            return login.access
        if login.is_sent or not login.refresh:
            if login.access != refused and self._clock.now_us() < login.ends_us:
                return login.access
            why = "an earlier refresh was cut off" if login.is_sent else "it has ended"
            raise ConfigInvalid(self._again(why))
        server, references = self._server()
        secret = (
            references.whole(self._service.client_secret, self._name)
            if self._service.client_secret
            else login.client_secret
        )
        client = Client(id=login.client_id, secret=secret, method=login.method)
        asked = {"grant_type": "refresh_token", "refresh_token": login.refresh}
        _keep(self._vault, server, replace(login, is_sent=True))
        try:
            body = await granted(login.token_url, asked, client, login.resource, (server, self._service.issuer))
        except Unsent:
            _keep(self._vault, server, login)
            if login.access != refused and self._clock.now_us() < login.ends_us:
                return login.access
            raise
        except ConfigInvalid as error:
            raise ConfigInvalid(self._again(str(error))) from error
        after = _with(login, body, self._clock.now_us())
        _keep(self._vault, server, after)
        return after.access

    def _is_due(self, login: Login) -> bool:
        return bool(login.soon_us) and self._clock.now_us() >= login.soon_us

    def _kept(self) -> Login:
        found = _found(self._vault, self._server()[0], self._service.issuer)
        if found is None:
            raise ConfigInvalid(f"services.{self._name}: nobody has logged in: overwinter tools login {self._name}")
        return found

    def _server(self) -> tuple[str, References]:
        references = self._references()
        return _address(self._service, references), references

    def _again(self, why: str) -> str:
        return f"services.{self._name}: the login does not do any more ({why}): overwinter tools login {self._name}"


def access_of(name: str, service: Service, directory: Path, vault: Vault, clock: Clock) -> Access | None:
    """Return what gives the tokens of a service; None if it needs none."""
    if not service.auth.startswith("oauth"):
        return None
    return Access(name, service, lambda: References(directory, vault), vault, clock)


async def begin_login(service: Service, references: References, redirect: str) -> Attempt:
    """Return a login at the server of a service for a person to go through.

    Raises:
        ConfigInvalid: the service takes none, or its authorization server is not as the rules ask.
    """
    if service.auth != "oauth":
        raise ConfigInvalid(f"a login is for services with auth = 'oauth', and this one has {service.auth!r}")
    server = _address(service, references)
    authority = await discovered(server, service.issuer)
    if not authority.authorize:
        raise ConfigInvalid(f"{authority.issuer} has no page to log in on: see auth = 'oauth-client'")
    client = _client(service, references, authority.methods)
    scopes = service.scopes or authority.scopes
    return await begin(authority, client=client, scopes=scopes, redirect=redirect, named=(server, service.issuer))


async def finish_login(  # noqa: PLR0913 - what a login is made of
    attempt: Attempt, answered: str, service: Service, references: References, vault: Vault, *, now_us: int
) -> None:
    """Keep the login that a person was sent back with, in the place of an earlier one.

    Raises:
        ConfigInvalid: it is none.
    """
    body = await finish(attempt, answered)
    client, authority = attempt.client, attempt.authority
    blank = Login(
        issuer=authority.issuer, resource=authority.resource, token_url=authority.token, client_id=client.id,
        client_secret="" if service.client_secret else client.secret, method=client.method, access="",
    )  # fmt: skip
    server = _address(service, references)
    async with _locked(vault.home, _name(server, authority.issuer)):
        _keep(vault, server, _with(blank, body, now_us))


def _address(service: Service, references: References) -> str:
    return without_userinfo(references.text(service.mcp.removeprefix("sse+"), service.mcp))[0]


def _client(service: Service, references: References, methods: Sequence[str]) -> Client | None:
    if not service.client_id:
        return None
    if not service.client_secret:
        return Client(id=service.client_id)
    method = next((each for each in ("client_secret_basic", "client_secret_post") if each in methods), None)
    if method is None:
        raise ConfigInvalid(f"{service.issuer} takes no secret of a client, only {', '.join(methods)}")
    return Client(id=service.client_id, secret=references.whole(service.client_secret, "client_secret"), method=method)


def _with(login: Login, body: Mapping[str, Any], now_us: int) -> Login:
    life = body.get("expires_in")
    try:
        life_us = round(min(max(float(life), 0.0), LIFE_S_MAX) * SECOND_US) if life is not None else 0
    except (TypeError, ValueError):
        life_us = 0
    return replace(
        login,
        access=str(body["access_token"]),
        refresh=str(body.get("refresh_token") or login.refresh),
        soon_us=now_us + max(life_us // 2, life_us - EARLY_US) if life is not None else 0,
        ends_us=now_us + life_us if life is not None else 0,
        at_us=now_us,
        is_sent=False,
    )


def _name(server: str, issuer: str) -> str:
    return f"oauth.{_digest(server)}.{_digest(issuer)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _found(vault: Vault, server: str, issuer: str) -> Login | None:
    """Return the login at a server: that of the issuer, or the newest if none is named."""
    start = _name(server, issuer) if issuer else f"oauth.{_digest(server)}."
    found = [Login(**json.loads(vault.read(name))) for name in vault.names() if name.startswith(start)]
    return max(found, key=lambda each: each.at_us, default=None)


def _keep(vault: Vault, server: str, login: Login) -> None:
    vault.put(_name(server, login.issuer), json.dumps(asdict(login)))


@asynccontextmanager
async def _locked(home: Path, name: str) -> AsyncGenerator[None]:
    """Hold the lock of one login against every other process; the kernel ends it with ours."""
    place = home / "keys" / f"{name}.lock"
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeError(f"{place} cannot be written: {error.strerror}") from error
    try:
        async with asyncio.timeout(LOCK_S_MAX):
            while not _is_taken(lock):  # noqa: ASYNC110 - another process holds it, and sets no event of ours
                await asyncio.sleep(LOCK_PAUSE_S)
        yield
    finally:
        os.close(lock)


def _is_taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
