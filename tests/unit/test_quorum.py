"""Calls that several people must approve, in time: each counts once, and a question ends when its rule says so."""

import pytest

from kit import opened
from overwinter.config import Agent, Config, Worker
from overwinter.errors import Conflict, Denied
from overwinter.events import Event, Status
from overwinter.faces import wire
from overwinter.faces.cli.governing import asked
from overwinter.faces.cli.render import show
from overwinter.journal import history, timer_answer
from overwinter.store import Voted
from overwinter.testing import ManualClock, finish, idle

pytestmark = pytest.mark.anyio
JANE = "Doe, Jane"
CONFIG = Config(agents={"default": Agent(owner=JANE, reads=("*",), tools=("shop.*",))}, worker=Worker(interpreters=1))
PAYS = "await shop.pay(cents=7)"
SCOPE = 'forbid(principal, action == Action::"call", resource == Function::"shop.pay") unless { context.approved };'
TWO_OF_THREE = f'@id("finance") @approver("a@x, b@x, c@x") @quorum("2") @expires("4h") {SCOPE}'
LEGAL = f'@id("legal") @approver("l@x") {SCOPE}'
CAUGHT = f"try:\n    {PAYS}\nexcept TimeoutError as error:\n    seen = str(error)\nseen"


def home(project, *rules, **options):
    (project / "policies").mkdir(exist_ok=True)
    (project / "policies" / "teams.cedar").write_text("\n".join(rules))
    return opened(project, config=CONFIG, **options)


async def gated(app, source=PAYS):
    run_id = await app.start(source)
    await idle(app)
    (record,) = await app.questions(run_id)
    return run_id, record


async def yes(app, record, by):
    return await app.governance.vote(record, is_yes=True, by=by, shown=record.gate.digest)


def paid(ledger):
    return [line for line in ledger.read_text().splitlines() if line.startswith("pay")]


@pytest.mark.claim("G7.quorum")
async def test_a_call_waits_for_as_many_people_as_its_rule_says_and_one_counts_once(project, ledger):
    clock = ManualClock()
    async with home(project, TWO_OF_THREE, clock=clock) as app:
        run_id, record = await gated(app)
        assert await yes(app, record, "a@x") is Voted.COUNTED
        clock.advance(3_600)  # its end is kept, so it is the same question an hour later
        assert await yes(app, record, "a@x") is Voted.COUNTED
        with pytest.raises(Denied):
            await yes(app, record, JANE)
        await idle(app)
        assert paid(ledger) == []
    async with home(project, TWO_OF_THREE, clock=clock) as app:
        (record,) = await app.questions(run_id)
        assert "waits for 1 of b@x, c@x to approve shop.pay" in app.reason(await app.run(run_id), [record])
        assert await yes(app, record, "c@x") is Voted.LET_THROUGH
        assert (await app.result(run_id)).result == "paid 7"
    assert paid(ledger) == ["pay 7"]


@pytest.mark.claim("G7.quorum")
async def test_each_team_whose_rule_asks_must_say_yes(project, ledger):
    async with home(project, TWO_OF_THREE, LEGAL) as app:
        run_id, record = await gated(app)
        assert record.person == "2 of a@x, b@x, c@x and l@x"
        for person in ("a@x", "b@x"):
            assert await yes(app, record, person) is Voted.COUNTED
        await idle(app)
        assert paid(ledger) == []
        assert await yes(app, record, "l@x") is Voted.LET_THROUGH
        assert (await app.result(run_id)).result == "paid 7"


async def test_one_no_of_any_team_is_a_no(project, ledger):
    async with home(project, TWO_OF_THREE, LEGAL) as app:
        run_id, record = await gated(app)
        await yes(app, record, "a@x")
        assert await app.governance.vote(record, is_yes=False, by="l@x", reason="no") is Voted.REJECTED
        assert (await app.result(run_id)).result["kind"] == "PermissionError"
    assert paid(ledger) == []


@pytest.mark.claim("G7.expires")
async def test_a_question_that_nobody_answers_in_time_is_a_time_out_of_the_program(project, ledger):
    clock = ManualClock()
    async with home(project, TWO_OF_THREE, clock=clock) as app:
        run_id, record = await gated(app, CAUGHT)
        await yes(app, record, "a@x")
        clock.advance(4 * 3_600)
        with pytest.raises(Conflict):
            await yes(app, record, "b@x")
        run = await finish(app, run_id, clock)
        assert run.status is Status.FINISHED
        assert "no answer came in time" in run.result
        assert await app.questions() == []
    assert paid(ledger) == []


@pytest.mark.claim("G7.expires")
async def test_an_approved_call_may_take_longer_than_the_question(project, ledger):
    """The yes comes in time; the process ends before the call starts, and goes on when the question would be over."""
    clock = ManualClock()
    async with home(project, TWO_OF_THREE, clock=clock) as app:
        run_id, record = await gated(app)
    async with home(project, TWO_OF_THREE, clock=clock, is_worker=False) as app:
        await yes(app, record, "a@x")
        assert await yes(app, record, "b@x") is Voted.LET_THROUGH
    clock.advance(5 * 3_600)
    async with home(project, TWO_OF_THREE, clock=clock) as app:
        assert (await app.result(run_id)).result == "paid 7"
    assert paid(ledger) == ["pay 7"]


async def test_whom_a_rule_asks_by_the_time_of_day_is_asked_anew_when_it_changes(project, ledger):
    """The rules are the same, and somebody else answers for the call by now: the first one's yes counts for nothing."""
    clock = ManualClock()
    noon = clock.now_us() // 1_000_000 + 60
    when = f"when {{ context.now %s {noon} }} unless {{ context.approved }};"
    rules = [
        f'@approver("{who}") {SCOPE.replace("unless { context.approved };", when % sign)}'
        for who, sign in (("day@x", "<"), ("night@x", ">="))
    ]
    async with home(project, *rules, clock=clock) as app:
        run_id, first = await gated(app)
        clock.advance(61)
        with pytest.raises(Conflict, match="look at it again"):
            await yes(app, first, "day@x")
        (second,) = await app.questions(run_id)
        assert second.person == "night@x"
        assert await yes(app, second, "night@x") is Voted.LET_THROUGH
        await idle(app)
    assert paid(ledger) == ["pay 7"]


async def test_an_owner_with_a_comma_in_the_name_is_one_person(project, ledger):
    config = Config(agents={"default": Agent(owner=JANE, asks=("shop.*",))}, worker=CONFIG.worker)
    async with opened(project, config=config) as app:
        _, record = await gated(app)
        for part in ("Doe", "Jane"):
            with pytest.raises(Denied):
                await yes(app, record, part)
        assert await yes(app, record, JANE) is Voted.LET_THROUGH


async def test_inbox_and_show_say_who_must_approve_still_and_until_when(project, ledger):
    async with home(project, TWO_OF_THREE, LEGAL) as app:
        run_id, record = await gated(app)
        await yes(app, record, "a@x")
        (record,) = await app.questions(run_id)
        lines = asked(wire.call(record))
        assert "  a@x said yes; needed: 1 of b@x, c@x and l@x" in lines
        assert any(line.startswith("  until 20") for line in lines)
        run = wire.run(await app.run(run_id), "waits") | {"open_calls": [wire.call(record)], "warnings": []}
        text = show(run, [], "")
        assert "a@x said yes; needed: 1 of b@x, c@x and l@x" in text
        assert f"overwinter approve {run_id[-8:]}:0" in text


def test_a_service_function_named_sleep_is_timed_out_in_a_rebuild_as_it_was():
    called = Event(kind="called", body={"index": 0, "function": "spa.sleep", "arguments": {}})
    first, second = (Event(kind="turn", body={"now_us": 1, "given": given}) for given in ([], [[0, "timer"]]))
    (_, last) = history([first, called, second])
    ((_, answer),) = last.given
    assert answer == timer_answer(is_sleep=False)
