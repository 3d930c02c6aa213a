"""Logins at MCP servers, against an authorization server on loopback and an MCP server of the SDK that checks the bearer."""

import base64
import os
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import anyio
import pytest

from kit import opened
from overwinter.adapters.mcp_servers import logins
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.config import Agent, Config, Service, Worker
from overwinter.errors import ConfigInvalid
from overwinter.events import Status
from overwinter.testing import OWNER, ManualClock, finish, idle
from tollgate import World, log_in, open_world, service_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    async with open_world() as made:
        yield made


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


def client_of(world: World, **more: str) -> Service:
    wish = {"auth": "oauth-client", "client_id": "machine", "client_secret": "env:CLIENT_SECRET", **more}
    return service_of(world, **wish)


@pytest.mark.claim("G9.login.asked")
async def test_a_client_that_is_refused_is_asked_for_again_after_pauses_that_grow(world, project, monkeypatch):
    monkeypatch.setenv("CLIENT_SECRET", "another-secret")
    clock = ManualClock()
    client = access(project, client_of(world), clock)
    asked = list[int]()
    for _ in range(40):
        with pytest.raises(logins.Denied, match="client_secret"):
            await client.bearer()
        asked.append(len(world.asked))
        clock.advance(1.0)
    assert [asked.index(count) for count in range(1, 5)] == [0, 5, 15, 35]
    monkeypatch.setenv("CLIENT_SECRET", "the-client-secret")
    clock.advance(600.0)
    assert await client.bearer() in world.good


async def test_a_client_whose_tokens_a_server_never_takes_asks_for_few_of_them(world, project, monkeypatch):
    monkeypatch.setenv("CLIENT_SECRET", "the-client-secret")
    config, clock = config_of(client_of(world)), ManualClock()
    async with opened(project, clock=clock, config=config) as app:
        assert (await finish(app, await app.start("await notes.echo()"), clock)).status is Status.FINISHED
        before, world.is_blind = len(world.asked), True
        for _ in range(10):
            run = await finish(app, await app.start("await notes.echo()"), clock)
            assert (run.status, run.result["kind"]) == (Status.FAILED, "PermissionError")
    assert len(world.asked) - before <= 2


@pytest.mark.claim("G9.login.once")
async def test_an_authorization_server_that_is_broken_costs_nobody_a_login(world, project):
    await log_in(world, project, service_of(world))
    (old,) = world.good
    world.status = 502
    with pytest.raises(ConfigInvalid, match="busy or broken"):
        await access(project, service_of(world), ManualClock()).bearer(old)
    world.status = 0
    assert await access(project, service_of(world), ManualClock()).bearer(old) in world.good - {old}
    assert world.reused == 0


async def test_the_vault_is_decrypted_when_it_has_changed_and_not_for_each_request(world, project):
    await log_in(world, project, service_of(world))
    read = list[str]()

    class Counted(Vault):
        def all(self) -> Any:
            read.append("all")
            return super().all()

    vault = Counted(project / ".overwinter")
    file = project / ".overwinter" / "vault.age"
    os.utime(file, ns=(1, 1))  # of a while ago
    made = logins.access_of("notes", service_of(world), project, vault, ManualClock())
    assert made is not None
    tokens = {await made.bearer() for _ in range(50)}
    assert (len(tokens), len(read)) == (1, 1)
    await log_in(
        world, project, service_of(world)
    )  # in this very moment: nothing tells it from the one before but its time
    assert await made.bearer() not in tokens
    vault.remove(vault.names()[0])
    with pytest.raises(logins.LoginNeeded):
        await made.bearer()


@pytest.mark.claim("G9.login.held")
async def test_what_an_authorization_server_repeats_is_in_no_error(world, project):
    await log_in(world, project, service_of(world))
    (old,) = world.good
    world.does_echo = True
    with pytest.raises(logins.LoginNeeded) as told:
        await access(project, service_of(world), ManualClock()).bearer(old)
    assert not [each for each in world.refreshes if each in str(told.value)]
    assert "[secret]" in str(told.value)


@pytest.mark.parametrize("token", ["a b", "a\r\nX: y", "é", "x" * 20_000, ""])
async def test_a_token_that_no_header_holds_is_not_kept(world, project, token):
    world.given = token
    with pytest.raises(ConfigInvalid, match="token"):
        await log_in(world, project, service_of(world))
    assert Vault(project / ".overwinter").names() == []
