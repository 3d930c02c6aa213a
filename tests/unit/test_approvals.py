"""A call that must be asked about waits behind a gate; what was approved is exactly what is performed, once."""

import anyio
import pytest

from kit import crashing, opened
from overwinter.config import Agent, Config, Worker
from overwinter.errors import Conflict, Denied, Revoked, UsageError
from overwinter.events import CallState, Status
from overwinter.store import Voted
from overwinter.testing import CrashPoints, ManualClock, idle

pytestmark = pytest.mark.anyio
OWNER = "owner@example.com"
CONFIG = Config(agents={"default": Agent(owner=OWNER, reads=("*",), asks=("shop.*",))}, worker=Worker(interpreters=2))
PAYS = "await shop.pay(cents=7)"


def asking(project, **options):
    return opened(project, config=CONFIG, **options)


async def gated(app, source=PAYS):
    run_id = await app.start(source)
    await idle(app)
    (record,) = await app.questions(run_id)
    return run_id, record


def paid(ledger):
    return [line for line in ledger.read_text().splitlines() if line.startswith("pay")]


@pytest.mark.claim("G7.gate")
async def test_an_approved_call_is_performed_once_and_a_second_yes_changes_nothing(project, ledger):
    async with asking(project) as app:
        run_id, record = await gated(app)
        assert paid(ledger) == []
        assert "approve shop.pay" in app.reason(await app.run(run_id), [record])
        assert await app.governance.vote(record, is_yes=True, by=OWNER) is Voted.LET_THROUGH
        with pytest.raises(Conflict):
            await app.governance.vote(record, is_yes=True, by=OWNER)
        assert (await app.result(run_id)).result == "paid 7"
        assert paid(ledger) == ["pay 7"]
        kinds = [(event.kind, event.body.get("by")) async for event in app.events(run_id)]
        assert ("approved", OWNER) in kinds


async def test_a_call_that_may_be_repeated_waits_for_its_yes_too(project, ledger):
    async with asking(project) as app:
        run_id, record = await gated(app, "await shop.charge(cents=7)")
        assert ledger.read_text() == ""
        await app.governance.vote(record, is_yes=True, by=OWNER)
        assert (await app.result(run_id)).result == "charged 7"


async def test_reads_pass_without_a_question(project):
    async with asking(project) as app:
        assert (await app.result(await app.start("await shop.double(number=2)"))).result == 4


async def test_a_rejected_call_is_a_permission_error_with_the_reason(project, ledger):
    async with asking(project) as app:
        source = f"try:\n    {PAYS}\nexcept PermissionError as error:\n    seen = str(error)\nseen"
        run_id, record = await gated(app, source)
        assert await app.governance.vote(record, is_yes=False, by=OWNER, reason="too much") is Voted.REJECTED
        assert "too much" in (await app.result(run_id)).result
        assert paid(ledger) == []


@pytest.mark.claim("G7.approver")
async def test_only_who_is_asked_may_say_yes(project, ledger):
    async with asking(project) as app:
        _, record = await gated(app)
        for by in ("somebody@example.com", "", "Owner@example.com", f"{OWNER} "):
            with pytest.raises(Denied):
                await app.governance.vote(record, is_yes=True, by=by)
        with pytest.raises(UsageError):
            await app.answer(record.call.key, "yes", by=OWNER)
        await idle(app)
        assert paid(ledger) == []


async def test_a_yes_to_what_was_shown_before_it_changed_counts_for_nothing(project, ledger):
    async with asking(project) as app:
        _, record = await gated(app)
        with pytest.raises(Conflict):
            await app.governance.vote(record, is_yes=True, by=OWNER, shown=b"x" * 32)
        await idle(app)
        assert paid(ledger) == []


@pytest.mark.claim("G7.bound")
async def test_under_changed_rules_it_is_asked_again_and_what_they_forbid_is_rejected(project, ledger):
    clock = ManualClock()
    async with asking(project, clock=clock) as app:
        run_id, first = await gated(app)
    other = Config(agents={**CONFIG.agents, "other": Agent()}, worker=CONFIG.worker)
    async with opened(project, config=other, clock=clock) as app:
        with pytest.raises(Conflict, match="look at it again"):
            await app.governance.vote(first, is_yes=True, by=OWNER)
        (second,) = await app.questions(run_id)
        assert first.gate is not None
        assert second.gate is not None
        assert first.gate.digest != second.gate.digest
        assert paid(ledger) == []
    narrower = Config(agents={"default": Agent(owner=OWNER, reads=("*",))}, worker=CONFIG.worker)
    async with opened(project, config=narrower, clock=clock) as app:
        assert await app.governance.vote(second, is_yes=True, by=OWNER) is Voted.REJECTED
        assert (await app.result(run_id)).result["kind"] == "PermissionError"
    assert paid(ledger) == []


async def test_what_was_approved_is_decided_again_when_it_starts(project, ledger):
    """The process ends between the yes and the start; meanwhile the rules changed."""
    clock = ManualClock()
    points = CrashPoints()
    async with asking(project, clock=clock, wrap=crashing(points)) as app:
        run_id, record = await gated(app)
    async with opened(project, config=CONFIG, clock=clock, is_worker=False) as app:
        assert await app.governance.vote(record, is_yes=True, by=OWNER) is Voted.LET_THROUGH
    narrower = Config(agents={"default": Agent(owner=OWNER, reads=("*",))}, worker=CONFIG.worker)
    async with opened(project, config=narrower, clock=clock) as app:
        assert (await app.result(run_id)).result["kind"] == "PermissionError"
    assert paid(ledger) == []


@pytest.mark.claim("G7.survives")
async def test_a_question_and_a_yes_survive_a_restart(project, ledger):
    clock = ManualClock()
    async with asking(project, clock=clock) as app:
        run_id, record = await gated(app)
    async with opened(project, config=CONFIG, clock=clock, is_worker=False) as app:
        assert await app.governance.vote(record, is_yes=True, by=OWNER) is Voted.LET_THROUGH
    async with asking(project, clock=clock) as app:
        assert (await app.result(run_id)).result == "paid 7"
    assert paid(ledger) == ["pay 7"]


async def test_a_revoked_agents_call_cannot_be_approved(project, ledger):
    async with asking(project) as app:
        _, record = await gated(app)
        await app.governance.revoke("default", by="lead")
        with pytest.raises(Conflict):
            await app.governance.vote(record, is_yes=True, by=OWNER)
    assert paid(ledger) == []


async def test_no_answer_reaches_a_run_of_a_revoked_agent(project, ledger):
    async with asking(project) as app:
        run_id = await app.start("await tools.ask('owner@example.com', 'pay?')")
        await idle(app)
        await app.governance.revoke("default", by="lead")
        with pytest.raises(Revoked):
            await app.answer(f"{run_id}:0", "yes", by=OWNER)
        await app.governance.restore("default", by="lead")
        with pytest.raises(Revoked):
            await app.answer(f"{run_id}:0", "yes", by=OWNER)
        await app.governance.restore("default", by="lead", has_runs=True)
        await app.answer(f"{run_id}:0", "yes", by=OWNER)
        assert (await app.result(run_id)).result == "yes"
    assert paid(ledger) == []


async def test_two_yes_at_once_let_it_through_once(project, ledger):
    async with asking(project) as app:
        run_id, record = await gated(app)
        became = []

        async def vote():
            try:
                became.append(await app.governance.vote(record, is_yes=True, by=OWNER))
            except Conflict:
                became.append(None)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(vote)
        assert became.count(Voted.LET_THROUGH) == 1
        assert (await app.result(run_id)).status is Status.FINISHED
    assert paid(ledger) == ["pay 7"]


async def test_cancelling_a_run_closes_its_gate(project, ledger):
    async with asking(project) as app:
        run_id, record = await gated(app)
        assert record.state is CallState.INTENDED
        await app.cancel(run_id, by="somebody")
        with pytest.raises(Conflict):
            await app.governance.vote(record, is_yes=True, by=OWNER)
        assert await app.questions() == []
    assert paid(ledger) == []


@pytest.mark.claim("G1.wake")
async def test_a_run_that_no_rule_lets_go_on_stops_with_its_mail_kept_until_a_person_releases_it(project, ledger):
    clock = ManualClock()
    source = "got = await tools.receive()\nawait shop.double(number=got)"
    async with asking(project, clock=clock) as app:
        run_id = await app.start(source)
        await idle(app)
    (project / "policies").mkdir()
    rule = project / "policies" / "night.cedar"
    rule.write_text('@reason("it is night") forbid(principal, action == Action::"wake", resource);')
    async with asking(project, clock=clock) as app:
        await app.send(run_id, 4)
        await idle(app)
        run = await app.run(run_id)
        assert (run.status, run.result["kind"]) == (Status.QUARANTINED, "WakeDenied")
        assert "it is night" in run.result["message"]
        rule.unlink()
        await app.rulebook.reload(by="lead")
        await app.release(run_id, by="somebody")
        assert (await app.result(run_id)).result == 8
