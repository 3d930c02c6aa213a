"""Who did it: the kernel's word for whoever stands at the home's socket, a token's person over TCP, and a claim as a claim."""

import json
import os
import socket
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import opened
from overwinter.actor import Actor, called
from overwinter.app import App
from overwinter.approval import Need
from overwinter.config import Agent, Approvals, Config, Worker
from overwinter.errors import Conflict, Denied, UsageError
from overwinter.faces.callers import PEER, account, actor_of, uid_of
from overwinter.faces.client import Client
from overwinter.faces.server import serve
from overwinter.store import Voted
from overwinter.testing import ManualClock, idle

pytestmark = pytest.mark.anyio
OWNER = "owner@example.com"
ME, UID = account(os.geteuid()), f"uid {os.geteuid()}"
AGENTS = {"default": Agent(owner=OWNER, reads=("*",), asks=("shop.*",))}
CONFIG = Config(agents=AGENTS, worker=Worker(interpreters=2))
STRICT = Config(agents=AGENTS, worker=Worker(interpreters=2), approvals=Approvals(claims=False))


@asynccontextmanager
async def served(project, config=CONFIG, **options):
    """A home behind its socket, and what puts a request to it in a thread."""
    async with (
        opened(project, config=config, clock=ManualClock(), **options) as app,
        anyio.create_task_group() as group,
    ):
        stop, began = anyio.Event(), anyio.Event()
        group.start_soon(serve, app, project / ".overwinter", lambda _: began.set(), stop)
        await began.wait()
        client = Client(project / ".overwinter" / "overwinter.sock")
        yield app, lambda *place, **body: anyio.to_thread.run_sync(partial(client.post, *place, **body)), client
        client.close()
        stop.set()


async def bodies(app: App, run_id: str):
    return {event.kind: event.body async for event in app.events(run_id)}


@pytest.mark.claim("I3.peer")
async def test_whoever_comes_to_the_socket_is_named_as_the_kernel_names_them(project, ledger):
    parts = []
    async with served(project, wrap=lambda each: parts.append(each) or each) as (app, post, client):
        run = (await post("runs", source="await tools.receive()\nawait tools.ask('boss@example.com', 'Well?')"))["id"]
        await post("runs", run, "messages", message=1)
        await idle(app)
        await post("questions", f"{run}:1", "answer", answer="yes", by="boss@example.com")
        await idle(app)
        told = await bodies(app, run)
        assert told["created"]["by"] == told["message"]["by"] == f"{ME} ({UID})"
        assert told["answered"]["by"] == f"boss@example.com (claimed by {UID})"
        assert (await anyio.to_thread.run_sync(client.get, "runs", run))["by"] == f"{ME} ({UID})"
        entries = [json.loads(raw) for _, raw in await parts[0].audit.entries(0, 100)]
        assert [(each["kind"], each["act"]) for each in entries if each["run"] == run] == [
            ("start", [f"{ME} ({UID})"]),
            ("message", [f"{ME} ({UID})"]),
            ("call.result", [f"boss@example.com (claimed by {UID})"]),
        ]


@pytest.mark.claim("I3.claim")
async def test_a_claimed_name_answers_only_what_it_is_asked(project, ledger):
    async with served(project) as (app, post, _):
        run = (await post("runs", source="await tools.ask('ana@example.com, boss@example.com', 'Well?')"))["id"]
        await idle(app)
        with pytest.raises(Denied, match="not mallory"):
            await post("questions", f"{run}:0", "answer", answer="yes", by="mallory@example.com")
        assert "answered" not in await bodies(app, run)
        await post("questions", f"{run}:0", "answer", answer="yes", by="boss@example.com", dedup="k")
        assert await post("questions", f"{run}:0", "answer", answer="yes", by="x", dedup="k") == {"is_answered": True}


@pytest.mark.claim("I3.claim")
async def test_a_claimed_approver_is_recorded_as_claimed(project, ledger):
    async with served(project) as (app, post, _):
        run = (await post("runs", source="await shop.pay(cents=7)"))["id"]
        await idle(app)
        with pytest.raises(Denied, match="must approve"):
            await post("questions", f"{run}:0", "approve")
        assert await post("questions", f"{run}:0", "approve", by=OWNER) == {"became": "let_through"}
        assert (await bodies(app, run))["approved"]["by"] == f"{OWNER} (claimed by {UID})"


@pytest.mark.claim("I3.claim")
async def test_where_claims_are_refused_nobody_at_the_socket_acts_in_another_name(project, ledger):
    async with served(project, STRICT) as (app, post, _):
        run = (await post("runs", source="await shop.pay(cents=7)"))["id"]
        await idle(app)
        with pytest.raises(Denied, match="refuses claims"):
            await post("questions", f"{run}:0", "approve", by=OWNER)
        with pytest.raises(Denied, match="refuses claims"):
            await post("runs", run, "cancel", by=OWNER)
        assert (await post("runs", run, "cancel", by=ME))["is_cancelled"]
    assert ledger.read_text() == ""


async def test_claimed_names_are_no_second_person(project, ledger):
    from dataclasses import replace  # noqa: PLC0415 - this test alone

    async with opened(project, config=CONFIG) as app:
        run_id = await app.start("await shop.pay(cents=7)")
        await idle(app)
        (record,) = await app.questions(run_id)
        assert record.gate is not None
        two = replace(record, gate=replace(record.gate, needs=(Need((OWNER, "ben@example.com"), 2),)))
        with pytest.raises(Denied, match="no other person"):
            await app.governance.vote(two, is_yes=True, by=Actor(person=OWNER, user=UID, is_claimed=True))


@pytest.mark.parametrize("name", ["", " a", "a,b", "a\nb", "x" * 201, "ana (claimed by uid 0)", "root (uid 0)"])
def test_what_is_no_name_cannot_be_claimed(name):
    with pytest.raises(UsageError):
        called(name)


@given(st.text(), st.integers(0, 2**31))
def test_a_claim_always_ends_with_who_made_it(name, uid):
    try:
        actor = actor_of({PEER: uid}, name)
    except UsageError:
        return
    assert str(actor).endswith((f"(claimed by uid {uid})", f"(uid {uid})")) or str(actor) == f"uid {uid}"


def test_the_kernel_says_whose_process_connected():
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert uid_of(one) == os.geteuid()


# --- Keys ----------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("D1.repeat")
async def test_what_a_person_does_under_a_key_is_done_once_and_told_alike_again(project, ledger):
    async with served(project) as (app, post, _):
        run = (
            await post("runs", source="await tools.ask('me', 'Well?')\nawait shop.pay(cents=7)\nawait tools.receive()")
        )["id"]
        await idle(app)
        for _ in range(3):
            assert await post("questions", f"{run}:0", "answer", answer="yes", dedup="k") == {"is_answered": True}
        with pytest.raises(Conflict):
            await post("questions", f"{run}:0", "answer", answer="yes", dedup="other")
        await idle(app)
        for _ in range(3):
            done = await post("questions", f"{run}:1", "approve", by=OWNER, dedup="k")
            assert done == {"became": "let_through"}
            await idle(app)
        with pytest.raises(Conflict):
            await post("questions", f"{run}:1", "approve", by=OWNER, dedup="other")
        for _ in range(3):
            assert await post("runs", run, "cancel", dedup="k") == {"is_cancelled": True}
        assert await post("runs", run, "cancel", dedup="other") == {"is_cancelled": False}
        kinds = [event.kind async for event in app.events(run)]
        assert [kinds.count(kind) for kind in ("approved", "cancelled")] == [1, 1]
    assert ledger.read_text() == "pay 7\n"


@pytest.mark.claim("D1.repeat")
async def test_a_repeated_order_to_repeat_a_write_performs_it_once_more_and_no_oftener(project, ledger):
    config = Config(agents={"default": Agent(owner=OWNER, tools=("*",))}, worker=Worker(interpreters=2))
    async with opened(project, config=config) as app:
        run_id = await app.start("await shop.vanish(cents=7)")
        await idle(app)
        for _ in range(3):
            await app.answer(f"{run_id}:0", "repeat", by="me", dedup="k")
            await idle(app)
        assert ledger.read_text().splitlines() == ["pay 7"] * 2
        await app.answer(f"{run_id}:0", "repeat", by="me", dedup="other")
        await idle(app)
    assert ledger.read_text().splitlines() == ["pay 7"] * 3


@pytest.mark.claim("D1.repeat")
async def test_five_at_once_under_one_key_are_one(project, ledger):
    async with opened(project, config=CONFIG) as app:
        run_id = await app.start("await shop.pay(cents=7)")
        await idle(app)
        (record,) = await app.questions(run_id)
        became = []

        async def vote():
            became.append(await app.governance.vote(record, is_yes=True, by=OWNER, dedup="k"))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(vote)
        assert became == [Voted.LET_THROUGH] * 5
        await idle(app)
    assert ledger.read_text() == "pay 7\n"


async def test_a_release_under_a_key_releases_once(project, ledger):
    clock = ManualClock()
    (project / "policies").mkdir()
    rule = project / "policies" / "night.cedar"
    async with opened(project, config=CONFIG, clock=clock) as app:
        run_id = await app.start("await tools.receive()\nawait tools.receive()")
        await idle(app)
        rule.write_text('forbid(principal, action == Action::"wake", resource);')
        await app.rulebook.reload(by="owner@example.com")
        await app.send(run_id, 1)
        await idle(app)
        for _ in range(2):  # the rule still holds: it is quarantined again, and the second release is the first one
            await app.release(run_id, by="me", dedup="k")
            await idle(app)
        kinds = [event.kind async for event in app.events(run_id)]
        assert [kinds.count(kind) for kind in ("released", "quarantined")] == [1, 2]
