"""An MCP server behind OAuth and its authorization server, in a process of their own: what the logins are tried against.

    python gatehouse.py        prints a line of JSON: issuer, server, other (a third origin that nothing should reach)

The server is the SDK's, with its own bearer check, metadata (RFC 9728) and `scope` in what it refuses. The authorization
server asks for PKCE (RFC 7636), `resource` (RFC 8707) and names itself in redirects (RFC 9207); it registers clients, takes
metadata documents, rotates refresh tokens and takes the whole login back when one comes twice. `POST /control` sets what is
odd about it, `GET /control` tells what was asked.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import uvicorn
from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp_types import ToolAnnotations
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

DOCUMENT = "https://client.example/overwinter.json"
"""A client id that is the address of a metadata document; what it says is known here, nothing is fetched."""
SECRET = "the-secret-of-a-client"
SCOPES = ("notes.read", "notes.write")


@dataclass
class Gatehouse:
    """Who gives tokens, and to whom."""

    issuer: str = ""
    server: str = ""
    other: str = ""
    odd: dict[str, Any] = field(default_factory=dict)
    """What is not as it should be: see where each is read."""
    clients: dict[str, list[str]] = field(default_factory=dict)
    """Client to its redirect addresses."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    families: dict[str, set[str]] = field(default_factory=dict)
    """Login to the access tokens that it has; one that was taken back has gone."""
    access: dict[str, AccessToken] = field(default_factory=dict)
    refreshes: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    ever: list[str] = field(default_factory=list)
    """Every token that was given, also those that were taken back."""

    # --- The authorization server --------------------------------------------------------------------------------

    async def metadata(self, request: Request) -> Response:
        self._note(request)
        found: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "registration_endpoint": f"{self.issuer}/register",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "scopes_supported": [*SCOPES, "offline_access"],
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
            "authorization_response_iss_parameter_supported": True,
            "client_id_metadata_document_supported": True,
            **self.odd.get("metadata", {}),
        }
        return await self._answered("metadata", JSONResponse(found))

    async def register(self, request: Request) -> Response:
        self._note(request)
        wish = await request.json()
        client = f"client-{secrets.token_hex(4)}"
        self.clients[client] = list(wish["redirect_uris"])
        return await self._answered("register", JSONResponse({"client_id": client, **wish}, status_code=201))

    async def authorize(self, request: Request) -> Response:
        """Be the page on which a person says yes, or `odd["no"]`."""
        self._note(request)
        asked = dict(request.query_params)
        redirects = self.clients.get(asked.get("client_id", ""), ["http://127.0.0.1/callback"])
        is_known = asked.get("client_id") in (DOCUMENT, *self.clients)
        # RFC 8252, 7.3: the port of a redirect to this machine is the client's to choose.
        wanted = asked.get("redirect_uri", "")
        is_there = wanted in redirects or (
            asked.get("client_id") == DOCUMENT and wanted.startswith("http://127.0.0.1:")
        )
        if not (is_known and is_there and asked.get("resource") == self.server):
            return PlainTextResponse("no such client, redirect or resource", status_code=400)
        if asked.get("code_challenge_method") != "S256" or not asked.get("code_challenge"):
            return PlainTextResponse("PKCE is asked for", status_code=400)
        code = f"code-{secrets.token_hex(16)}"
        self.codes[code] = asked
        said = {"code": code, "state": asked["state"], "iss": self.issuer, **self.odd.get("redirect", {})}
        if "no" in self.odd:
            said = {"error": self.odd["no"], "state": asked["state"], "iss": self.issuer}
        return RedirectResponse(f"{wanted}?{urlencode({key: each for key, each in said.items() if each is not None})}")

    async def token(self, request: Request) -> Response:  # noqa: PLR0911 - one refusal a line
        form = {key: str(each) for key, each in (await request.form()).items()}
        self._note(request, grant=form.get("grant_type"), resource=form.get("resource"), scope=form.get("scope"))
        if "token" in self.odd:
            return await self._answered("token", PlainTextResponse("odd", status_code=500), form)
        if form.get("resource") != self.server:
            return _refused("invalid_target")
        match form.get("grant_type"):
            case "authorization_code":
                asked = self.codes.pop(form.get("code", ""), {})
                digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
                challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
                same = ("client_id", "redirect_uri")
                if challenge != asked.get("code_challenge") or any(asked[key] != form.get(key) for key in same):
                    return _refused("invalid_grant")
                return self._given(secrets.token_hex(8), asked.get("scope", ""), form["client_id"])
            case "refresh_token":
                return self._rotated(form)
            case _:
                pair = base64.b64encode(f"machine:{SECRET}".encode()).decode()
                if request.headers.get("authorization") != f"Basic {pair}":
                    return _refused("invalid_client", 401)
                return self._given(secrets.token_hex(8), form.get("scope", ""), "machine", has_refresh=False)

    async def revoke(self, request: Request) -> Response:
        """See RFC 7009."""
        form = await request.form()
        self._note(request, hint=str(form.get("token_type_hint")))
        if (found := self.refreshes.get(str(form.get("token")))) is not None:
            self.take_back(found["family"])
        return Response(status_code=200)

    def take_back(self, family: str) -> None:
        for token in self.families.pop(family, set()):
            self.access.pop(token, None)
        self.refreshes = {key: each for key, each in self.refreshes.items() if each["family"] != family}

    def _rotated(self, form: Mapping[str, str]) -> Response:
        found = self.refreshes.get(form.get("refresh_token", ""))
        if found is None or found["client"] != form.get("client_id"):
            return _refused("invalid_grant")
        if found["is_used"]:  # RFC 9700, 4.14.2
            self.log.append({"reused": True})
            self.take_back(found["family"])
            return _refused("invalid_grant")
        found["is_used"] = True
        return self._given(found["family"], found["scope"], form["client_id"])

    def _given(self, family: str, scope: str, client: str, *, has_refresh: bool = True) -> Response:
        life_s = float(self.odd.get("life_s", 3600))
        token, refresh = f"access-{secrets.token_hex(24)}", f"refresh-{secrets.token_hex(24)}"
        self.access[token] = AccessToken(
            token=token, client_id=client, scopes=scope.split(), resource=self.server, expires_at=None, subject="person",
            claims={"ends": time.time() + life_s},
        )  # fmt: skip
        self.families.setdefault(family, set()).add(token)
        self.ever += [token, refresh]
        body = {"access_token": token, "token_type": "Bearer", "expires_in": life_s, "scope": scope}
        if has_refresh:
            body["refresh_token"] = refresh
            self.refreshes[refresh] = {"family": family, "is_used": False, "scope": scope, "client": client}
        return JSONResponse(body, headers={"Cache-Control": "no-store"})

    # --- The server's side ---------------------------------------------------------------------------------------

    async def verify_token(self, token: str) -> AccessToken | None:
        found = self.access.get(token)
        if found is None or self.odd.get("is_shut") or (found.claims or {})["ends"] <= time.time():
            self.log.append({"path": "/mcp", "bearer": "refused"})
            return None
        return found

    def guarded(self, app: Any) -> Callable[..., Awaitable[None]]:
        """Return the server with what the SDK's lacks: redirects, and scopes of single tools."""

        async def guard(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"].startswith("/mcp"):
                self.calls.append(scope["method"])
                if "send_on" in self.odd:
                    await RedirectResponse(self.odd["send_on"], status_code=307)(scope, receive, send)
                    return
                wanted = self.odd.get("needs")
                bearer = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
                if wanted and bearer in self.access and wanted not in self.access[bearer].scopes:
                    body, receive = await _body(receive)
                    if b'"write_note"' in body and b"tools/call" in body:
                        self.log.append({"path": "/mcp", "bearer": "insufficient"})
                        words = f'Bearer error="insufficient_scope", scope="{wanted}"'
                        refusal = JSONResponse({}, status_code=403, headers={"WWW-Authenticate": words})
                        await refusal(scope, receive, send)
                        return
            if scope["type"] == "http" and "oauth-protected-resource" in scope["path"] and "resource" in self.odd:
                await JSONResponse(self.odd["resource"])(scope, receive, send)
                return
            await app(scope, receive, send)

        return guard

    # --- What a test sets and reads ------------------------------------------------------------------------------

    async def control(self, request: Request) -> Response:
        if request.method == "POST":
            wish = await request.json()
            if wish.pop("take_back", False):
                for family in list(self.families):
                    self.take_back(family)
            if wish.pop("expire", False):
                for token in self.access.values():
                    (token.claims or {})["ends"] = 0.0
            self.odd = wish
            return JSONResponse({})
        return JSONResponse(
            {"log": self.log, "calls": len(self.calls), "secrets": [*self.access, *self.refreshes], "ever": self.ever}
        )

    def _note(self, request: Request, **more: Any) -> None:
        self.log.append({"path": request.url.path, **more})

    async def _answered(self, place: str, usual: Response, form: Mapping[str, str] | None = None) -> Response:  # noqa: PLR0911 - one oddity a line
        match self.odd.get(place):
            case "huge":
                return Response(b'{"a":"' + b"x" * (1 << 22) + b'"}', media_type="application/json")
            case "slow":

                async def drops() -> AsyncGenerator[bytes]:
                    while True:
                        yield b" "
                        await asyncio.sleep(0.5)

                return StreamingResponse(drops(), media_type="application/json")
            case "deep":
                return Response(b"[" * 100_000, media_type="application/json")
            case "echo":
                return JSONResponse({"error": " ".join((form or {}).values())}, status_code=400)
            case "send_on":
                return RedirectResponse(f"{self.other}/token", status_code=307)
            case "busy":
                return PlainTextResponse("later", status_code=503)
            case int() as status if place == "token":
                return PlainTextResponse("odd", status_code=status)
            case _:
                return usual


def _refused(error: str, status: int = 400) -> Response:
    return JSONResponse({"error": error}, status_code=status)


async def _body(receive: Any) -> tuple[bytes, Any]:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    told = False

    async def again() -> Any:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return body, again


def notes_of(house: Gatehouse) -> Any:
    """Return the server: one function that reads, one that writes, one that says what it was sent."""
    auth = AuthSettings(
        issuer_url=AnyHttpUrl(house.issuer), resource_server_url=AnyHttpUrl(house.server), validate_token_resource=True,
        required_scopes=[],
    )  # fmt: skip
    notes = MCPServer("notes", auth=auth, token_verifier=house)
    kept: list[str] = []

    @notes.tool(annotations=ToolAnnotations(read_only_hint=True))
    def read_notes() -> list[str]:
        """Return all notes."""
        return kept

    @notes.tool()
    def write_note(text: str) -> int:
        """Keep a note, and return how many there are."""
        kept.append(text)
        return len(kept)

    return notes.streamable_http_app()


async def main() -> None:
    house = Gatehouse()
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    house.issuer, origin, house.other = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    house.server = f"{origin}/mcp"
    authority = Starlette(
        routes=[
            Route("/.well-known/oauth-authorization-server", house.metadata),
            Route("/authorize", house.authorize),
            Route("/token", house.token, methods=["POST"]),
            Route("/register", house.register, methods=["POST"]),
            Route("/revoke", house.revoke, methods=["POST"]),
            Route("/control", house.control, methods=["GET", "POST"]),
        ]
    )

    async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            house.log.append({"path": f"other{scope['path']}", "bearer": str(dict(scope["headers"]))})
            await PlainTextResponse("caught")(scope, receive, send)

    apps = (authority, house.guarded(notes_of(house)), elsewhere)
    servers = [uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", lifespan="auto")) for app in apps]
    print(json.dumps({"issuer": house.issuer, "server": house.server, "other": house.other}), flush=True)
    async with asyncio.TaskGroup() as tasks:
        for server, listening in zip(servers, sockets, strict=True):
            tasks.create_task(server.serve([listening]))


if __name__ == "__main__":
    asyncio.run(main())
