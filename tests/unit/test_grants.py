"""Grants: what a person lets an agent do beyond its declaration holds at once, survives a restart, ends when it is told to."""

import json

import anyio
import pytest

from kit import crashing, opened
from overwinter.config import Agent, Config, Worker
from overwinter.errors import CheckFailed, ConfigInvalid, NotFound, UsageError
from overwinter.grant import Granted
from overwinter.policy import Allow, Ask, Deny
from overwinter.testing import CrashPoints, ManualClock, idle

pytestmark = pytest.mark.anyio
OWNER = "owner@example.com"
CONFIG = Config(agents={"default": Agent(owner=OWNER, reads=("*",))}, worker=Worker(interpreters=1))
PAYS = "await shop.pay(cents=7)"


def home(project, **options):
    return opened(project, config=CONFIG, **options)


async def refused(app):
    with pytest.raises(CheckFailed):
        await app.start(PAYS)


@pytest.mark.claim("G1.grant")
async def test_a_grant_holds_at_once_after_a_restart_and_until_it_is_revoked(project, ledger):
    async with home(project) as app:
        await refused(app)
        made = await app.rulebook.grant(Granted(agent="default", pattern="shop.pay", by="lead"))
        assert (await app.result(await app.start(PAYS))).result == "paid 7"
    async with home(project) as app:
        assert [each.id for each in await app.rulebook.grants()] == [made.id]
        assert (await app.result(await app.start(PAYS))).result == "paid 7"
        await app.rulebook.withdraw(made.id, by="lead", reason="done")
        await refused(app)
        with pytest.raises(NotFound):
            await app.rulebook.withdraw(made.id, by="lead")
        again = await app.rulebook.grant(Granted(agent="default", pattern="shop.pay", by="lead"))
        assert again.id != made.id


async def test_a_grant_ends_by_itself(project):
    clock = ManualClock()
    async with home(project, clock=clock) as app:
        ends = clock.now_us() + 60_000_000
        await app.rulebook.grant(Granted(agent="default", pattern="shop.*", by="lead", expires_us=ends))
        assert isinstance(app.rulebook.explain("default", "shop.pay", {"cents": 1}).decision, Allow)
        clock.advance(61)
        assert isinstance(app.rulebook.explain("default", "shop.pay", {"cents": 1}).decision, Deny)


async def test_what_is_granted_for_the_asking_is_asked(project, ledger):
    async with home(project) as app:
        await app.rulebook.grant(
            Granted(agent="default", pattern="shop.pay", is_asked=True, approver="cfo@example.com", by="lead")
        )
        decision = app.rulebook.explain("default", "shop.pay", {"cents": 1}).decision
        assert isinstance(decision, Ask)
        assert decision.approver == "cfo@example.com"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (Granted(agent="nobody", pattern="shop.*"), NotFound),
        (Granted(agent="default", pattern="shop"), UsageError),
        (Granted(agent="default", pattern=" "), UsageError),
        (Granted(agent="default", pattern="shop.*", reads_only=True, is_asked=True), UsageError),
    ],
)
async def test_a_grant_that_means_nothing_is_not_made(project, given, error):
    async with home(project) as app:
        with pytest.raises(error):
            await app.rulebook.grant(given)
        assert await app.rulebook.grants() == []


async def test_a_revoked_agent_is_granted_nothing(project):
    async with home(project) as app:
        await app.governance.revoke("default", by="lead")
        with pytest.raises(NotFound, match="revoked"):
            await app.rulebook.grant(Granted(agent="default", pattern="shop.*", by="lead"))


async def test_each_grant_and_its_end_is_an_entry_of_the_log(project):
    parts = []
    async with home(project, wrap=lambda each: parts.append(each) or each) as app:
        made = await app.rulebook.grant(Granted(agent="default", pattern="shop.pay", by="lead"))
        await app.rulebook.withdraw(made.id, by="other")
        entries = [json.loads(raw) for _, raw in await parts[0].audit.entries(0, 10)]
    assert [(each["kind"], each["act"], each["policy_ids"]) for each in entries] == [
        ("grant", ["lead"], [made.id]),
        ("revoke", ["other"], [made.id]),
    ]


@pytest.mark.claim("G1.grant")
async def test_a_grant_is_taken_away_while_a_policy_is_wrong(project):
    async with home(project) as app:
        before = app.rulebook.explain("default", "shop.pay", {"cents": 1}).decision
        made = await app.rulebook.grant(Granted(agent="default", pattern="shop.pay", by="lead"))
        (project / "policies").mkdir()
        (project / "policies" / "pay.cedar").write_text("permit(")
        await app.rulebook.withdraw(made.id, by="lead")
        assert isinstance(before, Deny)
        assert app.rulebook.explain("default", "shop.pay", {"cents": 1}).decision == before


async def test_rules_read_before_a_grant_was_taken_away_do_not_hold_after_it(project):
    async with home(project) as app:
        made = await app.rulebook.grant(Granted(agent="default", pattern="shop.pay", by="lead"))
        for _ in range(20):
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: app.rulebook.reload(by="lead"))
                await anyio.lowlevel.checkpoint()
                group.start_soon(lambda name=made.id: app.rulebook.withdraw(name, by="lead"))
            assert isinstance(app.rulebook.explain("default", "shop.pay", {"cents": 1}).decision, Deny)
            made = await app.rulebook.grant(Granted(agent="default", pattern="shop.pay", by="lead"))


@pytest.mark.claim("G6.reload")
async def test_reading_the_rules_anew_is_an_entry_with_both_versions_and_by_whom(project):
    parts = []
    async with home(project, wrap=lambda each: parts.append(each) or each) as app:
        before = parts[0].policy.version
        (project / "policies").mkdir()
        (project / "policies" / "pay.cedar").write_text(
            '@id("pay") permit(principal, action == Action::"call", resource);'
        )
        done = await app.rulebook.reload(by="lead")
        (project / "policies" / "pay.cedar").write_text("permit(")
        with pytest.raises(ConfigInvalid):
            await app.rulebook.reload(by="lead")
        (entry,) = [json.loads(raw) for _, raw in await parts[0].audit.entries(0, 10)]
    assert (entry["kind"], entry["act"], entry["policy_ids"]) == ("policy", ["lead"], ["pay"])
    assert (entry["policy_set_before_sha256"], entry["policy_set_sha256"]) == (before, done.version)
    assert before != done.version


async def test_a_wrong_set_of_policies_changes_nothing_and_a_right_one_holds_at_once(project, ledger):
    async with home(project) as app:
        (project / "policies").mkdir()
        place = project / "policies" / "pay.cedar"
        place.write_text('permit(principal == Agent::"default", action == Action::"cal", resource);')
        with pytest.raises(ConfigInvalid, match="cal"):
            await app.rulebook.reload(by="lead")
        await refused(app)
        place.write_text(
            '@id("pay") permit(principal == Agent::"default", action == Action::"call", resource == Function::"shop.pay");'
        )
        assert list((await app.rulebook.reload(by="lead")).added) == ["pay"]
        assert await app.rulebook.check() == []
        place.write_text('@id("pay") permit(principal == Agent::"default", action, resource == Function::"shop.pay");')
        assert [each.message.partition(":")[0] for each in await app.rulebook.check()] == ["they are not what holds"]
        place.write_text("permit(principal, action")
        assert [each.is_error for each in await app.rulebook.check()] == [True], "it is what a reload would read"
        assert (await app.result(await app.start(PAYS))).result == "paid 7"


async def test_what_was_tried_is_suggested_and_simulated(project, ledger):
    async with home(project) as app:
        source = "try:\n    await tools.call('shop.' + 'pay', {'cents': 7})\nexcept PermissionError:\n    pass"
        await app.result(await app.start(source))
        text = await app.rulebook.suggest("default")
        assert (
            text.strip()
            == '// 1 call\npermit(principal == Agent::"default", action == Action::"call", resource == Function::"shop.pay")\n'
            "when { context.args.cents >= 0 && context.args.cents <= 7 };"
        )
        (project / "other").mkdir()
        (project / "other" / "a.cedar").write_text(text)
        (change,) = await app.rulebook.simulate(policies=project / "other")
        assert (type(change.before), type(change.after)) == (Deny, Allow)
        assert await app.rulebook.simulate() == []


async def test_a_refused_call_is_replayed_with_its_arguments_by_name(project, ledger):
    async with home(project) as app:
        source = "try:\n    await tools.call('shop.' + 'pay', {'cents': 7})\nexcept PermissionError:\n    pass"
        run_id = await app.start(source)
        await app.result(run_id)
        found = await app.rulebook.explain_call(run_id, 0)
        assert [each.kind for each in found.was] == ["denied"]
        assert found.act.arguments == {"cents": 7}
        assert isinstance(found.now.decision, Deny)
        await app.rulebook.grant(Granted(agent="default", pattern="shop.pay", by="lead"))
        assert isinstance((await app.rulebook.explain_call(run_id, 0)).now.decision, Allow)
        with pytest.raises(NotFound):
            await app.rulebook.explain_call(run_id, 1)


@pytest.mark.parametrize("point", ["grant.before", "grant.after"])
async def test_killed_around_its_commit_a_grant_holds_or_was_never_made(project, point):
    clock, points = ManualClock(), CrashPoints(crash_at=1 if point == "grant.before" else 2)
    async with home(project, clock=clock, wrap=crashing(points), drain_s=0) as app, anyio.create_task_group() as group:
        group.start_soon(app.rulebook.grant, Granted(agent="default", pattern="shop.*", by="lead"))
        await points.crashed.wait()
        assert points.passed[-1] == point
        group.cancel_scope.cancel()
    async with home(project, clock=clock) as app:
        await idle(app)
        assert len(await app.rulebook.grants()) == (point == "grant.after")


async def test_a_configuration_that_was_changed_since_it_was_read_is_said_to_hold_not_yet(project):
    place = project / "overwinter.toml"
    place.write_text("[agents.default]\ntools = ['shop.*']\n")
    async with opened(project) as app:
        assert not app.rulebook.is_outdated
        place.write_text("[agents.default]\ntools = []\n")
        assert app.rulebook.is_outdated
        assert (await app.health())["is_outdated"] is True
        assert "restart the server" in (await app.rulebook.check())[-1].message
