"""The door on TCP: no request without a token that counts, none beyond its scope and agents, none from another site's page."""

import json
import secrets
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route

from kit import opened
from overwinter.app.tokens import Access
from overwinter.config import Agent, Config
from overwinter.errors import Conflict, HomeError, NotFound, UsageError
from overwinter.faces.api import api
from overwinter.faces.bearer import ADDRESSES_MAX, FAILURE_S, FAILURES_MAX, Attempts, Bearer
from overwinter.faces.scopes import NEEDS, key_of
from overwinter.testing import ManualClock, idle
from overwinter.tokens import Token, digest_of, id_of, is_spelt, spelt

pytestmark = pytest.mark.anyio
OWNER = "owner@example.com"
CONFIG = Config(
    agents={
        "default": Agent(owner=OWNER, tools=("*",)),
        "clerk": Agent(owner=OWNER, reads=("*",), asks=("shop.*",)),
    }
)


def home(project, clock=None, **options):
    return opened(project, config=CONFIG, clock=clock or ManualClock(), **options)


class Visitor:
    """Puts requests to the door as a client at one address does."""

    def __init__(self, app, attempts=None):
        self.door = Bearer(api(app, is_remote=True), app.access, ("agents.example.com",), attempts)

    async def ask(self, method, path, token=None, body: Any = None, *, query=b"", headers=(), host="127.0.0.1:8700",
                  address="192.0.2.7") -> tuple[int, Any, dict[str, str]]:  # fmt: skip
        given = [(b"host", host.encode()), *headers]
        if token is not None:
            given.append((b"authorization", f"Bearer {token}".encode()))
        sent: list[Any] = []
        raw = b"" if body is None else json.dumps(body).encode()
        messages = iter([{"type": "http.request", "body": raw, "more_body": False}])

        async def receive():
            return next(messages, {"type": "http.disconnect"})

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": given,
                 "http_version": "1.1", "scheme": "http", "server": ("x", 1), "client": (address, 1), "root_path": ""}  # fmt: skip
        await self.door(scope, receive, send)
        answer = b"".join(message.get("body", b"") for message in sent)
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], (json.loads(answer) if answer[:1] in b"{[" and answer else answer), told


async def made(app, *scopes, person="ana@example.com", **options):
    return (await app.access.create(person, by="lead", scopes=scopes or ("read",), **options))[1]


@pytest.mark.claim("I1.every_request")
async def test_every_route_refuses_whoever_has_no_token_that_counts(project):
    clock = ManualClock()
    async with home(project, clock) as app:
        revoked, short = await made(app, "admin"), await made(app, "admin", expires_s=60)
        await app.access.revoke(id_of(digest_of(revoked)), by="lead")
        clock.advance(61)
        wrong = spelt(secrets.token_bytes(32))
        for given_token in (None, "", wrong, wrong[:-1], revoked, short, "null", "ow_"):
            visitor = Visitor(app)  # whose address has failed at nothing
            for method, path in (("GET", "/v1/health"), ("GET", "/"), ("POST", "/v1/runs"), ("OPTIONS", "/v1/runs")):
                status, answer, told = await visitor.ask(method, path, given_token, address="127.0.0.1")
                assert (status, answer["error"]["type"]) == (401, "TokenRefused")
                assert told["www-authenticate"].startswith('Bearer realm="overwinter"')
                assert ("invalid_token" in told["www-authenticate"]) == (given_token is not None)
        token = await made(app)
        doubled = [(b"authorization", f"Bearer {token}".encode())]
        assert (await Visitor(app).ask("GET", "/v1/health", token, headers=doubled))[0] == 401
        assert (await Visitor(app).ask("GET", "/v1/health", token))[0] == 200


@pytest.mark.claim("I1.scopes")
async def test_every_route_has_a_need_and_refuses_a_token_without_its_scope(project):
    async with home(project) as app:
        routes = {key_of(each) for each in api(app).routes if isinstance(each, Route)}
        assert routes == set(NEEDS), "a new route needs a row in faces/scopes.py"
        tokens = {scope: await made(app, scope) for scope in ("read", "act", "approve", "admin")}
        for key, need in NEEDS.items():
            method, path = key.split()
            for scope, token in tokens.items():
                if need.scope in (scope, "open"):
                    continue
                place = path.replace("{seq:int}", "0")
                status, answer, told = await Visitor(app).ask(method, place, token, {} if method == "POST" else None)
                assert (status, answer["error"]["type"]) == (403, "Denied"), key
                if need.scope is not None:
                    assert f"'{need.scope}'" in answer["error"]["message"]
                    assert f'error="insufficient_scope", scope="{need.scope}"' in told["www-authenticate"]


async def test_public_keys_alone_are_for_everybody(project):
    async with home(project) as app:
        status, keys, _ = await Visitor(app).ask("GET", "/.well-known/jwks.json")
        assert (status, keys) == (200, app.mint.issuer.keys())
        assert [each["kty"] for each in keys["keys"]] == ["OKP"]
        assert "d" not in keys["keys"][0]
        public = {"GET /.well-known/jwks.json", "GET /openapi.json", "GET /healthz", "GET /readyz"}
        assert {key for key, need in NEEDS.items() if need.scope == "open"} == public
        assert (await Visitor(app).ask("GET", "/.well-known/jwks.json", host="evil.example"))[0] == 421


async def test_a_route_without_a_need_is_refused_to_everybody(project, monkeypatch):
    monkeypatch.delitem(NEEDS, "GET /v1/health")  # pyright: ignore[reportArgumentType] - a table that nobody else changes
    async with home(project) as app:
        token = await made(app, "read", "act", "approve", "admin")
        assert (await Visitor(app).ask("GET", "/v1/health", token))[0] == 403


@pytest.mark.claim("I1.person")
async def test_what_is_done_is_done_by_the_tokens_person_whatever_the_body_says(project):
    async with home(project) as app:
        visitor, token = Visitor(app), await made(app, "act", "admin")
        _, run, _ = await visitor.ask("POST", "/v1/runs", token, {"source": "await tools.receive()"})
        await visitor.ask("POST", f"/v1/runs/{run['id']}/cancel", token, {"by": "boss@example.com"})
        events = [each async for each in app.events(run["id"])]
        assert events[-1].body["by"] == "ana@example.com"
        await visitor.ask("POST", "/v1/revoke", token, {"subject": "clerk", "by": "boss@example.com"})
        assert (await app.governance.identity("clerk")).by == "ana@example.com"


async def test_a_call_is_approved_by_nobody_but_the_tokens_person(project, ledger):
    async with home(project) as app:
        run_id = await app.start(
            "await shop.charge(cents=1)\nawait tools.ask('owner@example.com', 'Well?')", agent="clerk"
        )
        await idle(app)
        (asked,) = await app.questions(run_id)
        question = f"{run_id}:{asked.call.index}"
        visitor, other, own = Visitor(app), await made(app, "approve"), await made(app, "approve", person=OWNER)
        pretended = {"by": OWNER}
        assert (await visitor.ask("POST", f"/v1/questions/{question}/approve", other, pretended))[0] == 403
        assert (await visitor.ask("POST", f"/v1/questions/{question}/approve", own, {}))[0] == 200
        await idle(app)
        (asked,) = await app.questions(run_id)
        question, answer = f"{run_id}:{asked.call.index}", {"answer": "yes", "by": OWNER}
        assert (await visitor.ask("POST", f"/v1/questions/{question}/answer", other, answer))[0] == 403
        assert (await visitor.ask("POST", f"/v1/questions/{question}/answer", own, answer))[0] == 200


@pytest.mark.claim("I1.agents")
async def test_a_token_for_some_agents_reaches_nothing_of_others(project):
    async with home(project) as app:
        scopes = ("read", "act", "approve", "admin")
        visitor, token = Visitor(app), await made(app, *scopes, agents="cl*")
        other = await app.start("await tools.ask('ana@example.com', 'Well?')")
        await idle(app)
        for method, path, query, body in (
            ("POST", "/v1/runs", b"", {"source": "1"}),
            ("POST", "/v1/runs", b"agent=clerk", {"source": "1", "agent": "default"}),
            ("POST", "/v1/check", b"", {"source": "1", "agent": "default"}),
            ("POST", "/v1/runs", b"", {"source": "1", "agent": "clerk", "after": other}),
            ("POST", "/v1/runs", b"", {"source": "1", "agent": "clerk", "after": other[-6:]}),
            ("GET", "/v1/runs", b"", None),
            ("GET", "/v1/runs", b"agent=default", None),
            ("GET", f"/v1/runs/{other}", b"", None),
            ("GET", f"/v1/runs/{other[-6:]}", b"", None),
            ("GET", f"/v1/runs/{other}/source", b"", None),
            ("POST", f"/v1/runs/{other}/messages", b"", {"message": 1}),
            ("POST", f"/v1/questions/{other}:0/answer", b"", {"answer": "yes"}),
            ("GET", "/v1/questions", b"", None),
            ("GET", "/v1/questions", f"run={other}".encode(), None),
            ("GET", f"/v1/values/{other}:0", b"", None),
            ("GET", "/v1/tools", b"prefix=shop", None),
            ("POST", "/v1/revoke", b"", {"subject": "default"}),
            ("POST", "/v1/revoke", b"", {"subject": other}),
            ("POST", "/v1/revoke", b"", {"subject": id_of(digest_of(token))}),
            ("POST", "/v1/restore", b"", {"agent": "default"}),
            ("GET", "/v1/tokens", b"", None),
            ("GET", "/v1/health", b"", None),
            ("POST", "/v1/collect", b"", {"older_than_s": 0}),
        ):
            status, answer, _ = await visitor.ask(method, path, token, body, query=query)
            assert status in (400, 403, 404), (method, path, query, status, answer)
        assert await app.questions(other), "nothing was done to it"
        _, run, _ = await visitor.ask("POST", "/v1/runs", token, {"source": "2", "agent": "clerk"})
        assert (await visitor.ask("GET", f"/v1/runs/{run['id']}", token))[0] == 200
        assert (await visitor.ask("GET", "/v1/runs", token, query=b"agent=clerk"))[0] == 200


async def test_a_grant_is_given_and_taken_back_over_tcp_by_a_token_of_the_whole_home(project):
    async with home(project) as app:
        visitor, token, bound = Visitor(app), await made(app, "admin"), await made(app, "admin", agents="clerk")
        _, given, _ = await visitor.ask("POST", "/v1/grants", token, {"agent": "clerk", "pattern": "shop.double"})
        assert (await visitor.ask("POST", "/v1/revoke", bound, {"subject": given["id"]}))[0] == 403
        status, said, _ = await visitor.ask("POST", "/v1/revoke", token, {"subject": given["id"]})
        assert (status, said["grant"]["id"]) == (200, given["id"])


@pytest.mark.claim("I1.agents")
async def test_a_token_for_one_agent_reaches_the_schedules_of_no_other(project):
    async with home(project) as app:
        start = {"source": "1"}
        own = (await app.schedules.add(start, by="lead", agent="clerk", name="own", cron="0 7 * * *")).id
        other = (await app.schedules.add(start, by="lead", name="other", cron="0 7 * * *")).id
        visitor, token = Visitor(app), await made(app, "read", "admin", agents="clerk")
        listed = await visitor.ask("GET", "/v1/schedules", token, query=b"agent=clerk")
        assert [each["id"] for each in listed[1]["schedules"]] == [own]
        assert [
            (await visitor.ask("GET", "/v1/schedules", token, query=query))[0] for query in (b"", b"agent=default")
        ] == [403, 403]
        for name in (other, "other", other[2:], "s-0000000000"):
            for method, path in (
                ("GET", name),
                *(("POST", f"{name}/{verb}") for verb in ("pause", "resume", "run", "remove")),
            ):
                status, said, _ = await visitor.ask(method, f"/v1/schedules/{path}", token)
                words = said["error"]["message"].replace(repr(name), "")
                assert (status, words.startswith("there is no schedule  of agents 'clerk'")) == (404, True)
        assert (await app.schedules.schedule(other)).paused == ""
        status, said, _ = await visitor.ask("POST", f"/v1/schedules/{own}/pause", token, {"reason": "holidays"})
        assert (status, said["paused"], (await app.schedules.schedule(own)).paused) == (200, "holidays", "holidays")
        whole = await made(app, "read")
        assert len((await visitor.ask("GET", "/v1/schedules", whole))[1]["schedules"]) == 2
        assert (await visitor.ask("GET", "/v1/schedules/other", whole))[1]["id"] == other


@pytest.mark.claim("I1.rebinding")
@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("127.0.0.1:8700", (), 200),
        ("[::1]:8700", (), 200),
        ("localhost:8700", (), 200),
        ("LOCALHOST.:8700", (), 200),
        ("agents.example.com", (), 200),
        ("agents.example.com", ((b"origin", b"https://agents.example.com"),), 200),
        ("evil.example", (), 421),
        ("127.0.0.1.evil.example:8700", (), 421),
        ("localhost.evil.example", (), 421),
        ("localhost:8700@evil.example", (), 421),
        ("", (), 421),
        ("localhost", ((b"host", b"localhost"),), 421),
        ("localhost", ((b"origin", b"null"),), 403),
        ("localhost:8700", ((b"origin", b"http://localhost:3000"),), 403),
        ("localhost:8700", ((b"origin", b"https://evil.example"),), 403),
        ("localhost", ((b"origin", b"http://localhost"), (b"origin", b"http://evil.example")), 403),
    ],
)
async def test_no_page_of_another_site_gets_in_even_with_a_token(project, host, headers, status):
    async with home(project) as app:
        token = await made(app)
        assert (await Visitor(app).ask("GET", "/v1/health", token, host=host, headers=headers))[0] == status


async def test_a_store_in_trouble_lets_nobody_in(project):
    async with home(project) as app:
        token = await made(app)

        class Broken(Access):
            async def recognise(self, text: str) -> Token | None:
                raise HomeError("the disk is gone")

        visitor = Visitor(app)
        visitor.door._access = Broken(app._parts.tokens, app._clock)
        status, answer, _ = await visitor.ask("GET", "/v1/health", token)
        assert (status, answer["error"]["type"]) == (500, "HomeError")


@pytest.mark.claim("I1.streams")
async def test_a_stream_that_is_open_ends_with_its_token(project):
    async with home(project) as app:
        token, run_id = (
            await made(app),
            await app.start("await tools.receive()\nawait tools.receive()\nprint('never told')"),
        )
        await idle(app)
        told: list[bytes] = []
        before: list[bytes] = []
        is_over, has_begun = anyio.Event(), anyio.Event()

        async def receive():
            await is_over.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            told.append(message.get("body", b""))
            if b"called" in told[-1]:
                has_begun.set()
            if message["type"] == "http.response.body" and not message["more_body"]:
                is_over.set()

        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
        scope = {"type": "http", "method": "GET", "path": f"/v1/runs/{run_id}/events", "query_string": b"follow=1",
                 "headers": headers, "http_version": "1.1", "scheme": "http", "client": ("192.0.2.7", 1), "root_path": ""}  # fmt: skip
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(Visitor(app).door, scope, receive, send)
                await has_begun.wait()
                before += told
                await app.access.revoke(id_of(digest_of(token)), by="lead")
                await app.send(run_id, "secret news")
                await is_over.wait()
        assert told == [*before, b""]


async def test_a_token_in_an_address_is_refused_and_not_repeated(project):
    async with home(project) as app:
        token = await made(app)
        for path, query in (
            ("/v1/health", f"access_token={token}"),
            ("/v1/health", f"x={token}"),
            ("/v1/health", "x=%6fw_" + token[3:]),
            (f"/v1/runs/{token}", ""),
        ):
            status, answer, _ = await Visitor(app).ask("GET", path, token, query=query.encode())
            assert (status, token in json.dumps(answer)) == (400, False)


@pytest.mark.claim("I1.attempts")
async def test_wrong_tokens_of_one_address_are_limited_in_rate_and_who_is_known_still_comes_in(project):
    now = [0.0]
    async with home(project) as app:
        visitor, known, late = Visitor(app, Attempts(lambda: now[0])), await made(app), await made(app)
        assert (await visitor.ask("GET", "/v1/health", known))[0] == 200
        wrong = [spelt(secrets.token_bytes(32)) for _ in range(FAILURES_MAX + 1)]
        statuses = [(await visitor.ask("GET", "/v1/health", each))[0] for each in wrong]
        assert statuses == [401] * FAILURES_MAX + [429]
        status, _, told = await visitor.ask("GET", "/v1/health", late)
        assert (status, int(told["retry-after"]) > 0) == (429, True)
        assert (await visitor.ask("GET", "/v1/health", known))[0] == 200
        assert (await visitor.ask("GET", "/v1/health", late, address="192.0.2.8"))[0] == 200
        now[0] += 2 * FAILURE_S
        assert (await visitor.ask("GET", "/v1/health", late))[0] == 200


def test_attempts_are_counted_by_network_and_in_bounded_memory():
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for n in range(FAILURES_MAX):
        attempts.failed(f"2001:db8::{n:x}")
    assert attempts.wait_s("2001:db8::ffff") > 0
    assert attempts.wait_s("2001:db8:0:1::1") == 0
    for n in range(ADDRESSES_MAX + 10):
        attempts.failed(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(attempts._free_at) == ADDRESSES_MAX


@given(random=st.binary(min_size=32, max_size=32), place=st.integers(0, 51), letter=st.characters(codec="ascii"))
def test_a_token_with_one_letter_changed_is_known_to_be_none(random, place, letter):
    text = spelt(random)
    assert is_spelt(text)
    changed = text[:place] + letter + text[place + 1 :]
    assert is_spelt(changed) == (changed == text)


async def test_what_is_no_token_is_not_made(project):
    async with home(project) as app:
        wrong: tuple[dict[str, Any], ...] = (
            {"scopes": ()},
            {"scopes": ("root",)},
            {"scopes": ("read", "root")},
            {"expires_s": 0},
            {"expires_s": 400 * 86_400},
            {"expires_s": float("nan")},
            {"name": "a\nb"},
            {"agents": ""},
        )
        for options in wrong:
            with pytest.raises(UsageError):
                await app.access.create("ana@example.com", by="lead", **options)
        for person in ("", "a,b", " a", "a\x1b[2J", "x" * 201):
            with pytest.raises(UsageError):
                await app.access.create(person, by="lead")
        with pytest.raises(NotFound):
            await app.access.revoke("t-0", by="lead")


async def test_a_person_has_so_many_tokens_and_revoking_makes_room(project, monkeypatch):
    monkeypatch.setattr("overwinter.app.tokens.LIVE_MAX", 2)
    clock = ManualClock()
    async with home(project, clock) as app:
        first = await made(app)
        await made(app, expires_s=60)
        with pytest.raises(Conflict):
            await made(app)
        await made(app, person="bob@example.com")
        await app.access.revoke(id_of(digest_of(first)), by="lead")
        with pytest.raises(Conflict):
            await app.access.revoke(id_of(digest_of(first)), by="lead")
        await made(app)
        clock.advance(61)
        await made(app)


@pytest.mark.claim("I1.digest")
async def test_a_token_is_in_no_file_entry_or_listing_of_its_home_and_its_making_and_end_are_audited(project):
    clock = ManualClock()
    async with home(project, clock) as app:
        token = await made(app, "read", "admin", name="laptop")
        visitor = Visitor(app)
        _, listed, _ = await visitor.ask("GET", "/v1/tokens", token)
        (row,) = listed["tokens"]
        assert (row["person"], row["name"], row["scopes"], row["state"]) == (
            "ana@example.com", "laptop", ["read", "admin"], "active",
        )  # fmt: skip
        assert row["used"] is not None
        assert token not in json.dumps(listed)
        assert (await visitor.ask("POST", "/v1/revoke", token, {"subject": row["id"]}))[0] == 200
        assert (await visitor.ask("GET", "/v1/tokens", token))[0] == 401
        entries = [json.loads(raw) for _, raw in await app._parts.audit.entries(0, 10)]
        assert [(each["kind"], each["act"], each["lease"]) for each in entries] == [
            ("grant", ["lead"], row["id"]),
            ("revoke", ["ana@example.com"], row["id"]),
        ]
    for place in (project / ".overwinter").rglob("*"):
        if place.is_file():
            assert token.encode() not in place.read_bytes(), place
