"""Programs under the whole kernel: what they are given, what they may do, how they end."""

import asyncio

import anyio
import apsw
import pytest

from kit import opened
from overwinter.config import Agent, Config, Worker
from overwinter.errors import CheckFailed, Conflict, HomeHeld, NotFound, UsageError
from overwinter.events import Status
from overwinter.testing import OWNER, ManualClock, finish, idle

pytestmark = pytest.mark.anyio


async def ended(project, source, *, clock=None, answers=None, config=None, **inputs):
    clock = clock or ManualClock()
    async with opened(project, clock=clock, config=config) as app:
        run_id = await app.start(source, inputs=inputs)
        run = await finish(app, run_id, clock, answers=answers)
        return run, [event async for event in app.events(run_id)]


@pytest.mark.claim("D3.any_process")
async def test_variables_survive_a_change_of_process(project):
    clock = ManualClock()
    source = "import asyncio\nkept = {'a': [1, {2}], 'b': (3, 4.5)}\nawait asyncio.sleep(60)\nkept"
    async with opened(project, clock=clock) as app:
        run_id = await app.start(source)
        await idle(app)
    async with opened(project, clock=clock) as app:  # another interpreter process, another store connection
        run = await finish(app, run_id, clock)
    assert run.result == {"a": [1, {2}], "b": (3, 4.5)}


async def test_fourteen_days_pass_in_milliseconds_under_a_manual_clock(project):
    source = """
import asyncio
from datetime import datetime
begin = datetime.now()
await asyncio.sleep(14 * 86400)
(datetime.now() - begin).days
"""
    run, _ = await ended(project, source)
    assert run.result == 14


async def test_calls_side_by_side_are_one_turn(project):
    source = "import asyncio, shop\nawait asyncio.gather(*[shop.double(number=i) for i in range(5)])"
    run, events = await ended(project, source)
    assert run.result == [0, 2, 4, 6, 8]
    first = next(event for event in events if event.kind == "turn")
    calls = [event for event in events if event.kind == "called"]
    assert [event.position for event in calls] == list(range(first.position + 1, first.position + 6))


async def test_time_sleep_is_a_durable_timer_and_keeps_the_mail_of_other_calls(project):
    source = """
import asyncio, time, shop
async def slow():
    time.sleep(3600)
    return "slept"
await asyncio.gather(shop.double(number=4), slow())
"""
    run, _ = await ended(project, source)
    assert run.result == [8, "slept"]


async def test_the_clock_stands_still_within_a_turn_and_moves_between_turns(project):
    source = """
import time, shop
a = time.time(); b = time.time()
await shop.double(number=1)
[a == b, time.time() >= b]
"""
    run, _ = await ended(project, source)
    assert run.result == [True, True]


async def test_random_numbers_differ_between_runs(project):
    source = "import random\nrandom.random()"
    first, _ = await ended(project, source)
    second, _ = await ended(project, source)
    assert first.result != second.result


async def test_settle_returns_results_and_errors_in_order(project):
    source = """
r = await tools.settle(shop.double(number=1), shop.broken(), shop.double(number=2))
[r[0], type(r[1]).__name__, r[2], await tools.error(r[1])]
"""
    run, _ = await ended(project, source)
    one, kind, two, detail = run.result
    assert (one, kind, two) == (2, "RuntimeError", 4)
    assert (detail["status"], detail["code"], detail["retryable"]) == (402, "card_declined", False)


@pytest.mark.claim("D8.errors_journaled")
@pytest.mark.parametrize(("status", "kind"), [(402, "RuntimeError"), (403, "PermissionError"), (404, "LookupError")])
async def test_an_error_of_a_call_is_journaled_and_raised_by_its_status(project, status, kind):
    source = f"""
try:
    await shop.broken(status={status})
except {kind} as error:
    caught = str(error)
caught
"""
    run, events = await ended(project, source)
    assert run.status is Status.FINISHED, run.result
    assert run.result.startswith(f"{status} card_declined: ")
    journaled = next(event for event in events if event.kind == "answered")
    assert journaled.body["error"]["status"] == status


async def test_a_failing_read_is_tried_again_after_the_pause_that_the_service_asked_for(project, ledger):
    clock = ManualClock()
    before = clock.now_us()
    run, events = await ended(project, "await shop.flaky(name='a')", clock=clock)
    assert run.result == 3
    assert [event.kind for event in events].count("retried") == 2
    assert clock.now_us() - before >= 4_000_000
    assert ledger.read_text().splitlines() == ["flaky a"] * 3


@pytest.mark.claim("D4.write_parks")
@pytest.mark.parametrize(
    ("answer", "result"), [('done {"receipt": 7}', {"receipt": 7}), ("failed nothing arrived", "failed")]
)
async def test_a_write_of_unknown_outcome_asks_its_owner_and_is_not_repeated(project, ledger, answer, result):
    source = """
try:
    outcome = await shop.vanish(cents=5)
except RuntimeError:
    outcome = "failed"
outcome
"""
    run, events = await ended(project, source, answers={"unknown": answer})
    assert run.result == result
    assert ledger.read_text().splitlines() == ["pay 5"]
    assert any(event.kind == "unknown" for event in events)
    assert any(event.kind == "answered" and event.body.get("by") == OWNER for event in events)


async def test_an_owner_may_order_a_repeat_of_a_write_at_their_risk(project, ledger):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        run_id = await app.start("await shop.vanish(cents=5)")
        await idle(app)
        (question,) = await app.questions(run_id)
        await app.answer(question.call.key, "repeat", by=OWNER)
        await idle(app)
        clock.advance(2)
        await idle(app)
        assert ledger.read_text().splitlines() == ["pay 5", "pay 5"]
        (question,) = await app.questions(run_id)
        await app.answer(question.call.key, "done", by=OWNER)
        assert (await finish(app, run_id, clock)).status is Status.FINISHED


async def test_a_question_takes_one_answer_among_its_options(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        run_id = await app.start(f"await tools.ask({OWNER!r}, 'Charge?', options=['yes', 'no'])\nawait tools.receive()")
        await idle(app)
        assert OWNER in app.reason(await app.run(run_id), await app.calls(run_id))
        with pytest.raises(UsageError, match="'yes', 'no'"):
            await app.answer(f"{run_id}:0", "maybe", by="somebody")
        await app.answer(f"{run_id}:0", "yes", by="somebody")
        with pytest.raises(Conflict):
            await app.answer(f"{run_id}:0", "no", by="somebody")
        with pytest.raises(NotFound):
            await app.answer(f"{run_id}:99", "no", by="somebody")
        await app.send(run_id, "go")
        assert (await finish(app, run_id, clock)).result == "go"


async def test_a_question_nobody_answers_times_out(project):
    source = f"""
try:
    answer = await tools.ask({OWNER!r}, "Charge?", timeout=86400)
except TimeoutError:
    answer = "nobody"
answer
"""
    run, _ = await ended(project, source)
    assert run.result == "nobody"


async def test_messages_arrive_in_order_and_a_repeat_is_dropped(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        run_id = await app.start("[await tools.receive(), await tools.receive(), await tools.receive()]")
        assert await app.send(run_id, {"n": 1}, dedup="a")
        assert await app.send(run_id, 2)
        assert not await app.send(run_id, {"n": 1}, dedup="a")
        assert await app.send(run_id, "three")
        assert (await finish(app, run_id, clock)).result == [{"n": 1}, 2, "three"]
        with pytest.raises(Conflict, match="ended"):
            await app.send(run_id, 4)


@pytest.mark.claim("G1.no_rule")
async def test_a_call_without_a_grant_is_denied_and_does_nothing(project, ledger):
    config = Config(agents={"default": Agent(owner=OWNER, tools=("shop.double",))}, worker=Worker(interpreters=1))
    source = """
reason = ""
try:
    await tools.call("shop." + "pay", {"cents": 3})
except PermissionError as error:
    reason = str(error)
[await shop.double(number=1), reason]
"""
    run, events = await ended(project, source, config=config)
    assert run.result[0] == 2
    assert "no grant for shop.pay" in run.result[1]
    assert ledger.read_text() == ""
    assert any(event.kind == "denied" for event in events)


@pytest.mark.claim("G1.check")
async def test_a_program_that_names_a_function_its_agent_may_never_call_is_refused_before_it_runs(project, ledger):
    config = Config(agents={"default": Agent(owner=OWNER, tools=("shop.double",))}, worker=Worker(interpreters=1))
    async with opened(project, config=config) as app:
        with pytest.raises(CheckFailed) as refused:
            await app.start("x = 1\nawait shop.pay(cents=3)")
        (finding,) = refused.value.findings
        assert finding.line == 2
        assert "may not call shop.pay" in finding.message


@pytest.mark.claim("P1.checked_before")
@pytest.mark.claim("P3.subset")
@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("import shop\nawait shop.pay(cents=1)\nawait shop.doubel(number=1)", 3, "double"),
        ("import shop\nawait shop.pay(cents=1)\nawait shop.double(numbr=1)", 3, "number"),
        ("import shop\nawait shop.pay(cents=1)\nawait shop.double(number='1')", 3, "int"),
        ("import shop\nawait shop.pay(cents=1)\nshop.double(number=1)", 3, "await"),
        ("import shop\nawait shop.pay(cents=1)\nprint(invoice_id)", 3, "--input invoice_id=VALUE"),
        ("import shop\nawait shop.pay(cents=1)\nsorted([1], key=lambda n: shop.double(number=n))", 3, "cannot wait"),
        ("await shop.pay(cents=1)\ndef f():\n    yield 1", 3, "build and return a list"),
        ("await shop.pay(cents=1)\nclass A(Exception):\n    pass", 2, "inheritance"),
        ("await shop.pay(cents=1)\ndef (", 2, "syntax"),
    ],
)
async def test_a_wrong_program_is_refused_with_its_line_before_any_of_it_runs(project, ledger, source, line, words):
    async with opened(project, clock=ManualClock()) as app:
        with pytest.raises(CheckFailed) as refusal:
            await app.start(source)
        assert any(finding.line == line and words in finding.message for finding in refusal.value.findings), refusal
        assert sum((await app.counts()).values()) == 0
    assert ledger.read_text() == ""


@pytest.mark.claim("P2.layout")
@pytest.mark.parametrize(
    "source",
    [
        "args = {'number': 2}\nawait shop.double(**args)",
        "n = 2\nawait shop.double(number=n)",
        "import shop as s\nawait s.double(number=2)",
        "from shop import double\nawait double(number=2)",
        "async def f(n):\n    import shop\n    return await shop.double(number=n)\nawait f(2)",
        "total = 0\nfor i in [1, 1]:\n    total += await shop.double(number=i)\ntotal",
    ],
)
async def test_the_layout_of_a_correct_program_never_refuses_it(project, source):
    run, _ = await ended(project, source)
    assert run.result == 4, run


async def test_a_program_that_raises_fails_with_its_line(project):
    run, _ = await ended(project, "x = 1\ndef f(n):\n    return 1 // n\nf(0)")
    assert run.status is Status.FAILED
    assert (run.result["kind"], run.result["line"]) == ("ZeroDivisionError", 3)


async def test_what_is_never_awaited_was_not_done_and_is_said(project, ledger):
    run, events = await ended(project, "x = [shop.pay(cents=1)]\n'end'")
    assert run.result == "end"
    assert ledger.read_text() == ""
    assert events[-1].body["never_awaited"] == ["shop.pay"]


def tasks() -> int:
    """Count the tasks there are; those that start workers, since many turns have come within a second, are no run's."""
    return sum("lane.Lane" not in each.get_name() for each in asyncio.all_tasks())


@pytest.mark.claim("D2.parked_rows")
async def test_a_parked_run_holds_no_task_no_turn_and_no_call(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        await idle(app)
        before = tasks()
        for _ in range(50):
            await app.start("await tools.receive()")
        await idle(app)
        assert tasks() == before
        assert (app.pulse().busy, app.pulse().in_flight, app.pulse().queued) == (0, 0, 0)


@pytest.mark.claim("G5.cancel")
async def test_cancelling_ends_a_computing_program_and_starts_no_effect_afterwards(project, ledger):
    async with opened(project) as app:
        run_id = await app.start("while True:\n    pass")
        other = await app.start("await tools.receive()\nawait shop.pay(cents=9)")
        while not app.pulse().busy:  # noqa: ASYNC110 - what is waited for has no event
            await anyio.sleep(0.001)
        assert await app.cancel(run_id, by="somebody", reason="enough")
        assert await app.cancel(other, by="somebody")
        assert not await app.cancel(run_id, by="somebody")
        await idle(app)
        run = await app.run(run_id)
        assert run.status is Status.CANCELLED
        assert run.result == {"by": "somebody", "reason": "enough"}
        third = await app.start("1 + 1")
        assert (await app.result(third)).result == 2
    assert ledger.read_text() == ""


async def test_a_start_with_the_same_dedup_is_the_same_run(project):
    async with opened(project, clock=ManualClock()) as app:
        assert await app.start("1", dedup="k") == await app.start("1", dedup="k")


async def test_unknown_agents_and_runs_are_named(project):
    async with opened(project, clock=ManualClock()) as app:
        with pytest.raises(NotFound, match="no agent 'nobody'"):
            await app.start("1", agent="nobody")
        with pytest.raises(NotFound, match="no run"):
            await app.resolve("ZZZZZZ")
        with pytest.raises(UsageError, match="too short"):
            await app.resolve("Z")


@pytest.mark.parametrize("call", ["leave(how='exit')", "leave(how='cancel')", "leave(how='key')", "leave_thread()"])
async def test_a_tool_that_leaves_by_exit_or_cancellation_is_an_error_of_its_call_alone(project, call):
    source = f"""
try:
    await shop.{call}
except RuntimeError as error:
    text = str(error)
[await shop.double(number=1), text]
"""
    run, _ = await ended(project, source)
    assert run.status is Status.FINISHED, run.result
    assert run.result[0] == 2


async def test_a_run_that_never_receives_is_not_woken_by_its_messages(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        run_id = await app.start(
            f"await tools.ask({OWNER!r}, 'Well?')\n[await tools.receive() for _ in range(200)][-1]"
        )
        await idle(app)
        for number in range(200):
            await app.send(run_id, number)
        await idle(app)
        assert (await app.run(run_id)).seq == 1
        assert (await finish(app, run_id, clock, answers={"Well?": "yes"})).result == 199


async def test_what_ended_long_ago_is_deleted_by_itself_and_nothing_else(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        old = await app.start("1")
        asleep = await app.start("await tools.receive()")
        await idle(app)
        clock.advance(31 * 86_400)
        while not await gone(app, old):  # noqa: ASYNC110 - what is waited for has no event
            await anyio.sleep(0.001)
        assert (await app.run(asleep)).status is Status.LIVE


async def gone(app, run_id) -> bool:
    try:
        await app.run(run_id)
    except NotFound:
        return True
    return False


async def test_a_home_that_another_process_opened_is_let_go_with_its_reason(project):
    with pytest.raises(HomeHeld, match="another process"):  # noqa: PT012 - it is raised where the home is left
        async with opened(project) as app:
            run_id = await app.start("await tools.receive()")
            await idle(app)
            database = apsw.Connection(str(project / ".overwinter" / "store.db"))
            database.execute("update meta set epoch = epoch + 1")
            database.close()
            await app.send(run_id, 1)
            await anyio.sleep(10)
