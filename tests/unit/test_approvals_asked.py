"""Approvals as people give them, through the API: each way in which a yes must not count, end to end."""

import json

import apsw
import pytest

from kit import asked, opened
from overwinter import values
from overwinter.config import Agent, Config, Worker
from overwinter.errors import Denied
from overwinter.testing import ManualClock, idle

pytestmark = pytest.mark.anyio
OWNER, OTHER = "owner@example.com", "other@example.com"
CONFIG = Config(agents={"default": Agent(owner=OWNER, reads=("*",), asks=("shop.*",))}, worker=Worker(interpreters=2))
RULE = """@id("large") {words}
permit(principal == Agent::"default", action == Action::"call", resource == Function::"shop.pay") when {{ context.approved }};"""


def asking(project, config=CONFIG, **options):
    return opened(project, config=config, **options)


async def shown(app):
    """Start a run that pays, and return what a person is shown of it."""
    run_id = await app.start("await shop.pay(cents=7)")
    await idle(app)
    _, found = await asked(app, "GET", f"/v1/questions/{run_id}:0")
    return run_id, found["approval"]["digest"]


async def said(app, run_id, digest=None, *, by: str | None = OWNER, verb="approve", key=None):
    body = {"by": by, "digest": digest, "dedup": key}
    return await asked(app, "POST", f"/v1/questions/{run_id}:0/{verb}", json.dumps(body).encode())


@pytest.mark.claim("G7.asked")
async def test_a_yes_given_before_a_restart_performs_the_call_once(project, ledger):
    clock = ManualClock()
    async with asking(project, clock=clock) as app:
        run_id, digest = await shown(app)
    async with asking(project, clock=clock, is_worker=False) as app:
        assert await said(app, run_id, digest, key="k") == (200, {"became": "let_through"})
    async with asking(project, clock=clock) as app:
        assert (await app.result(run_id)).result == "paid 7"
        assert await said(app, run_id, digest, key="k") == (200, {"became": "let_through"})
        assert (await said(app, run_id, digest))[0] == 409
    assert ledger.read_text() == "pay 7\n"


@pytest.mark.claim("G7.asked")
async def test_a_double_click_is_one_yes(project, ledger):
    async with asking(project) as app:
        run_id, digest = await shown(app)
        statuses = [(await said(app, run_id, digest))[0] for _ in range(3)]
        assert statuses == [200, 409, 409]
        assert (await app.result(run_id)).result == "paid 7"
    assert ledger.read_text() == "pay 7\n"


@pytest.mark.claim("G7.asked")
async def test_an_argument_that_changes_after_the_yes_is_asked_about_again(project, ledger):
    """Somebody writes into the store between the yes and the start: what was approved is not what would happen."""
    clock = ManualClock()
    async with asking(project, clock=clock) as app:
        run_id, digest = await shown(app)
    async with asking(project, clock=clock, is_worker=False) as app:
        assert (await said(app, run_id, digest))[0] == 200
    db = apsw.Connection(str(project / ".overwinter" / "store.db"))
    db.execute("update call set arguments = ?", (values.encode({"cents": 7_000}),))
    db.close()
    async with asking(project, clock=clock) as app:
        await idle(app)
        assert ledger.read_text() == ""
        assert (await said(app, run_id, digest))[0] == 409
        _, found = await asked(app, "GET", f"/v1/questions/{run_id}:0")
        assert (found["arguments"], found["approval"]["digest"] == digest) == ({"cents": 7_000}, False)


@pytest.mark.claim("G7.asked")
async def test_a_yes_to_what_other_rules_showed_counts_for_nothing(project, ledger):
    (project / "policies").mkdir()
    async with asking(project) as app:
        run_id, digest = await shown(app)
        (project / "policies" / "more.cedar").write_text(RULE.format(words=""))
        await app.rulebook.reload(by=OWNER)
        status, answer = await said(app, run_id, digest)
        assert (status, "look at it again" in answer["error"]["message"]) == (409, True)
        assert ledger.read_text() == ""
        _, found = await asked(app, "GET", f"/v1/questions/{run_id}:0")
        assert (await said(app, run_id, found["approval"]["digest"]))[0] == 200
        assert (await app.result(run_id)).result == "paid 7"


@pytest.mark.claim("G7.asked")
async def test_a_call_of_a_revoked_agent_is_not_approved(project, ledger):
    async with asking(project) as app:
        run_id, digest = await shown(app)
        assert (await asked(app, "POST", "/v1/revoke", b'{"subject": "default"}'))[0] == 200
        assert (await said(app, run_id, digest))[0] == 409
        assert (await asked(app, "POST", "/v1/restore", b'{"agent": "default", "has_runs": true}'))[0] == 200
        assert (await said(app, run_id, digest))[0] == 409  # another epoch is another digest
    assert ledger.read_text() == ""


@pytest.mark.claim("G7.asked")
async def test_a_late_yes_counts_for_nothing(project, ledger):
    (project / "policies").mkdir()
    (project / "policies" / "due.cedar").write_text(RULE.format(words='@expires("2h")'))
    config = Config(agents={"default": Agent(owner=OWNER, reads=("*",))}, worker=Worker(interpreters=2))
    clock = ManualClock()
    async with asking(project, config, clock=clock) as app:
        in_time, digest = await shown(app)
        late, later = await shown(app)
        clock.advance(7_199)
        assert (await said(app, in_time, digest))[0] == 200
        assert (await app.result(in_time)).result == "paid 7"
        clock.advance(1)
        assert (await said(app, late, later))[0] == 409
        assert (await app.result(late)).result["kind"] == "TimeoutError"
    assert ledger.read_text() == "pay 7\n"


@pytest.mark.claim("G7.asked")
async def test_who_is_not_asked_can_say_neither_yes_nor_no(project, ledger):
    async with asking(project) as app:
        run_id, digest = await shown(app)
        for by in (OTHER, None, OWNER.upper()):
            for verb in ("approve", "reject"):
                assert (await said(app, run_id, digest, by=by, verb=verb))[0] == 403
        assert (await said(app, run_id, digest, by=f"{OWNER} "))[0] == 400
        await idle(app)
        assert len(await app.questions(run_id)) == 1
    assert ledger.read_text() == ""


async def test_several_must_say_yes_each_for_themselves(project, ledger):
    (project / "policies").mkdir()
    (project / "policies" / "two.cedar").write_text(
        RULE.format(words=f'@approver("{OWNER}, {OTHER}, third") @quorum("2")')
    )
    config = Config(agents={"default": Agent(owner=OWNER, reads=("*",))}, worker=Worker(interpreters=2))
    async with asking(project, config) as app:
        run_id, digest = await shown(app)
        (record,) = await app.questions(run_id)
        status, answer = await said(app, run_id, digest)
        assert (status, "no other person" in answer["error"]["message"]) == (403, True)
        for _ in range(2):
            assert (await app.governance.vote(record, is_yes=True, by=OWNER)).name == "COUNTED"
        assert ledger.read_text() == ""
        assert (await app.governance.vote(record, is_yes=True, by=OTHER)).name == "LET_THROUGH"
        assert (await app.result(run_id)).result == "paid 7"


@pytest.mark.parametrize(
    "words", ['@expires("soon")', '@expires("0s")', '@quorum("2")', '@approver("a, b") @quorum("3")', '@quorum("0")']
)
async def test_a_rule_that_nobody_could_satisfy_is_refused(project, words):
    (project / "policies").mkdir()
    (project / "policies" / "odd.cedar").write_text(RULE.format(words=words))
    async with asking(project) as app:
        assert "@" in app.rulebook.fault
        with pytest.raises(Denied, match="@"):
            await app.start("1")
