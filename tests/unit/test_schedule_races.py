"""What stands between a schedule and its runs: a person who acts meanwhile, a death between two commits, a fault of the moment."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from kit import asked, opened
from overwinter.app import App
from overwinter.app.parts import Parts
from overwinter.clock import SECOND_US
from overwinter.errors import WorkerCrashed
from overwinter.schedule import Schedule, Schedules, started_as
from overwinter.store import Page
from overwinter.testing import ManualClock

pytestmark = pytest.mark.anyio
HOUR = 3_600
WAITS = {"source": "await tools.receive()", "inputs": {}}


class Meanwhile:
    """An App in which something else is done while it starts a run."""

    def __init__(self, app: App, act: Callable[[], Awaitable[object]]) -> None:
        self._app, self._act, self.check_start = app, act, app.check_start

    async def start(self, source: str | None = None, **start: Any) -> str:
        await self._act()
        return await self._app.start(source, **start)


class Died(Exception):
    """The process ended here."""


class Mortal:
    """Schedules of a process that dies before what came of an instant is written down."""

    def __init__(self, real: Schedules) -> None:
        self.add, self.schedules, self.begun = real.add, real.schedules, real.begun

    async def came(self, schedule: Schedule) -> bool:
        raise Died(schedule.id)


def dying(parts: Parts) -> Parts:
    mortal: Any = Mortal(parts.schedules)
    return replace(parts, schedules=mortal)


async def until_next(app, clock: ManualClock) -> None:
    """Let the next instant come, with nobody but the test to look at it."""
    schedule, *_ = await app.schedules.listed()
    clock.advance((schedule.next_us - clock.now_us()) / SECOND_US)


async def test_a_pause_while_an_instant_is_started_stays(project):
    clock = ManualClock()
    async with opened(project, clock=clock, is_worker=False) as app:
        made = await app.schedules.add({"source": "1", "inputs": {}}, by="me", cron="0 * * * *")
        await until_next(app, clock)
        app.schedules._app = Meanwhile(app, partial(app.schedules.pause, made.id, by="ana", reason="month end"))
        await app.schedules._look()
        (left,) = await app.schedules.listed()
        assert left.paused == "month end"
        assert left.started == 1


async def test_what_was_paused_while_others_were_started_is_not_started(project):
    clock = ManualClock()
    async with opened(project, clock=clock, is_worker=False) as app:
        for name in ("first", "second"):
            await app.schedules.add({"source": "1", "inputs": {}}, by="me", cron="0 * * * *", name=name)
        first, second = await app.schedules.listed()
        await until_next(app, clock)
        app.schedules._app = Meanwhile(app, partial(app.schedules.pause, second.id, by="ana"))
        await app.schedules._look()
        (run,) = await app.runs(Page())
        assert run.name == first.name


async def test_nobody_takes_the_key_of_an_instant(project):
    clock = ManualClock()
    async with opened(project, clock=clock, is_worker=False) as app:
        made = await app.schedules.add({"source": "1", "inputs": {}}, by="me", cron="0 * * * *")
        for key in (started_as(made, made.next_us or 0), f"schedule {made.id} 9x"):
            status, said = await asked(app, "POST", "/v1/runs", json.dumps({"source": "2", "dedup": key}).encode())
            assert (status, said["error"]["type"]) == (400, "UsageError")
        await until_next(app, clock)
        await app.schedules._look()
        (left,) = await app.schedules.listed()
        assert left.started == 1


@pytest.mark.claim("C1.once")
@pytest.mark.parametrize("down_s", [0, 90, 2 * HOUR])
async def test_a_run_that_was_begun_before_a_death_is_known_after_it(project, down_s):
    clock = ManualClock()
    async with opened(project, clock=clock, is_worker=False, wrap=dying) as app:
        made = await app.schedules.add(WAITS, by="me", cron="0 * * * *")
        await until_next(app, clock)
        with pytest.raises(Died):
            await app.schedules._look()
    clock.advance(down_s)
    async with opened(project, clock=clock, is_worker=False) as app:
        await app.schedules._look()
        (left,) = await app.schedules.listed()
        (run,) = await app.runs(Page())
        assert (left.started, left.last_run, left.last_us) == (1, run.run_id, made.next_us)
        assert left.missed + left.skipped == down_s // HOUR


async def test_a_fault_of_the_moment_pauses_nothing_and_the_instant_is_started_after_it(project):
    clock, faults = ManualClock(), ["an interpreter worker ended"]

    async def fail() -> None:
        if faults:
            raise WorkerCrashed(faults.pop())

    async with opened(project, clock=clock, is_worker=False) as app:
        await app.schedules.add({"source": "1", "inputs": {}}, by="me", cron="0 * * * *")
        await until_next(app, clock)
        app.schedules._app = Meanwhile(app, fail)
        again_us = await app.schedules._look()
        assert again_us > clock.now_us()
        clock.advance((again_us - clock.now_us()) / SECOND_US)
        await app.schedules._look()
        (left,) = await app.schedules.listed()
        assert (left.started, left.missed, left.paused) == (1, 0, "")


async def test_a_schedule_whose_zone_is_gone_pauses_and_the_others_go_on(project):
    clock = ManualClock()
    async with opened(project, clock=clock, is_worker=False) as app:
        made = await app.schedules.add({"source": "1", "inputs": {}}, by="me", cron="0 * * * *", name="good")
        await app._parts.schedules.add(replace(made, id="s-0", name="bad", zone="Mars/Olympus"))
        await until_next(app, clock)
        await app.schedules._look()
        good, bad = await app.schedules.schedule("good"), await app.schedules.schedule("bad")
        assert (good.started, good.paused) == (1, "")
        assert "Mars/Olympus" in bad.paused
