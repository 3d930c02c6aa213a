"""Revocation under attack: what is declared, removed or still in memory gives a revoked agent nothing back."""

import json
from dataclasses import replace

import anyio
import pytest

from kit import opened
from overwinter.adapters.cedar import read_policies
from overwinter.config import Agent, Config, Service, Worker, load
from overwinter.effects import Attempt
from overwinter.errors import ConfigInvalid, HomeDamaged, Revoked
from overwinter.events import Status
from overwinter.store import Lease
from overwinter.testing import ManualClock, finish, idle

pytestmark = pytest.mark.anyio
FREE = Agent(owner="owner@example.com", tools=("*",))
CONFIG = Config(agents={"default": FREE, "clerk": FREE}, worker=Worker(interpreters=2))
SLEEPS = "import asyncio\nawait asyncio.sleep(60)\nawait shop.charge(cents=1)"


def agents(project, config=CONFIG, **options):
    return opened(project, config=config, **options)


@pytest.mark.claim("G5.below")
@pytest.mark.parametrize("before", [{}, {"helper": FREE}], ids=["new", "moved"])
async def test_an_agent_declared_below_a_revoked_one_is_revoked_with_it(project, before):
    parts = []
    clock = ManualClock()
    async with agents(project, replace(CONFIG, agents={**CONFIG.agents, **before}), clock=clock) as app:
        await app.governance.revoke("clerk", by="lead", reason="odd")
    helpers = {"helper": replace(FREE, parent="clerk"), "junior": replace(FREE, parent="helper")}
    below = replace(CONFIG, agents={**CONFIG.agents, **helpers})
    async with agents(project, below, clock=clock, wrap=lambda each: parts.append(each) or each) as app:
        for name in helpers:
            assert (await app.governance.identity(name)).is_revoked
            with pytest.raises(Revoked):
                await app.start("1", agent=name)
        entries = [json.loads(raw) for _, raw in await parts[0].audit.entries(0, 100)]
    assert sorted(each["agent"] for each in entries if each["kind"] == "revoke") == ["clerk", "helper", "junior"]


@pytest.mark.claim("G5.name_reused")
async def test_a_name_that_is_declared_again_inherits_no_run_unless_a_person_says_so(project, ledger):
    clock = ManualClock()
    async with agents(project, clock=clock) as app:
        run_id = await app.start(SLEEPS, agent="clerk")
        await idle(app)
    clock.advance(120)
    without = replace(CONFIG, agents={"default": FREE})
    async with agents(project, without, clock=clock) as app:
        await idle(app)
        run = await app.run(run_id)
        assert (run.status, run.is_revoked) == (Status.LIVE, True)
        gone = await app.governance.identity("clerk")
        assert (gone.epoch, gone.reason) == (2, "it was not declared any more")
    async with agents(project, clock=clock) as app:
        await idle(app)
        with pytest.raises(Revoked):
            await app.start("1", agent="clerk")
        assert ledger.read_text() == ""
        await app.governance.restore("clerk", by="lead", has_runs=True)
        assert (await finish(app, run_id, clock)).status is Status.FINISHED


@pytest.mark.claim("G5.name_reused")
async def test_an_agent_whose_authority_had_ended_and_is_declared_anew_is_revoked(project, ledger):
    clock = ManualClock()
    ends = replace(FREE, expires="2030-03-17T17:48:10Z")  # 90 s after the clock of these tests begins
    async with agents(project, replace(CONFIG, agents={**CONFIG.agents, "clerk": ends}), clock=clock) as app:
        run_id = await app.start(SLEEPS, agent="clerk")
        await idle(app)
    clock.advance(120)
    async with agents(project, clock=clock) as app:
        await idle(app)
        assert (await app.run(run_id)).is_revoked
        assert "had ended" in (await app.governance.identity("clerk")).reason
    assert ledger.read_text() == ""


async def test_without_any_configuration_nobody_is_revoked(project):
    async with agents(project):
        pass
    async with agents(project, load(project / "overwinter.toml")) as app:
        assert not any(each.is_revoked for each in await app.governance.identities())


async def test_what_is_declared_otherwise_of_an_agent_is_an_entry_of_the_log(project):
    async with agents(project):
        pass
    heir = replace(FREE, owner="heir@example.com", parent="default")
    for size in (1, 1):  # once, not at each opening
        async with agents(project, replace(CONFIG, agents={**CONFIG.agents, "clerk": heir})) as app:
            entries = await app._parts.audit.entries(0, 9)
            assert [json.loads(raw)["kind"] for _, raw in entries] == ["enrol"] * size
            body = json.loads((await app._parts.audit.body(0))["args"])
            assert (body["was"]["owner"], body["is"]["owner"]) == ("owner@example.com", "heir@example.com")


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_policies_that_cannot_be_read_are_not_the_same_as_none(tmp_path, kind):
    place = tmp_path / "policies"
    place.write_text("") if kind == "file" else place.symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigInvalid):
        read_policies(place)
    assert read_policies(tmp_path / "none") == {}


async def test_an_answer_that_comes_too_late_does_not_have_the_program_compute(project):
    """A function that swallows its cancellation answers, and the run's state is still in memory."""
    (project / "stubborn_tools.py").write_text(
        "from overwinter import read\nimport asyncio\ngo = asyncio.Event()\n\n@read\nasync def look() -> int:\n"
        '    """Swallow one cancellation."""\n    try:\n        await go.wait()\n    except asyncio.CancelledError:\n'
        "        pass\n    return 1\n"
    )
    config = replace(CONFIG, services={"stubborn": Service(python="stubborn_tools")})
    turns = []
    async with agents(project, config, clock=ManualClock(), wrap=lambda parts: counting(parts, turns)) as app:
        await app.start("await stubborn.look()\nwhile True:\n    pass", agent="clerk")
        await idle_but_for_calls(app)
        await app.governance.revoke("clerk", by="lead")
        await idle(app)
    assert turns == []


def counting(parts, turns):
    class Counting:
        engine = parts.interpreter.engine
        start = parts.interpreter.start

        async def resume(self, *args, **kwargs):
            turns.append(args)
            return await parts.interpreter.resume(*args, **kwargs)

    return replace(parts, interpreter=Counting())


async def idle_but_for_calls(app):
    with anyio.fail_after(20):
        while app.pulse().busy or app.pulse().queued or not app.pulse().in_flight:  # noqa: ASYNC110 - as in `idle`
            await anyio.sleep(0.005)


async def test_a_log_key_that_is_another_one_is_said_with_its_remedy(project):
    async with agents(project) as app:
        await app.governance.revoke("clerk", by="lead")
    (project / ".overwinter" / "keys" / "audit.key").write_bytes(bytes(32))
    async with agents(project) as app:
        with pytest.raises(HomeDamaged, match=r"keys/audit\.key"):
            await app.governance.restore("clerk", by="lead")


@pytest.mark.claim("G5.fence")
async def test_a_call_whose_turn_was_committed_a_moment_before_the_revocation_is_not_begun(project):
    """The turn's task has not yet taken the step in which it would begin its call."""
    called = project / "called"
    (project / "quick_tools.py").write_text(
        "from overwinter import read\nfrom pathlib import Path\n\n@read\nasync def look() -> int:\n"
        f'    """Leave a trace."""\n    Path({str(called)!r}).touch()\n    return 1\n'
    )
    config = replace(CONFIG, services={"quick": Service(python="quick_tools")})
    apps = []

    def hurried(parts):
        commit = parts.store.commit

        async def then_revoked(turn, *, can_wait=False):
            verdict = await commit(turn, can_wait=can_wait)
            await parts.registry.revoke("clerk", by="lead")
            for scope in apps[0]._worker._busy.values():
                scope.cancel()
            return verdict

        parts.store.commit = then_revoked
        return parts

    async with agents(project, config, clock=ManualClock(), wrap=hurried) as app:
        apps.append(app)
        await app.start("await quick.look()", agent="clerk")
        await idle(app)
        assert app.pulse().turns == 1
    assert not called.exists()


async def test_a_call_that_is_cut_before_its_first_step_is_in_flight_no_more(project):
    (project / "sluggish_tools.py").write_text(
        "from overwinter import read\nimport asyncio\n\n@read\nasync def look() -> int:\n"
        '    """Take long."""\n    await asyncio.sleep(3600)\n    return 1\n'
    )
    config = replace(CONFIG, services={"sluggish": Service(python="sluggish_tools")})
    async with agents(project, config, clock=ManualClock()) as app:
        run_id = await app.start("await sluggish.look()", agent="clerk")
        await idle_but_for_calls(app)
        (record,) = await app.calls(run_id)
        effects = app._worker._effects
        call = replace(record.call, index=record.call.index + 1)
        effects.begin(Attempt(call=call, agent="clerk", lease=Lease(shard=0, epoch=1)))
        revocation = await app.governance.revoke("clerk", by="lead")
        assert (revocation.calls, app.pulse().in_flight) == (2, 0)
