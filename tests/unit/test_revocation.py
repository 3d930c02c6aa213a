"""Revoking is one commit: no effect starts after it, whatever is under way stops, and nothing wakes."""

from dataclasses import replace

import anyio
import pytest

from kit import crashing, opened
from overwinter.config import Agent, Config, Service, Worker
from overwinter.errors import Conflict, NotFound, Revoked
from overwinter.events import CallState, Status
from overwinter.faces import wire
from overwinter.store import Page
from overwinter.testing import CrashPoints, ManualClock, finish, idle

pytestmark = pytest.mark.anyio
AGENTS = {
    "default": Agent(owner="owner@example.com", tools=("*",)),
    "clerk": Agent(owner="owner@example.com", tools=("*",)),
    "helper": Agent(owner="owner@example.com", tools=("*",), parent="clerk"),
}
CONFIG = Config(agents=AGENTS, worker=Worker(interpreters=2))
SLEEPS = "import asyncio\nawait asyncio.sleep(60)\nawait shop.charge(cents=1)"
COMPUTES = "await shop.double(number=1)\nwhile True:\n    pass"
SLOW = '''
from overwinter import read, write
import asyncio

@read
async def look() -> int:
    """Take long."""
    await asyncio.sleep(3600)
    return 1

@write
async def send() -> int:
    """Take long."""
    await asyncio.sleep(3600)
    return 1
'''


def agents(project, **options):
    return opened(project, config=CONFIG, **options)


async def until(condition):
    with anyio.fail_after(20):
        while not await condition():  # noqa: ASYNC110 - what it waits for has no event
            await anyio.sleep(0.005)


@pytest.mark.claim("G5.sleeping")
async def test_a_sleeping_run_of_a_revoked_agent_never_wakes(project, ledger):
    clock = ManualClock()
    async with agents(project, clock=clock) as app:
        stopped, other = await app.start(SLEEPS, agent="clerk"), await app.start(SLEEPS)
        await idle(app)
        revocation = await app.governance.revoke("clerk", by="lead")
        assert (revocation.runs, revocation.turns, revocation.calls) == (1, 0, 0)
        clock.advance(120)
        assert (await finish(app, other, clock)).status is Status.FINISHED
        await idle(app)
        run = await app.run(stopped)
        assert (run.status, run.is_revoked, run.is_ready) == (Status.LIVE, True, False)
        assert len([line for line in ledger.read_text().splitlines() if line.startswith("charge ")]) == 1
        assert "was revoked" in app.reason(run, await app.calls(stopped))


@pytest.mark.claim("G5.computing")
async def test_a_program_that_computes_is_killed(project):
    async with agents(project) as app:
        run_id = await app.start(COMPUTES, agent="clerk")

        async def computes():
            return app.pulse().busy == 1 and (await app.run(run_id)).seq >= 1

        await until(computes)
        revocation = await app.governance.revoke("clerk", by="lead")
        assert revocation.turns == 1
        assert app.pulse().busy == 0
        assert (await app.result(run_id)).is_revoked  # returns, though the run has not ended
        assert (await app.result(await app.start("1 + 1"))).result == 2


async def test_a_run_that_is_stopped_in_its_turn_costs_no_other_run_its_turn(project):
    async with agents(project) as app:
        for _ in range(6):
            stopped = await app.start(COMPUTES)

            async def computes(run_id=stopped):
                return app.pulse().busy >= 1 and (await app.run(run_id)).seq >= 1

            await until(computes)
            others = [await app.start("await shop.double(number=2)") for _ in range(3)]
            assert await app.cancel(stopped, by="lead")
            assert [(await app.result(each)).result for each in others] == [4, 4, 4]
            assert (await app.run(stopped)).status is Status.CANCELLED


@pytest.mark.claim("G5.in_flight")
async def test_calls_in_flight_are_cancelled_and_listed_and_a_write_becomes_unknown(project):
    (project / "slow_tools.py").write_text(SLOW)
    config = replace(CONFIG, services={"slow": Service(python="slow_tools")})
    async with opened(project, config=config) as app:
        run_id = await app.start("import asyncio\nawait asyncio.gather(slow.look(), slow.send())", agent="clerk")

        async def flies():
            return app.pulse().in_flight == 2 and (await app.calls(run_id))[1].state is CallState.STARTED

        await until(flies)
        revocation = await app.governance.revoke("clerk", by="lead")
        assert app.pulse().in_flight == 0
        assert [(call.key, call.function) for call in revocation.on_the_wire] == [
            (f"{run_id}:0", "slow.look"),
            (f"{run_id}:1", "slow.send"),
        ]
        look, send = await app.calls(run_id)
        assert (look.state, send.state, send.person) == (CallState.INTENDED, CallState.UNKNOWN, "owner@example.com")


@pytest.mark.claim("G5.below")
async def test_all_below_a_revoked_agent_are_revoked_with_it(project):
    async with agents(project, clock=ManualClock()) as app:
        await app.start(SLEEPS, agent="helper")
        await idle(app)
        revocation = await app.governance.revoke("clerk", by="lead", reason="odd")
        assert [each.name for each in revocation.identities] == ["clerk", "helper"]
        assert revocation.runs == 1
        with pytest.raises(Revoked):
            await app.start("1", agent="helper")
        with pytest.raises(Conflict):
            await app.governance.restore("helper", by="lead")


@pytest.mark.claim("G5.below")
@pytest.mark.parametrize("agent", ["clerk", "helper"])
async def test_nothing_starts_under_an_authority_that_has_ended_an_agents_own_or_one_above_it(project, agent):
    clock = ManualClock()
    config = replace(CONFIG, agents={**AGENTS, "clerk": replace(AGENTS["clerk"], expires="2030-03-17T17:47:00Z")})
    async with opened(project, config=config, clock=clock) as app:
        await finish(app, await app.start("1", agent=agent), clock)
        before = len(await app.runs(Page(limit=10)))
        clock.advance(86_400)
        with pytest.raises(Revoked, match="the authority of agent 'clerk' has ended: nothing starts under it"):
            await app.start("1", agent=agent)
        assert len(await app.runs(Page(limit=10))) == before
        shown = wire.identity(await app.governance.identity("clerk"), app.access.now_us())
        assert shown["state"] == "expired"


async def test_no_message_reaches_a_stopped_run(project):
    async with agents(project) as app:
        run_id = await app.start("await tools.receive()", agent="clerk")
        await idle(app)
        await app.governance.revoke("clerk", by="lead")
        with pytest.raises(Revoked):
            await app.send(run_id, "hello")


async def test_restoring_is_a_new_epoch_and_takes_runs_along_only_if_told(project):
    clock = ManualClock()
    async with agents(project, clock=clock) as app:
        run_id = await app.start("import asyncio\nawait asyncio.sleep(60)\n'woken'", agent="clerk")
        await idle(app)
        await app.governance.revoke("clerk", by="lead")
        assert (await app.governance.restore("clerk", by="lead")).epoch == 3
        clock.advance(120)
        await idle(app)
        assert (await app.run(run_id)).is_revoked
        assert (await finish(app, await app.start("3", agent="clerk"), clock)).result == 3
        await app.governance.revoke("clerk", by="lead")
        await app.governance.restore("clerk", by="lead", has_runs=True)
        assert (await finish(app, run_id, clock)).result == "woken"
        with pytest.raises(Conflict):
            await app.governance.restore("clerk", by="lead")
        with pytest.raises(NotFound):
            await app.governance.revoke("nobody", by="lead")


async def test_what_the_configuration_declares_does_not_restore_an_agent(project):
    async with agents(project) as app:
        await app.governance.revoke("clerk", by="lead")
    async with agents(project) as app:
        identity = await app.governance.identity("clerk")
        assert (identity.is_revoked, identity.epoch, identity.by) == (True, 2, "lead")


@pytest.mark.claim("G5.killed")
@pytest.mark.parametrize("point", ["revoke.before", "revoke.after"])
async def test_killed_around_its_commit_a_revocation_holds_or_was_never_made(project, point):
    clock = ManualClock()
    async with agents(project, clock=clock) as app:
        run_id = await app.start(SLEEPS, agent="clerk")
        await idle(app)
    counted = CrashPoints()
    async with agents(project, clock=clock, wrap=crashing(counted)):
        pass
    opening = len(counted.passed)
    points = CrashPoints(crash_at=opening + (1 if point == "revoke.before" else 2))
    async with (
        agents(project, clock=clock, wrap=crashing(points), drain_s=0) as app,
        anyio.create_task_group() as group,
    ):
        group.start_soon(lambda: app.governance.revoke("clerk", by="lead"))
        await points.crashed.wait()
        assert points.passed[-1] == point
        group.cancel_scope.cancel()
    async with agents(project, clock=clock) as app:
        clock.advance(120)
        await idle(app)
        assert (await app.run(run_id)).is_revoked == (point == "revoke.after")


async def test_who_follows_a_run_hears_that_its_agent_was_revoked_and_follows_no_more(project):
    async with agents(project, clock=ManualClock()) as app:
        run_id, heard, is_over = await app.start(SLEEPS, agent="clerk"), [], anyio.Event()

        async def follow():
            heard.extend([event.kind async for event in app.events(run_id, is_following=True)])
            is_over.set()

        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await idle(app)
            assert not is_over.is_set()
            await app.governance.revoke("clerk", by="lead")
            with anyio.fail_after(20):
                await is_over.wait()
        assert heard == ["created", "turn", "called"]
