"""An authorization server and an MCP server of the SDK that checks the bearer, in the process of a test."""

import base64
import contextlib
import hashlib
import secrets
import socket
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp_types import ToolAnnotations
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from overwinter.adapters.mcp_servers import logins
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.config import Service
from overwinter.testing import ManualClock


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@dataclass
class World:
    """An authorization server, and the MCP server that takes its tokens."""

    issuer: str = ""
    server: str = ""
    odd: dict[str, Any] = field(default_factory=dict)
    """What the metadata says otherwise."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refreshes: dict[str, bool] = field(default_factory=dict)
    """Refresh token to whether it was used."""
    good: set[str] = field(default_factory=set)
    asked: list[dict[str, str]] = field(default_factory=list)
    bearers: list[str] = field(default_factory=list)
    reused: int = 0
    life_s: int = 3600
    access: str = ""
    given: str | None = None
    """What is given in the place of a token."""
    status: int = 0
    """What the token endpoint answers, if it answers nothing else."""
    does_echo: bool = False
    is_blind: bool = False
    """It takes no token, and gives them."""

    async def metadata(self, request: Request) -> JSONResponse:
        found = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "registration_endpoint": f"{self.issuer}/register",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **{key: each for key, each in self.odd.items() if key != "resource"},
        }
        return JSONResponse({key: each for key, each in found.items() if each is not None})

    async def resource(self, request: Request) -> JSONResponse:
        resource = self.odd.get("resource", self.server)
        return JSONResponse(
            {"resource": resource, "authorization_servers": [self.issuer], "scopes_supported": ["notes"]}
        )

    async def register(self, request: Request) -> JSONResponse:
        return JSONResponse({"client_id": "registered", "token_endpoint_auth_method": "none"}, status_code=201)

    def consented(self, url: str) -> str:
        """Return where a person who says yes is sent to."""
        asked = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
        assert asked["resource"] == self.server
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_hex(8)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state'], 'iss': self.issuer})}"

    async def token(self, request: Request) -> JSONResponse:
        body = (await request.body()).decode()
        given = {key: values[0] for key, values in parse_qs(body).items()}
        self.asked.append({**given, "basic": request.headers.get("authorization", "")})
        if self.status:
            return JSONResponse({}, status_code=self.status)
        if self.does_echo:
            return JSONResponse({"error": body}, status_code=400)
        if given.get("resource") != self.server:
            return JSONResponse({"error": "invalid_target"}, status_code=400)
        match given["grant_type"]:
            case "authorization_code":
                asked = self.codes.pop(given["code"], {})
                digest = hashlib.sha256(given["code_verifier"].encode()).digest()
                is_right = base64.urlsafe_b64encode(digest).decode().rstrip("=") == asked.get("code_challenge")
                is_right = is_right and asked["redirect_uri"] == given["redirect_uri"]
            case "refresh_token":
                is_right = self.refreshes.get(given["refresh_token"]) is False
                self.reused += self.refreshes.get(given["refresh_token"]) is True
                self.refreshes[given["refresh_token"]] = True
            case _:
                is_right = self.asked[-1]["basic"] == f"Basic {base64.b64encode(b'machine:the-client-secret').decode()}"
        if not is_right:
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        access, refresh = self.access or f"access-{secrets.token_hex(8)}", f"refresh-{secrets.token_hex(8)}"
        self.good.add(access)
        self.refreshes[refresh] = False
        return JSONResponse(
            {
                "access_token": access if self.given is None else self.given,
                "token_type": "Bearer",
                "expires_in": self.life_s,
                "refresh_token": refresh,
            }
        )


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncGenerator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = _Quiet(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listening])
        while not server.started:
            await anyio.lowlevel.checkpoint()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True


@contextlib.asynccontextmanager
async def open_world() -> AsyncGenerator[World]:
    """Serve both until the block is left."""
    made = World()
    notes = MCPServer("notes")

    @notes.tool(annotations=ToolAnnotations(read_only_hint=True))
    def echo() -> str:
        """Say the bearer that was sent."""
        return made.bearers[-1]

    inner = notes.streamable_http_app()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/.well-known"):
            await JSONResponse(None, status_code=404)(scope, receive, send) if not scope["path"].endswith(
                "oauth-protected-resource/mcp"
            ) else await (await made.resource(Request(scope)))(scope, receive, send)
            return
        if scope["type"] == "http":
            bearer = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
            made.bearers.append(bearer)
            if bearer not in made.good or made.is_blind:
                await JSONResponse({}, status_code=401)(scope, receive, send)
                return
        await inner(scope, receive, send)

    authority = Starlette(
        routes=[
            Route("/.well-known/oauth-authorization-server", made.metadata),
            Route("/token", made.token, methods=["POST"]),
            Route("/register", made.register, methods=["POST"]),
        ]
    )
    async with served(authority) as made.issuer, served(guarded) as origin:
        made.server = f"{origin}/mcp"
        yield made


def service_of(world: World, **more: Any) -> Service:
    return replace(Service(mcp=world.server, auth="oauth", issuer=world.issuer), **more)


async def log_in(world: World, project: Path, service: Service, *, account: str = "") -> None:
    vault = Vault(project / ".overwinter")
    references = References(project, vault)
    attempt = await logins.begin_login(service, references, "http://127.0.0.1:9/callback", vault, account=account)
    back = world.consented(attempt.url)
    now_us = ManualClock().now_us()
    await logins.finish_login(attempt, back, service, references, vault, now_us=now_us, account=account)
