"""OAuth 2.1 as MCP asks it of a client (protocol 2026-07-28): who gives tokens for a server, and what is asked of them.

The SDK's provider is one flow over the server's own client: it would ask the authorization server through the connection that
is bound to the MCP server, keeps its lock in memory, and does not look whether PKCE is offered. Its parts without I/O are used.

| rule | source |
|---|---|
| metadata of the resource comes from the server's own origin | RFC 9728, 3 |
| an issuer is compared as a plain string, in metadata and in the redirect | RFC 8414, 3.3; RFC 9207, 2.4 |
| but with no path it may have a slash or none in what a server says of it | RFC 3986, 6.2.3; servers of older SDKs add one |
| `resource` stands in every authorization and token request | RFC 8707, 2 |
| who does not offer PKCE with S256 is not asked | MCP, authorization |
| no answer that sends a request on is followed | a code or a refresh token goes to one address |
"""

import asyncio
import base64
import json
import re
import secrets
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from overwinter.adapters.egress import Endpoint, Forbidden, endpoint, transport
from overwinter.adapters.masks import mask_of
from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "Attempt",
    "Authority",
    "Client",
    "Unsent",
    "begin",
    "discovered",
    "finish",
    "granted",
    "scopes_in",
    "withdrawn",
]

BODY_BYTES_MAX = 1 << 18
REQUEST_S_MAX = 20.0
"""For one request and its whole answer, however slowly it drips."""
WORDS_CHARACTERS_MAX = 200
TOKEN_CHARACTERS_MAX = 16_384
"""Servers refuse headers that are longer; a token of such a length is a mistake or an attack on the vault."""
SCOPES_MAX = 50
REFUSED, UNAUTHORIZED, BROKEN = 400, 401, 500
TOO_MANY = 429
OFFLINE = "offline_access"
"""Who offers this scope gives no refresh token without it (OpenID Connect Core, 11)."""
PLACES = ("authorization", "token", "registration", "revocation")
_TOKEN = re.compile(rf"[!-~]{{1,{TOKEN_CHARACTERS_MAX}}}")
_SCOPE = re.compile(r"[!#-\[\]-~]{1,200}")
"""RFC 6749, 3.3."""
_PARAMETER = re.compile(r'([a-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')


class Unsent(ConfigInvalid):
    """The authorization server gave nothing: no connection, or it said that it is busy or broken. A retry can help."""


@frozen
class Authority:
    """An authorization server, and the resource that its tokens are asked for."""

    issuer: str
    resource: str
    authorize: str
    token: str
    register: str = ""
    revoke: str = ""
    """Where a token is taken back (RFC 7009)."""
    scopes: tuple[str, ...] = ()
    """What the resource says that it needs, and what a refresh token takes."""
    methods: tuple[str, ...] = ()
    """How a client may say who it is at the token endpoint."""
    takes_documents: bool = False
    """A client id may be the address of a metadata document."""
    says_issuer: bool = False
    """Its redirects name it (RFC 9207)."""


@frozen
class Client:
    """Who we are to an authorization server."""

    id: str
    secret: str = ""
    method: str = "none"
    """As RFC 7591 names it: `none`, `client_secret_basic`, `client_secret_post`."""


@frozen
class Attempt:
    """A login that a person has been sent to."""

    authority: Authority
    client: Client
    url: str
    """What the person opens."""
    redirect: str
    state: str
    verifier: str
    named: tuple[str, ...]
    """Addresses that the operator wrote down."""
    scopes: tuple[str, ...]
    """What is asked for."""


async def discovered(server: str, issuer: str) -> Authority:
    """Return who gives tokens for a server.

    Args:
        server: its address, which the operator wrote down.
        issuer: the authorization server that the operator wrote down, or nothing: the first that the server names.

    Raises:
        ConfigInvalid: nobody does, or not as the rules ask.
    """
    from mcp.client.auth import utils  # noqa: PLC0415 - the SDK takes half a second

    named = (server, issuer)
    told = await _challenge(server)
    found = await _first(_resource_places(server, told.get("resource_metadata", "")), named)
    if found is None:
        raise ConfigInvalid(f"{server} does not say who gives tokens for it (RFC 9728): write auth as a reference")
    resource = _resource(found, server)
    offered = _texts(found.get("authorization_servers"))
    if issuer and not any(_is_same(each, issuer) for each in offered):
        names = _plain(", ".join(offered)) or "nobody"
        raise ConfigInvalid(f"{server} takes no tokens of {issuer!r}: it names {names}")
    if not offered:
        raise ConfigInvalid(f"{server} names no authorization server")
    chosen = issuer or offered[0]
    metadata = await _first(utils.build_oauth_authorization_server_metadata_discovery_urls(chosen, server), named)
    if metadata is None:
        raise ConfigInvalid(f"the authorization server {_plain(chosen)} does not describe itself (RFC 8414)")
    if not issuer and isinstance(said := metadata.get("issuer"), str) and _is_same(said, chosen):
        chosen = said
    scopes = scopes_in(told.get("scope", "")) or _texts(found.get("scopes_supported"))
    return _authority(metadata, chosen, resource, scopes, named)


async def begin(
    authority: Authority, *, client: Client | None, scopes: Sequence[str], redirect: str, named: tuple[str, ...]
) -> Attempt:
    """Return a login for a person to go through; without a client one is registered.

    Raises:
        ConfigInvalid: the server knows no such client, and registers none.
    """
    from mcp.client.auth.oauth2 import PKCEParameters  # noqa: PLC0415 - as above

    if client is not None and client.id.startswith("https://") and not authority.takes_documents:
        raise ConfigInvalid(f"{authority.issuer} takes no client metadata documents: register there, and set client_id")
    client = client or await _registered(authority, redirect, named)
    pkce, state = PKCEParameters.generate(), secrets.token_urlsafe(32)
    asked = {
        "response_type": "code", "client_id": client.id, "redirect_uri": redirect, "state": state,
        "code_challenge": pkce.code_challenge, "code_challenge_method": "S256", "resource": authority.resource,
    }  # fmt: skip
    if scopes:
        asked["scope"] = " ".join(scopes)
    joint = "&" if urlsplit(authority.authorize).query else "?"
    url = f"{authority.authorize}{joint}{urlencode(asked)}"
    return Attempt(
        authority=authority, client=client, url=url, redirect=redirect, state=state, verifier=pkce.code_verifier, named=named,
        scopes=tuple(scopes),
    )  # fmt: skip


async def finish(attempt: Attempt, answered: str) -> Mapping[str, Any]:
    """Return the tokens for what a person was sent back with.

    Args:
        attempt: the login.
        answered: the whole address of the redirect.

    Raises:
        ConfigInvalid: it is not of this login, not of this server, or says no.
    """
    query = parse_qs(urlsplit(answered.strip()).query, keep_blank_values=True)
    if any(
        len(values) > 1 for values in query.values()
    ):  # RFC 6749, 3.1: never twice; two readers would read two things
        raise ConfigInvalid("the address says something twice: it is not what an authorization server sends")
    given = {key: values[0] for key, values in query.items()}
    if not secrets.compare_digest(given.get("state", "").encode(), attempt.state.encode()):
        raise ConfigInvalid("the address is of no login that was begun here: its state is another")
    authority = attempt.authority
    issuer = given.get("iss")  # RFC 9207, 2.4: before anything else of the answer is believed
    if issuer != authority.issuer and (issuer is not None or authority.says_issuer):
        raise ConfigInvalid(f"the answer is of {_plain(issuer or 'nobody')}, and not of {authority.issuer}")
    if not given.get("code"):
        raise ConfigInvalid(f"{authority.issuer} gave no login: {_plain(given.get('error', 'no reason'))}")
    asked = {
        "grant_type": "authorization_code", "code": given["code"], "redirect_uri": attempt.redirect,
        "code_verifier": attempt.verifier,
    }  # fmt: skip
    return await granted(authority.token, asked, attempt.client, authority.resource, attempt.named)


async def granted(
    url: str, asked: Mapping[str, str], client: Client, resource: str, named: tuple[str, ...]
) -> Mapping[str, Any]:
    """Return the tokens that a token endpoint gives.

    Args:
        url: of the endpoint.
        asked: the grant.
        client: who asks.
        resource: for which server.
        named: addresses that the operator wrote down.

    Raises:
        Unsent: it took nothing.
        ConfigInvalid: it refused, or answered what is no bearer token for this server.
        OSError: nobody knows what it did.
    """
    status, body = await _form(url, {**asked, "resource": resource}, client, named)
    if status >= REFUSED:
        # What it says may repeat what it was sent, and goes to journals.
        sent = mask_of({client.secret, *asked.values()} - {"", asked["grant_type"]})
        said = _plain(sent.text(str(body.get("error") or f"status {status}")))
        raise ConfigInvalid(f"{_origin(url)} refused: {said}")
    token = body.get("access_token")
    if not isinstance(token, str) or str(body.get("token_type", "")).lower() != "bearer":
        raise ConfigInvalid(f"{_origin(url)} answered no bearer token")
    refresh = body.get("refresh_token") or "none"
    if not _TOKEN.fullmatch(token) or not isinstance(refresh, str) or not _TOKEN.fullmatch(refresh):
        raise ConfigInvalid(f"{_origin(url)} answered a token that no header holds")
    _check_audience(token, resource)
    return body


async def withdrawn(url: str, token: str, client: Client, named: tuple[str, ...]) -> None:
    """Have a refresh token taken back, and what came of it (RFC 7009).

    Raises:
        ConfigInvalid: it is not taken back.
        OSError: nobody knows.
    """
    status, _ = await _form(url, {"token": token, "token_type_hint": "refresh_token"}, client, named)
    if status >= REFUSED:
        raise ConfigInvalid(f"{_origin(url)} does not take the login back: status {status}")


def scopes_in(text: str) -> list[str]:
    """Return the scopes of a list of them."""
    return list(dict.fromkeys(each for each in text.split() if _SCOPE.fullmatch(each)))[:SCOPES_MAX]


async def _form(
    url: str, asked: Mapping[str, str], client: Client, named: tuple[str, ...]
) -> tuple[int, Mapping[str, Any]]:
    form, headers = {**asked, "client_id": client.id}, dict[str, str]()
    if client.method == "client_secret_basic":
        pair = f"{quote(client.id, safe='')}:{quote(client.secret, safe='')}"  # RFC 6749, 2.3.1
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    elif client.method == "client_secret_post":
        form["client_secret"] = client.secret
    status, body = await _asked("POST", url, named, data=form, headers=headers)
    if status == TOO_MANY or status >= BROKEN:
        raise Unsent(f"{_origin(url)} is busy or broken: status {status}")
    return status, body


# --- What others say of themselves ---------------------------------------------------------------------------------------


async def _challenge(server: str) -> Mapping[str, str]:
    """Return what a server says to whoever comes without a token (RFC 9728, 5.1); nothing if it says nothing."""
    try:
        async with _answer("GET", server, (server,), headers={"Accept": "text/event-stream"}) as response:
            words = response.headers.get("WWW-Authenticate", "") if response.status_code == UNAUTHORIZED else ""
    except (ConfigInvalid, OSError):  # asked for where it usually is, it says so itself
        return {}
    return {found[1]: found[2] or found[3] or "" for found in _PARAMETER.finditer(words[:TOKEN_CHARACTERS_MAX])}


def _resource_places(server: str, told: str) -> list[str]:
    """Return where a server may describe itself: where it says, if that is at its own origin, and where all do."""
    from mcp.client.auth import utils  # noqa: PLC0415 - as above

    is_own = bool(told) and _origin(told) == _origin(server)
    return utils.build_protected_resource_metadata_discovery_urls(told if is_own else None, server)


def _resource(found: Mapping[str, Any], server: str) -> str:
    from mcp.shared.auth_utils import check_resource_allowed, resource_url_from_server_url  # noqa: PLC0415 - as above

    own, said = resource_url_from_server_url(server), found.get("resource")
    if not isinstance(said, str) or not check_resource_allowed(requested_resource=own, configured_resource=said):
        raise ConfigInvalid(f"{server} says that it is {_plain(str(said))}: its tokens would be for somebody else")
    return said


def _authority(
    metadata: Mapping[str, Any], issuer: str, resource: str, scopes: Sequence[str], named: tuple[str, ...]
) -> Authority:
    if metadata.get("issuer") != issuer:
        raise ConfigInvalid(f"{issuer} describes itself as {_plain(str(metadata.get('issuer')))}: another issuer")
    if "S256" not in _texts(metadata.get("code_challenge_methods_supported")):
        raise ConfigInvalid(f"{issuer} does not offer PKCE with S256: a login there could be stolen on its way")
    places = {key: _place(metadata, f"{key}_endpoint", named) for key in PLACES}
    if not places["token"]:
        raise ConfigInvalid(f"{issuer} does not say where it gives tokens")
    methods = metadata.get("token_endpoint_auth_methods_supported")
    more = (OFFLINE,) if OFFLINE in _texts(metadata.get("scopes_supported")) and OFFLINE not in scopes else ()
    return Authority(
        issuer=issuer,
        resource=resource,
        authorize=places["authorization"],
        token=places["token"],
        register=places["registration"],
        revoke=places["revocation"],
        scopes=(*scopes, *more) if scopes else (),
        methods=tuple(_texts(methods)) or ("client_secret_basic",),  # RFC 8414, 2: the default
        takes_documents=metadata.get("client_id_metadata_document_supported") is True,
        says_issuer=metadata.get("authorization_response_iss_parameter_supported") is True,
    )


def _place(metadata: Mapping[str, Any], key: str, named: tuple[str, ...]) -> str:
    """Return one of an authorization server's addresses, judged: also that which a person opens; "" if it has none."""
    url = metadata.get(key)
    if not isinstance(url, str) or not url:
        return ""
    try:
        _endpoint(url, named)
    except Forbidden as error:
        raise ConfigInvalid(f"{key} of the authorization server is not asked: {error}") from error
    if not url.isascii():
        raise ConfigInvalid(f"{key} of the authorization server is not asked: it is not written in ASCII")
    return url


async def _registered(authority: Authority, redirect: str, named: tuple[str, ...]) -> Client:
    """Register a client that has no secret (RFC 7591). The protocol only tolerates it: who has an id writes it down."""
    if not authority.register:
        raise ConfigInvalid(
            f"{authority.issuer} registers nobody: set client_id to an id, or to your metadata document"
        )
    wish = {
        "client_name": "overwinter", "redirect_uris": [redirect], "application_type": "native",
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }  # fmt: skip
    status, body = await _asked("POST", authority.register, named, json=wish)
    method = body.get("token_endpoint_auth_method", "none")
    client = Client(
        id=str(body.get("client_id") or ""), secret=str(body.get("client_secret") or ""), method=str(method)
    )
    if status >= REFUSED or not client.id or client.method not in ("none", "client_secret_basic", "client_secret_post"):
        raise ConfigInvalid(f"{authority.issuer} did not register us: {_plain(str(body.get('error') or status))}")
    return client


def _check_audience(token: str, resource: str) -> None:
    """Refuse a token that says that it is for somebody else. What is no JWT says nothing; the server judges it."""
    try:
        middle = token.split(".")[1] if token.count(".") == 2 else ""  # noqa: PLR2004 - RFC 7519, 3: three parts
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (ValueError, RecursionError):
        return
    said = claims.get("aud") if isinstance(claims, dict) else None
    audiences = [said] if isinstance(said, str) else _texts(said)
    if audiences and resource.rstrip("/") not in (each.rstrip("/") for each in audiences):
        raise ConfigInvalid(f"the token is for {_plain(', '.join(audiences))}, and not for {resource}")


# --- Requests ------------------------------------------------------------------------------------------------------------


async def _first(urls: Sequence[str], named: Sequence[str]) -> Mapping[str, Any] | None:
    for url in urls:
        status, body = await _asked("GET", url, named)
        if status == 200 and body:  # noqa: PLR2004 - OK; what is not there, or sends on, is asked for at the next place
            return body
    return None


async def _asked(method: str, url: str, named: Sequence[str], **said: Any) -> tuple[int, Mapping[str, Any]]:
    """Return status and JSON object of one request; it goes to that address and nowhere else.

    Args:
        method: of HTTP.
        url: where to.
        named: addresses that the operator wrote down: their origins may be private, or without TLS.
        said: body and headers.

    Raises:
        Unsent: no connection was made.
        ConfigInvalid: nothing may be sent there, or the answer is too long.
        OSError: the connection broke.
    """
    async with _answer(method, url, named, **said) as response:
        body = b""
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise ConfigInvalid(f"{_origin(url)} answers compressed, which it was asked not to")
        async for part in response.aiter_bytes():
            body += part
            if len(body) > BODY_BYTES_MAX:
                raise ConfigInvalid(f"{_origin(url)} answers more than {BODY_BYTES_MAX} bytes")
        status = response.status_code
    try:
        made = json.loads(body)
    except (ValueError, RecursionError):
        made = None
    return status, cast("Mapping[str, Any]", made) if isinstance(made, dict) else {}


@asynccontextmanager
async def _answer(method: str, url: str, named: Sequence[str], **said: Any) -> "AsyncGenerator[httpx2.Response]":
    """Yield an answer whose body is not read yet; see `_asked`."""
    import httpx2  # noqa: PLC0415 - the SDK's

    said["headers"] = {"Accept": "application/json", "Accept-Encoding": "identity", **said.get("headers", {})}
    try:
        there = _endpoint(url, named)
        async with (
            asyncio.timeout(REQUEST_S_MAX),
            httpx2.AsyncClient(transport=transport(there, {}), timeout=REQUEST_S_MAX, trust_env=False) as client,
            client.stream(method, url, **said) as response,
        ):
            yield response
    except Forbidden as error:
        raise ConfigInvalid(f"{_origin(url)} is not asked: {error}") from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise Unsent(f"{_origin(url)} cannot be reached: {type(error).__name__}") from error
    except socket.gaierror as error:
        raise Unsent(f"{_origin(url)} cannot be found: {error.strerror}") from error
    except TimeoutError as error:
        raise OSError(f"{_origin(url)} did not answer within {REQUEST_S_MAX:g} s") from error
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        raise OSError(f"{_origin(url)} did not answer: {type(error).__name__}") from error


def _endpoint(url: str, named: Sequence[str]) -> Endpoint:
    return endpoint(url, is_named=any(each and _origin(each) == _origin(url) for each in named))


def _is_same(one: str, other: str) -> bool:
    """Return whether two issuers are one: the same text, but for the slash of an address without a path."""
    bare = tuple(each.removesuffix("/") if urlsplit(each).path == "/" else each for each in (one, other))
    return bare[0] == bare[1]


def _origin(url: str) -> str:
    """Return scheme, host and port, for a comparison and for words; a user in it is left out."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()


def _texts(value: object) -> list[str]:
    return [each for each in cast("list[Any]", value) if isinstance(each, str)] if isinstance(value, list) else []


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)[:WORDS_CHARACTERS_MAX]
