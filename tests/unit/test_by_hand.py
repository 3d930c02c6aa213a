"""Answers that go from a call to its run by hand: when they do, and that none is lost or asked for twice."""

import gc
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest

from kit import crashing, opened, sick
from overwinter.app import Parts
from overwinter.events import Status
from overwinter.testing import CrashPoints, ManualClock, finish, idle
from overwinter.turn import Standing

pytestmark = pytest.mark.anyio

CHARGE = "await shop.charge(cents=7)"


class Wrapped:
    """Tools that do something before they hand over what they got."""

    def __init__(self, tools, after):
        self.catalog, self._tools, self._after = tools.catalog, tools, after

    async def perform(self, call):
        answer = await self._tools.perform(call)
        await self._after()
        return answer


async def kinds_of(app, run_id):
    return [event.kind async for event in app.events(run_id)]


async def test_the_turn_that_gets_a_quick_answer_writes_it_down(project):
    points, clock = CrashPoints(), ManualClock()
    async with opened(project, clock=clock, wrap=crashing(points)) as app:
        run_id = await app.start(CHARGE)
        assert (await finish(app, run_id, clock)).result == "charged 7"
        assert await kinds_of(app, run_id) == ["created", "turn", "called", "answered", "turn", "finished"]
    assert "finish.before" not in points.passed


async def test_the_answer_of_a_write_is_durable_before_the_program_sees_it(project):
    points, clock = CrashPoints(), ManualClock()
    async with opened(project, clock=clock, wrap=crashing(points)) as app:
        await finish(app, await app.start("await shop.pay(cents=7)"), clock)
    performed = points.passed.index("perform.after")
    assert points.passed[performed + 1 : performed + 4] == ["finish.before", "finish.after", "commit.before"]


async def test_an_answer_that_took_long_is_durable_before_the_program_sees_it(project):
    points, clock = CrashPoints(), ManualClock()

    async def take_long():
        clock.advance(1)

    def slow(parts: Parts) -> Parts:
        return crashing(points)(replace(parts, tools=Wrapped(parts.tools, take_long)))

    async with opened(project, clock=clock, wrap=slow) as app:
        await finish(app, await app.start(CHARGE), clock)
    assert "finish.after" in points.passed


async def test_a_run_whose_call_is_slow_is_not_held_in_memory(project):
    clock, called, go_on = ManualClock(), anyio.Event(), anyio.Event()

    async def hang():
        called.set()
        await go_on.wait()

    def slow(parts: Parts) -> Parts:
        return replace(parts, tools=Wrapped(parts.tools, hang))

    def held(run_id):
        return [each for each in gc.get_objects() if isinstance(each, Standing) and each.run.run_id == run_id]

    async with opened(project, clock=clock, wrap=slow) as app:
        run_id = await app.start(CHARGE)
        await called.wait()
        assert len(held(run_id)) == 1, "a quick answer would find it there"
        clock.advance(2)
        await anyio.wait_all_tasks_blocked()
        assert not held(run_id)
        go_on.set()
        assert (await finish(app, run_id, clock)).result == "charged 7"


@pytest.mark.claim("D6.quarantine")
async def test_a_turn_that_fails_keeps_the_answer_it_was_given_and_the_run_backs_off(project, ledger):
    clock = ManualClock()

    async with opened(project, clock=clock, wrap=sick) as app:
        run_id = await app.start(CHARGE)
        await idle(app)
        run = await app.run(run_id)
        assert (run.failures, run.status) == (1, Status.LIVE)
        assert run.not_before_us > clock.now_us()
        assert await kinds_of(app, run_id) == ["created", "turn", "called", "stumbled", "answered"]
    async with opened(project, clock=clock) as app:
        assert (await finish(app, run_id, clock)).result == "charged 7"
    assert ledger.read_text().count("asked") == 1


async def test_an_answer_that_comes_while_the_home_closes_is_kept(project, ledger):
    clock, is_closing, has_acted = ManualClock(), anyio.Event(), anyio.Event()

    async def wait():
        has_acted.set()
        await is_closing.wait()

    def gated(parts: Parts) -> Parts:
        return replace(parts, tools=Wrapped(parts.tools, wait))

    run_id = ""
    async with anyio.create_task_group() as group, opened(project, clock=clock, wrap=gated, drain_s=5) as app:
        run_id = await app.start(CHARGE)
        await has_acted.wait()

        async def open_the_gate() -> None:
            for _ in range(50):  # the block is left meanwhile
                await anyio.lowlevel.checkpoint()
            is_closing.set()

        group.start_soon(open_the_gate)
    async with opened(project, clock=clock) as app:
        assert (await finish(app, run_id, clock)).result == "charged 7"
    assert ledger.read_text().count("asked") == 1
