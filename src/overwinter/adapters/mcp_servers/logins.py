"""Logins at MCP servers: kept in the home's vault by issuer and resource, refreshed under a lock, and never twice with one token.

A refresh token that rotates is good for one request: who sends it again may lose the whole login. So it is written down
*before* it is sent that it is; whoever finds that mark and no answer cannot know whether the server has it, and a person logs in
again. What an authorization server answers, and be it that it is broken, is no doubt: the token counts as not used. The lock is the kernel's and ends with its process; the mark stays. Without the vault's extra there are no logins: a
refresh token is a password that nobody chose, and no file of ours holds one as it is.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from overwinter.adapters.egress import without_userinfo
from overwinter.adapters.mcp_servers.oauth import (
    Attempt,
    Authority,
    Client,
    Unsent,
    begin,
    discovered,
    finish,
    granted,
    scopes_in,
    withdrawn,
)
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.clock import SECOND_US, Clock
from overwinter.config import Service
from overwinter.errors import ConfigInvalid, HomeError, NotFound
from overwinter.frozen import frozen, replace

__all__ = ["Access", "Denied", "LoginNeeded", "Untaken", "access_of", "begin_login", "finish_login", "forget_login"]

EARLY_US = 60 * SECOND_US
"""A token is refreshed so long before its end, or at half of its life: a request takes time, and clocks differ."""
LIFE_S_MAX = 10 * 365 * 86_400
LOCK_S_MAX = 45.0
"""A refresh takes at most 20 s."""
LOCK_PAUSE_S = 0.02
WANTED_MAX = 50
"""Scopes that a server may have a login ask for, beside those that it names itself."""
ACCOUNT_LENGTH = 16
UNAUTHORIZED, FORBIDDEN = 401, 403
PAUSE_S_MIN, PAUSE_S_MAX = 5.0, 600.0
"""How long a client that was refused is not asked for again: doubled with each refusal. Nobody mends it within a second."""
_SCOPE = re.compile(r'scope\s*=\s*"([^"]*)"')


class LoginNeeded(ConfigInvalid):
    """A person has to log in. A retry helps when they have."""


class Denied(ConfigInvalid):
    """The authorization server refuses this client, or the server its tokens. A retry helps when an operator has mended it."""


@frozen
class Untaken:
    """A request that a server refused for its credential; nothing was carried out."""

    status: int
    needs: Literal["login", "mending", "time"]
    """A person who logs in; an operator; or nothing but another attempt later."""
    why: str


@frozen
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
    revoke_url: str = ""
    scopes: tuple[str, ...] = ()
    """What was asked for."""
    wanted: tuple[str, ...] = ()
    """What a call was refused for since: the next login asks for it, too (SEP-2350)."""


class Access:
    """The bearer token of one service and account, of this moment."""

    def __init__(  # noqa: PLR0913, PLR0917 - made by `access_of` alone
        self,
        name: str,
        service: Service,
        references: Callable[[], References],
        vault: Vault,
        clock: Clock,
        account: str,
    ) -> None:
        self._name, self._service, self._references = name, service, references
        self._vault, self._clock, self._account = vault, clock, account
        self._own: Login | None = None
        self._authority: Authority | None = None
        self._read: tuple[tuple[int, ...], Login] | None = None
        """What the vault had, and its version then: it is decrypted when it has changed, and not for each request."""
        self._alone = asyncio.Lock()
        self.fault = ""
        """Why the server takes no token of this login; a new login ends it."""
        self._faulty = ""
        self._refusals, self._not_before_us = 0, 0

    @property
    def is_personal(self) -> bool:
        """Return whether a person can help, by logging in."""
        return self._service.auth == "oauth"

    def forgive(self) -> None:
        """Try a login again that the server did not take: a person says that it is well."""
        self.fault = self._faulty = ""

    async def bearer(self, refused: str = "") -> str:
        """Return a token that is good for now.

        Args:
            refused: one that the server did not take.

        Raises:
            LoginNeeded: there is none, or it has ended.
            Denied: this client gets none.
            ConfigInvalid: there is none, and what to do.
            OSError: nobody knows what became of a request for one.
        """
        async with self._alone:
            if self._service.auth == "oauth-client":
                return await self._machine(refused)
            login = self._kept()
            if self.fault and login.access == self._faulty:
                raise LoginNeeded(self.fault)
            self.fault = ""
            if login.access != refused and not self._is_due(login):
                return login.access
            async with _locked(self._vault.home, self._place(login.issuer)):
                return await self._refreshed(login, refused)

    async def renewed(self, token: str) -> str:
        """Return another token than one that a server did not take; "" if there is none, and `fault` may say why."""
        try:
            return await self.bearer(token)
        except (Denied, LoginNeeded) as error:
            self.fault, self._faulty = str(error), token
        except (ConfigInvalid, OSError):
            pass  # its authorization server is busy, or away: the login may be well
        return ""

    async def judge(self, status: int, words: str, token: str) -> Untaken:
        """Note that a server does not take what it was given: the next call says so instead of asking again.

        Returns:
            What it wants.
        """
        if status == UNAUTHORIZED:
            self.fault, self._faulty = self._again("the server takes no token of it"), token
            return Untaken(status=status, needs="login" if self.is_personal else "mending", why=self.fault)
        if "insufficient_scope" not in words:
            return Untaken(status=status, needs="mending", why="the server forbids it")
        if self.is_personal and not self._service.scopes:
            await self._step_up(scopes_in(" ".join(_SCOPE.findall(words))))
        return Untaken(status=status, needs="login" if self.is_personal else "mending", why=self._narrow())

    def _narrow(self) -> str:
        """Return what to do where the server wants other scopes: no fault of the login, which does for other calls."""
        if self._service.scopes or not self.is_personal:
            then = f", then {self._command}" if self.is_personal else ""
            return f"services.{self._name}: it wants other scopes: add them to services.{self._name}.scopes{then}"
        return f"services.{self._name}: it wants more scopes than this login has: {self._command}"

    async def _step_up(self, scopes: Sequence[str]) -> None:
        """Keep what a call lacked, for the next login."""
        async with self._alone:
            login = self._kept()
            missing = [each for each in scopes if each not in (*login.scopes, *login.wanted)]
            if missing and not login.is_sent:
                async with _locked(self._vault.home, self._place(login.issuer)):
                    login = self._kept(is_fresh=True)
                    self._keep(replace(login, wanted=(*login.wanted, *missing)[:WANTED_MAX]))

    async def _machine(self, refused: str) -> str:
        """Return a token of the client's own (RFC 6749, 4.4): asked for when it is needed, kept in memory alone."""
        own, now_us = self._own, self._clock.now_us()
        is_faulty = bool(self.fault) and own is not None and own.access == self._faulty
        if own is not None and own.access != refused and not is_faulty and not self._is_due(own):
            return own.access
        if now_us < self._not_before_us:
            why = self.fault or "its authorization server was asked a moment ago"
            left_s = (self._not_before_us - now_us) / SECOND_US
            raise Denied(f"{why}; it is asked again in {left_s:.0f} s")
        try:
            self._own = await self._asked_for_own()
        except Unsent:
            self._authority = None
            raise
        except ConfigInvalid as error:
            self._authority = None
            self.fault = f"services.{self._name}: {error}: see issuer, client_id and client_secret"
            raise Denied(self._refused_again()) from error
        if is_faulty or refused:  # a new token for one that was not taken: the server says whether it is better
            self._refused_again()
        else:
            self._refusals, self._not_before_us = 0, 0
        return self._own.access

    def _refused_again(self) -> str:
        pause_s = min(PAUSE_S_MAX, PAUSE_S_MIN * 2 ** min(self._refusals, 10))
        self._refusals, self._not_before_us = self._refusals + 1, self._clock.now_us() + round(pause_s * SECOND_US)
        return self.fault

    async def _asked_for_own(self) -> Login:
        service = self._service
        server, references = self._server()
        authority = self._authority = self._authority or await discovered(server, service.issuer)
        client = _client(service, references, authority.methods)
        assert client is not None
        scopes = service.scopes or authority.scopes
        asked = {"grant_type": "client_credentials", **({"scope": " ".join(scopes)} if scopes else {})}
        body = await granted(authority.token, asked, client, authority.resource, (server, service.issuer))
        return _with(_blank(authority, client, secret="", scopes=scopes), body, self._clock.now_us())

    async def _refreshed(self, before: Login, refused: str) -> str:
        """Refresh a login that this process alone holds now, unless another one has while we waited."""
        login = self._kept(is_fresh=True)
        if login.access not in (before.access, refused) and not self._is_due(login):
            return login.access
        if login.is_sent or not login.refresh:
            if login.access != refused and self._clock.now_us() < login.ends_us:
                return login.access
            why = "an earlier refresh was cut off" if login.is_sent else "it has ended"
            raise LoginNeeded(self._again(why))
        server, references = self._server()
        secret = (
            references.whole(self._service.client_secret, self._name)
            if self._service.client_secret
            else login.client_secret
        )
        client = Client(id=login.client_id, secret=secret, method=login.method)
        asked = {"grant_type": "refresh_token", "refresh_token": login.refresh}
        self._keep(replace(login, is_sent=True))
        try:
            body = await granted(login.token_url, asked, client, login.resource, (server, self._service.issuer))
        except Unsent:
            self._keep(login)
            if login.access != refused and self._clock.now_us() < login.ends_us:
                return login.access
            raise
        except ConfigInvalid as error:
            raise LoginNeeded(self._again(str(error))) from error
        after = _with(login, body, self._clock.now_us())
        self._keep(after)
        return after.access

    def _is_due(self, login: Login) -> bool:
        return bool(login.soon_us) and self._clock.now_us() >= login.soon_us

    def _kept(self, *, is_fresh: bool = False) -> Login:
        """Return the login that the vault has.

        Args:
            is_fresh: look, whatever was seen before: its lock is held.
        """
        version = self._vault.version()
        if not is_fresh and self._read is not None and version == self._read[0]:
            return self._read[1]
        self._read = None
        found = _found(self._vault, self._server()[0], self._service.issuer, self._account)
        if found is None:
            raise LoginNeeded(f"services.{self._name}: nobody has logged in: {self._command}")
        if version is not None:
            self._read = version, found
        return found

    def _keep(self, login: Login) -> None:
        _keep(self._vault, self._place(login.issuer), login)

    def _place(self, issuer: str) -> str:
        return _name(self._server()[0], issuer, self._account)

    def _server(self) -> tuple[str, References]:
        references = self._references()
        return _address(self._service, references), references

    def _again(self, why: str) -> str:
        if not self.is_personal:
            return f"services.{self._name}: the client does not do ({why}): see client_id and scopes"
        return f"services.{self._name}: the login does not do any more ({why}): {self._command}"

    @property
    def _command(self) -> str:
        account = f" --account {self._account}" if self._account else ""
        return f"overwinter tools login {self._name}{account}"


def access_of(  # noqa: PLR0913 - what a login is used with
    name: str, service: Service, directory: Path, vault: Vault, clock: Clock, *, account: str = ""
) -> Access | None:
    """Return what gives the tokens of a service; None if it needs none.

    Args:
        name: of the service.
        service: how it is declared.
        directory: paths are relative to it.
        vault: has the logins.
        clock: says when a token has ended.
        account: which of several logins at one server; "" is the home's.
    """
    if not service.auth.startswith("oauth"):
        return None
    return Access(name, service, lambda: References(directory, vault), vault, clock, account)


async def begin_login(
    service: Service, references: References, redirect: str, vault: Vault, *, account: str = ""
) -> Attempt:
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
    before = _found(vault, server, authority.issuer, account)
    wanted = () if before is None else (*before.scopes, *before.wanted)
    scopes = service.scopes or tuple(dict.fromkeys((*authority.scopes, *wanted)))
    return await begin(authority, client=client, scopes=scopes, redirect=redirect, named=(server, service.issuer))


async def finish_login(  # noqa: PLR0913 - what a login is made of
    attempt: Attempt,
    answered: str,
    service: Service,
    references: References,
    vault: Vault,
    *,
    now_us: int,
    account: str = "",
) -> None:
    """Keep the login that a person was sent back with, in the place of an earlier one.

    Raises:
        ConfigInvalid: it is none.
    """
    body = await finish(attempt, answered)
    client, authority = attempt.client, attempt.authority
    secret = "" if service.client_secret else client.secret
    login = _with(_blank(authority, client, secret=secret, scopes=attempt.scopes), body, now_us)
    place = _name(_address(service, references), authority.issuer, account)
    async with _locked(vault.home, place):
        _keep(vault, place, login)


async def forget_login(service: Service, references: References, vault: Vault, *, account: str = "") -> tuple[str, str]:
    """Forget a login here first, then have it taken back where it was given.

    Returns:
        The issuer, and why it does not know of it; "" if it does.

    Raises:
        NotFound: nobody has logged in.
    """
    server = _address(service, references)
    login = _found(vault, server, service.issuer, account)
    if login is None:
        raise NotFound("nobody has logged in there")
    place = _name(server, login.issuer, account)
    async with _locked(vault.home, place):
        login = _found(vault, server, login.issuer, account) or login
        vault.remove(place)
    if not login.revoke_url or not login.refresh:
        return login.issuer, "it offers no way to take a login back: do it on its own pages"
    secret = references.whole(service.client_secret, "client_secret") if service.client_secret else login.client_secret
    client = Client(id=login.client_id, secret=secret, method=login.method)
    try:
        await withdrawn(login.revoke_url, login.refresh, client, (server, service.issuer))
    except (ConfigInvalid, OSError) as error:
        return login.issuer, str(error)
    return login.issuer, ""


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


def _blank(authority: Authority, client: Client, *, secret: str, scopes: Sequence[str]) -> Login:
    return Login(
        issuer=authority.issuer, resource=authority.resource, token_url=authority.token, revoke_url=authority.revoke,
        client_id=client.id, client_secret=secret, method=client.method, access="", scopes=tuple(scopes),
    )  # fmt: skip


def _with(login: Login, body: Mapping[str, Any], now_us: int) -> Login:
    life = body.get("expires_in")
    try:
        life_us = round(min(max(float(life), 0.0), LIFE_S_MAX) * SECOND_US) if life is not None else 0
    except (TypeError, ValueError, OverflowError):  # no number, or one beyond all
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


def _name(server: str, issuer: str, account: str) -> str:
    return f"oauth.{_digest(server)}.{_digest(issuer)}" + (f".{_digest(account)[:ACCOUNT_LENGTH]}" if account else "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _found(vault: Vault, server: str, issuer: str, account: str) -> Login | None:
    """Return the login of an account at a server: that of the issuer, or the newest if none is named."""
    secrets = vault.all()
    if issuer:
        names = [_name(server, issuer, account)]
    else:
        start, end = f"oauth.{_digest(server)}.", _name("", "", account)[len(_name("", "", "")) :]
        length = len(_name(server, "", account))
        names = [each for each in secrets if each.startswith(start) and each.endswith(end) and len(each) == length]
    found = [_read(secrets[name]) for name in names if name in secrets]
    return max(found, key=lambda each: each.at_us, default=None)


def _read(text: str) -> Login:
    """Return a login as it was kept; what a later version added to it is left out."""
    made = json.loads(text)
    known = {each.name: made[each.name] for each in fields(Login) if each.name in made}
    known |= {key: tuple(known.get(key, ())) for key in ("scopes", "wanted")}
    return Login(**known)


def _keep(vault: Vault, place: str, login: Login) -> None:
    vault.put(place, json.dumps(asdict(login)))


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
