"""Policies that cannot be read deny everything and lose nothing; a home opens with them, far enough to revoke."""

import pytest

from kit import opened
from overwinter.config import Agent, Config, Worker
from overwinter.errors import ConfigInvalid, Denied
from overwinter.events import Status
from overwinter.grant import Granted
from overwinter.testing import ManualClock, finish, idle

pytestmark = pytest.mark.anyio
FREE = Agent(owner="owner@example.com", tools=("*",))
BARE = Agent(owner="owner@example.com")
CONFIG = Config(agents={"default": FREE, "clerk": FREE, "bare": BARE}, worker=Worker(interpreters=2))
SLEEPS = "import asyncio\nawait asyncio.sleep(60)\nawait shop.charge(cents=1)"
BROKEN = "permit(principal, action, resource) when { context.nothing of the kind };"


def agents(project, clock):
    return opened(project, config=CONFIG, clock=clock)


def broken(project):
    place = project / "policies"
    place.mkdir(exist_ok=True)
    (place / "house.cedar").write_text(BROKEN)
    return place / "house.cedar"


@pytest.mark.claim("G1.unread")
async def test_a_home_with_a_broken_policy_opens_denies_everything_and_revokes(project, ledger):
    clock = ManualClock()
    async with agents(project, clock) as app:
        asleep, other = await app.start(SLEEPS, agent="clerk"), await app.start(SLEEPS)
        await idle(app)
    policy = broken(project)
    async with agents(project, clock) as app:
        assert "house.cedar" in app.rulebook.fault
        clock.advance(120)
        await idle(app)
        assert {(await app.run(each)).status for each in (asleep, other)} == {Status.LIVE}
        assert ledger.read_text() == ""
        with pytest.raises(Denied, match=r"house\.cedar"):
            await app.start("1")
        assert (await app.governance.revoke("clerk", by="lead")).runs == 1
        with pytest.raises(ConfigInvalid, match=r"house\.cedar"):
            await app.rulebook.reload(by="owner@example.com")
        policy.unlink()
        await app.rulebook.reload(by="owner@example.com")
        assert (await finish(app, other, clock)).status is Status.FINISHED
        await idle(app)
        run = await app.run(asleep)
        assert (run.status, run.is_revoked) == (Status.LIVE, True)
    assert ledger.read_text().count("charge ") == 1


async def test_an_approval_waits_until_the_rules_can_be_read_and_is_not_turned_into_a_no(project, ledger):
    asked = Config(agents={"default": Agent(owner="owner@example.com", asks=("*",))}, worker=Worker(interpreters=2))
    clock = ManualClock()
    async with opened(project, config=asked, clock=clock) as app:
        run_id = await app.start("await shop.charge(cents=1)")
        await idle(app)
    policy = broken(project)
    async with opened(project, config=asked, clock=clock) as app:
        (record,) = await app.questions()
        with pytest.raises(Denied, match=r"house\.cedar"):
            await app.governance.vote(record, is_yes=True, by="owner@example.com")
        policy.unlink()
        await app.rulebook.reload(by="owner@example.com")
        (record,) = await app.questions()
        await app.governance.vote(record, is_yes=True, by="owner@example.com")
        assert (await finish(app, run_id, clock)).status is Status.FINISHED
    assert ledger.read_text().count("charge ") == 1


@pytest.mark.claim("G1.unread.grant")
async def test_a_grant_that_is_revoked_beside_a_broken_policy_permits_nothing_any_more(project, ledger):
    clock = ManualClock()
    async with agents(project, clock) as app:
        grant = await app.rulebook.grant(Granted(agent="bare", pattern="shop.*", by="lead"))
        run_id = await app.start(
            "import asyncio\nawait asyncio.sleep(60)\ntry:\n    await shop.charge(cents=1)\n"
            "except PermissionError:\n    'denied'",
            agent="bare",
        )
        await idle(app)
        broken(project)
        await app.rulebook.withdraw(grant.id, by="lead")
        clock.advance(120)
        await finish(app, run_id, clock)
    assert "charge" not in ledger.read_text()
