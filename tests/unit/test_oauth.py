"""Logins at MCP servers, against an authorization server on loopback and an MCP server of the SDK that checks the bearer."""

import base64
import contextlib
import hashlib
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import anyio
import pytest
import uvicorn
from mcp.server import MCPServer
from mcp_types import ToolAnnotations
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kit import opened
from overwinter.adapters.mcp_servers import logins
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.config import Agent, Config, Service, Worker
from overwinter.errors import ConfigInvalid
from overwinter.events import Status
from overwinter.testing import OWNER, ManualClock, finish, idle

pytestmark = pytest.mark.anyio


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
            {"access_token": access, "token_type": "Bearer", "expires_in": self.life_s, "refresh_token": refresh}
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


@pytest.fixture
async def world() -> AsyncGenerator[World]:
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
            if bearer not in made.good:
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


async def log_in(world: World, project: Path, service: Service) -> None:
    vault = Vault(project / ".overwinter")
    references = References(project, vault)
    attempt = await logins.begin_login(service, references, "http://127.0.0.1:9/callback", vault)
    await logins.finish_login(
        attempt, world.consented(attempt.url), service, references, vault, now_us=ManualClock().now_us()
    )


def config_of(service: Service) -> Config:
    agents = {"default": Agent(owner=OWNER, tools=("*",))}
    return Config(agents=agents, worker=Worker(interpreters=1), services={"notes": service})


async def ran(project: Path, service: Service, source: str = "await notes.echo()") -> Any:
    clock = ManualClock()
    async with opened(project, clock=clock, config=config_of(service)) as app:
        run_id = await app.start(source)
        return await finish(app, run_id, clock)


def access(project: Path, service: Service, clock: ManualClock) -> logins.Access:
    made = logins.access_of("notes", service, project, Vault(project / ".overwinter"), clock)
    assert made is not None
    return made


async def test_a_login_calls_the_server_and_its_token_is_in_no_answer_and_no_file(world, project):
    await log_in(world, project, service_of(world))
    run = await ran(project, service_of(world))
    assert (run.status, run.result) == (Status.FINISHED, {"result": "[secret]"})
    (token,) = world.good
    for place in (project / ".overwinter").rglob("*"):
        if place.is_file():
            body = place.read_bytes()
            assert token.encode() not in body, place
            assert not any(each.encode() in body for each in world.refreshes), place


async def test_each_token_request_names_the_server_that_it_is_for(world, project):
    world.life_s = 0
    await log_in(world, project, service_of(world))
    await access(project, service_of(world), ManualClock()).bearer("another")
    assert [each["grant_type"] for each in world.asked] == ["authorization_code", "refresh_token"]
    assert {each["resource"] for each in world.asked} == {world.server}


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"code_challenge_methods_supported": ["plain"]}, "PKCE with S256"),
        ({"code_challenge_methods_supported": None}, "PKCE with S256"),
        ({"issuer": "https://other.example"}, "another issuer"),
        ({"resource": "https://other.example/mcp"}, "for somebody else"),
        ({"token_endpoint": "http://169.254.169.254/token"}, "is not asked"),
        ({"token_endpoint": "http://10.0.0.1/token"}, "is not asked"),
    ],
)
async def test_a_server_that_is_not_as_the_rules_ask_gets_no_code(world, project, odd, words):
    world.odd = odd
    with pytest.raises(ConfigInvalid, match=words):
        await log_in(world, project, service_of(world))
    assert world.asked == []


async def test_an_issuer_is_compared_as_it_is_written(world, project):
    with pytest.raises(ConfigInvalid, match="takes no tokens of"):
        await log_in(world, project, service_of(world, issuer=f"{world.issuer}/other"))
    with pytest.raises(ConfigInvalid, match="is not asked"):  # named by the server alone, on a private network
        await log_in(world, project, service_of(world, issuer=""))


@pytest.mark.parametrize("change", [("state", "x"), ("iss", "https://other.example"), ("iss", ""), ("code", "")])
async def test_an_answer_of_another_login_or_server_is_refused_before_the_code_is_sent(world, project, change):
    vault = Vault(project / ".overwinter")
    references = References(project, vault)
    attempt = await logins.begin_login(service_of(world), references, "http://127.0.0.1:9/callback", vault)
    url, _, query = world.consented(attempt.url).partition("?")
    changed = {**{key: each[0] for key, each in parse_qs(query).items()}, change[0]: change[1]}
    with pytest.raises(ConfigInvalid):
        await logins.finish_login(
            attempt, f"{url}?{urlencode(changed)}", service_of(world), references, vault, now_us=0
        )
    assert world.asked == []
    assert vault.names() == []


async def test_a_token_that_says_that_it_is_for_another_server_is_not_kept(world, project):
    claims = base64.urlsafe_b64encode(b'{"aud":"https://other.example"}').decode().rstrip("=")
    world.access = f"e30.{claims}.c2ln"
    with pytest.raises(ConfigInvalid, match="the token is for"):
        await log_in(world, project, service_of(world))
    assert Vault(project / ".overwinter").names() == []


@pytest.mark.claim("G9.login.once")
async def test_two_that_refresh_at_once_send_a_refresh_token_once(world, project):
    await log_in(world, project, service_of(world))
    (old,) = world.good
    found = set[str]()

    async def one() -> None:
        found.add(await access(project, service_of(world), ManualClock()).bearer(old))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(one)
    assert len(found) == 1
    assert (len(world.asked), world.reused) == (2, 0)


def _killed_in_a_refresh(vault: Vault, world: World) -> None:
    login = logins._found(vault, world.server, world.issuer, "")
    assert login is not None
    child = os.fork()
    if child == 0:  # killed between the mark and what is written of the answer
        logins._keep(vault, logins._name(world.server, world.issuer, ""), replace(login, is_sent=True))
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)


@pytest.mark.claim("G9.login.once")
@pytest.mark.parametrize("is_answered", [True, False])
async def test_whoever_is_killed_in_a_refresh_never_sends_the_token_again(world, project, is_answered):
    await log_in(world, project, service_of(world))
    (old,) = world.good
    await anyio.to_thread.run_sync(_killed_in_a_refresh, Vault(project / ".overwinter"), world)
    if is_answered:
        world.refreshes = dict.fromkeys(world.refreshes, True)
    before = len(world.asked)
    for _ in range(3):
        with pytest.raises(ConfigInvalid, match="overwinter tools login notes"):
            await access(project, service_of(world), ManualClock()).bearer(old)
    assert (len(world.asked), world.reused) == (before, 0)
    await log_in(world, project, service_of(world))
    assert await access(project, service_of(world), ManualClock()).bearer(old) in world.good


@pytest.mark.claim("G9.login.asked")
async def test_a_run_whose_login_was_withdrawn_waits_for_its_owner_and_asks_nobody_else(world, project):
    await log_in(world, project, service_of(world))
    assert (await ran(project, service_of(world))).status is Status.FINISHED
    world.good.clear()
    world.refreshes.clear()
    clock = ManualClock()
    async with opened(project, clock=clock, config=config_of(service_of(world))) as app:
        run_id = await app.start("await notes.echo()")
        for _ in range(3):
            await idle(app)
            clock.advance(3_600)
        (question,) = await app.questions(run_id)
        assert question.person == OWNER
        assert "overwinter tools login notes" in question.call.more["question"]
        asked = len(world.asked)
        run = await finish(app, run_id, clock, answers={"waits for a login": "give up"})
        assert run.status is Status.FAILED
        assert len(world.asked) == asked == 2


@pytest.mark.claim("G9.login.asked")
async def test_a_run_goes_on_with_the_login_that_its_owner_made_meanwhile(world, project):
    await log_in(world, project, service_of(world))
    assert (await ran(project, service_of(world))).status is Status.FINISHED
    world.good.clear()
    world.refreshes.clear()
    clock = ManualClock()
    async with opened(project, clock=clock, config=config_of(service_of(world))) as app:
        run_id = await app.start("await notes.echo()")
        await idle(app)
        await log_in(world, project, service_of(world))
        run = await finish(app, run_id, clock, answers={"waits for a login": "logged in"})
    assert (run.status, run.result) == (Status.FINISHED, {"result": "[secret]"})


async def test_a_machine_gets_its_token_with_its_secret_and_no_person(world, project, monkeypatch):
    monkeypatch.setenv("CLIENT_SECRET", "the-client-secret")
    service = service_of(world, auth="oauth-client", client_id="machine", client_secret="env:CLIENT_SECRET")
    run = await ran(project, service)
    assert (run.status, run.result) == (Status.FINISHED, {"result": "[secret]"})
    assert [each["grant_type"] for each in world.asked] == ["client_credentials"]
