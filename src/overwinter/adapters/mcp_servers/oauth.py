"""OAuth 2.1 as MCP asks it of a client (protocol 2026-07-28): who gives tokens for a server, and what is asked of them.

The SDK's provider is one flow over the server's own client: it would ask the authorization server through the connection that
is bound to the MCP server, keeps its lock in memory, and does not look whether PKCE is offered. Its parts without I/O are used.

| rule | source |
|---|---|
| metadata of the resource comes from the server's own origin | RFC 9728, 3 |
| an issuer is compared as a plain string, in metadata and in the redirect | RFC 8414, 3.3; RFC 9207, 2.4 |
| `resource` stands in every authorization and token request | RFC 8707, 2 |
| who does not offer PKCE with S256 is not asked | MCP, authorization |
| no answer that sends a request on is followed | a code or a refresh token goes to one address |
"""

import base64
import json
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from overwinter.adapters.egress import Forbidden, endpoint, transport
from overwinter.errors import ConfigInvalid

__all__ = ["Attempt", "Authority", "Client", "Unsent", "begin", "discovered", "finish", "granted"]

BODY_BYTES_MAX = 1 << 18
REQUEST_S_MAX = 20.0
WORDS_CHARACTERS_MAX = 200
REFUSED = 400
TOO_MANY, UNAVAILABLE = 429, 503


class Unsent(ConfigInvalid):
    """The authorization server took nothing: no connection, or it said that it is busy. A retry can help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """An authorization server, and the resource that its tokens are asked for."""

    issuer: str
    resource: str
    authorize: str
    token: str
    register: str = ""
    scopes: tuple[str, ...] = ()
    """What the resource says that it needs."""
    methods: tuple[str, ...] = ()
    """How a client may say who it is at the token endpoint."""
    takes_documents: bool = False
    """A client id may be the address of a metadata document."""
    says_issuer: bool = False
    """Its redirects name it (RFC 9207)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who we are to an authorization server."""

    id: str
    secret: str = ""
    method: str = "none"
    """As RFC 7591 names it: `none`, `client_secret_basic`, `client_secret_post`."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    found = await _first(utils.build_protected_resource_metadata_discovery_urls(None, server), named)
    if found is None:
        raise ConfigInvalid(f"{server} does not say who gives tokens for it (RFC 9728): write auth as a reference")
    resource = _resource(found, server)
    offered = _texts(found.get("authorization_servers"))
    if issuer and issuer not in offered:
        raise ConfigInvalid(f"{server} takes no tokens of {issuer!r}: it names {', '.join(offered) or 'nobody'}")
    if not offered:
        raise ConfigInvalid(f"{server} names no authorization server")
    chosen = issuer or offered[0]
    places = utils.build_oauth_authorization_server_metadata_discovery_urls(chosen, server)
    metadata = await _first(places, named)
    if metadata is None:
        raise ConfigInvalid(f"the authorization server {chosen} does not describe itself (RFC 8414)")
    return _authority(metadata, chosen, resource, _texts(found.get("scopes_supported")))


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
        authority=authority, client=client, url=url, redirect=redirect, state=state, verifier=pkce.code_verifier, named=named
    )  # fmt: skip


async def finish(attempt: Attempt, answered: str) -> Mapping[str, Any]:
    """Return the tokens for what a person was sent back with.

    Args:
        attempt: the login.
        answered: the whole address of the redirect.

    Raises:
        ConfigInvalid: it is not of this login, not of this server, or says no.
    """
    given = {key: values[0] for key, values in parse_qs(urlsplit(answered.strip()).query).items() if len(values) == 1}
    if not secrets.compare_digest(given.get("state", "").encode(), attempt.state.encode()):
        raise ConfigInvalid("the address is of no login that was begun here: its state is another")
    authority = attempt.authority
    issuer = given.get("iss")  # RFC 9207, 2.4: before anything else of the answer is believed
    if issuer != authority.issuer and (issuer is not None or authority.says_issuer):
        raise ConfigInvalid(f"the answer is of {_plain(issuer or 'nobody')}, and not of {authority.issuer}")
    if "code" not in given:
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
    form, headers = {**asked, "resource": resource, "client_id": client.id}, dict[str, str]()
    if client.method == "client_secret_basic":
        pair = f"{quote(client.id, safe='')}:{quote(client.secret, safe='')}"  # RFC 6749, 2.3.1
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    elif client.method == "client_secret_post":
        form["client_secret"] = client.secret
    status, body = await _asked("POST", url, named, data=form, headers=headers)
    if status in (TOO_MANY, UNAVAILABLE):
        raise Unsent(f"{_origin(url)} is busy: status {status}")
    if status >= REFUSED:
        raise ConfigInvalid(f"{_origin(url)} refused: {_plain(str(body.get('error') or f'status {status}'))}")
    token = body.get("access_token")
    if not isinstance(token, str) or not token or str(body.get("token_type", "")).lower() != "bearer":
        raise ConfigInvalid(f"{_origin(url)} answered no bearer token")
    _check_audience(token, resource)
    return body


# --- What others say of themselves ---------------------------------------------------------------------------------------


def _resource(found: Mapping[str, Any], server: str) -> str:
    from mcp.shared.auth_utils import check_resource_allowed, resource_url_from_server_url  # noqa: PLC0415 - as above

    own, said = resource_url_from_server_url(server), found.get("resource")
    if not isinstance(said, str) or not check_resource_allowed(requested_resource=own, configured_resource=said):
        raise ConfigInvalid(f"{server} says that it is {_plain(str(said))}: its tokens would be for somebody else")
    return said


def _authority(metadata: Mapping[str, Any], issuer: str, resource: str, scopes: Sequence[str]) -> Authority:
    if metadata.get("issuer") != issuer:
        raise ConfigInvalid(f"{issuer} describes itself as {_plain(str(metadata.get('issuer')))}: another issuer")
    if "S256" not in _texts(metadata.get("code_challenge_methods_supported")):
        raise ConfigInvalid(f"{issuer} does not offer PKCE with S256: a login there could be stolen on its way")
    authorize, token = metadata.get("authorization_endpoint"), metadata.get("token_endpoint")
    if not isinstance(token, str):
        raise ConfigInvalid(f"{issuer} does not say where it gives tokens")
    methods = metadata.get("token_endpoint_auth_methods_supported")
    return Authority(
        issuer=issuer,
        resource=resource,
        authorize=authorize if isinstance(authorize, str) else "",
        token=token,
        register=str(metadata.get("registration_endpoint") or ""),
        scopes=tuple(scopes),
        methods=tuple(_texts(methods)) or ("client_secret_basic",),  # RFC 8414, 2: the default
        takes_documents=metadata.get("client_id_metadata_document_supported") is True,
        says_issuer=metadata.get("authorization_response_iss_parameter_supported") is True,
    )


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
    except ValueError:
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
    import httpx2  # noqa: PLC0415 - the SDK's

    try:
        there = endpoint(url, is_named=any(each and _origin(each) == _origin(url) for each in named))
        async with (
            httpx2.AsyncClient(transport=transport(there, {}), timeout=REQUEST_S_MAX, trust_env=False) as client,
            client.stream(method, url, **said) as response,
        ):
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > BODY_BYTES_MAX:
                    raise ConfigInvalid(f"{_origin(url)} answers more than {BODY_BYTES_MAX} bytes")
    except Forbidden as error:
        raise ConfigInvalid(f"{_origin(url)} is not asked: {error}") from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise Unsent(f"{_origin(url)} cannot be reached: {type(error).__name__}") from error
    except socket.gaierror as error:
        raise Unsent(f"{_origin(url)} cannot be found: {error.strerror}") from error
    except httpx2.HTTPError as error:
        raise OSError(f"{_origin(url)} did not answer: {type(error).__name__}") from error
    try:
        made = json.loads(body)
    except ValueError:
        made = None
    return response.status_code, cast("Mapping[str, Any]", made) if isinstance(made, dict) else {}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _texts(value: object) -> list[str]:
    return [each for each in cast("list[Any]", value) if isinstance(each, str)] if isinstance(value, list) else []


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)[:WORDS_CHARACTERS_MAX]
