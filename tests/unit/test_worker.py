"""What the worker finds in the store, in which order, and when."""

from dataclasses import replace
from typing import Any

import anyio
import pytest

from kit import crashing, opened
from overwinter.app import Parts
from overwinter.config import Agent, Config, Service, Worker
from overwinter.effects import BY_HAND_MAX
from overwinter.events import Status
from overwinter.testing import CrashPoints, ManualClock, idle

pytestmark = pytest.mark.anyio

SLOW = '''
"""Slow."""
import asyncio

from overwinter import read

@read
async def look() -> int:
    """Take long."""
    await asyncio.sleep(3600)
    return 1
'''
IN_FLIGHT = 4


class Stores:
    """A store that loads no run until it is told to, notes what is looked for, and may do something before a commit."""

    def __init__(self, parts: Parts, go_on: anyio.Event) -> None:
        self._store, self._go_on = parts.store, go_on
        self.looks = list[int]()
        self.before_commit: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def load(self, run_id: str) -> Any:
        await self._go_on.wait()
        return await self._store.load(run_id)

    async def commit(self, *what: Any, **how: Any) -> Any:
        if self.before_commit is not None:
            await self.before_commit()
        return await self._store.commit(*what, **how)

    async def ready(self, *which: Any, since_us: int = 0) -> Any:
        self.looks.append(since_us)
        return await self._store.ready(*which, since_us=since_us)


async def until(is_so):
    with anyio.fail_after(20):
        while not await is_so():  # noqa: ASYNC110 - what it waits for has no event
            await anyio.sleep(0.005)


async def test_a_call_is_tried_again_however_many_slow_ones_are_in_flight(project):
    (project / "patient_tools.py").write_text(SLOW)
    config = Config(
        agents={"default": Agent(owner="owner@example.com", tools=("*",))},
        services={"patient": Service(python="patient_tools")},
        worker=Worker(interpreters=2, calls_in_flight=IN_FLIGHT + 2),
    )
    clock = ManualClock()
    async with opened(project, config=config, clock=clock) as app:
        for _ in range(IN_FLIGHT):
            await app.start("await patient.look()")
        again = await app.start("await shop.flaky(name='a')")

        async def fly():
            return app.pulse().in_flight >= IN_FLIGHT

        async def ended():
            clock.advance(1)
            return (await app.run(again)).status is Status.FINISHED

        await until(fly)
        await until(ended)
        assert app.pulse().in_flight == IN_FLIGHT


async def test_under_a_backlog_answers_still_go_to_their_runs_by_hand(project):
    points, clock, go_on = CrashPoints(), ManualClock(), anyio.Event()

    def held(parts: Parts) -> Parts:
        parts = crashing(points)(parts)
        return replace(parts, store=Stores(parts, go_on))

    async with opened(project, clock=clock, wrap=held) as app:
        for _ in range(BY_HAND_MAX + 100):
            await app.start("await shop.double(number=2)")
        go_on.set()
        await idle(app)
        assert (await app.counts())[Status.FINISHED] == BY_HAND_MAX + 100
    assert "finish.before" not in points.passed


async def test_a_look_for_a_timer_does_not_look_through_all_that_waits(project):
    clock, go_on, stores = ManualClock(), anyio.Event(), list[Stores]()
    go_on.set()

    def counted(parts: Parts) -> Parts:
        stores.append(Stores(parts, go_on))
        return replace(parts, store=stores[0])

    async with opened(project, clock=clock, wrap=counted) as app:
        run_id = await app.start("import time\nfor _ in range(5):\n    time.sleep(0.1)")
        await idle(app)
        stores[0].looks.clear()
        for _ in range(5):
            clock.advance(0.1)
            await idle(app)
        assert (await app.run(run_id)).status is Status.FINISHED
    assert stores[0].looks
    assert all(stores[0].looks)


async def test_a_timer_that_passed_before_its_commit_is_found_at_once_though_a_look_came_between(project):
    clock, go_on, stores, apps = ManualClock(), anyio.Event(), list[Stores](), list[Any]()
    go_on.set()

    async def look_between():
        clock.advance(0.01)
        apps[0]._worker.ring(clock.now_us())
        before = len(stores[0].looks)

        async def looked():
            return len(stores[0].looks) > before

        await until(looked)

    def late(parts: Parts) -> Parts:
        stores.append(Stores(parts, go_on))
        stores[0].before_commit = look_between
        return replace(parts, store=stores[0])

    async with opened(project, clock=clock, wrap=late) as app:
        apps.append(app)
        run_id = await app.start("import asyncio\nfor _ in range(3):\n    await asyncio.sleep(0.001)")

        async def ended():
            return (await app.run(run_id)).status is Status.FINISHED

        await until(ended)  # the clock stands still but for the commits: no later look finds it


async def test_calls_for_which_there_was_no_room_begin_when_there_is(project):
    config = Config(
        agents={"default": Agent(owner="owner@example.com", tools=("*",))},
        worker=Worker(interpreters=2, calls_in_flight=2),
    )
    clock = ManualClock()
    async with opened(project, config=config, clock=clock) as app:
        run_id = await app.start("import asyncio\nawait asyncio.gather(*(shop.double(number=n) for n in range(9)))")
        for _ in range(8):  # less than the second after which everything is looked through
            await idle(app)
            clock.advance(0.1)
        await idle(app)
        assert (await app.run(run_id)).status is Status.FINISHED
