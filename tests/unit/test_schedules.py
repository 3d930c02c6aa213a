"""Programs that begin by the calendar: each instant once, and no storm after downtime."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import crashing, opened
from models_kit import NOWHERE, config_of, says
from overwinter.adapters.cron import following, local
from overwinter.app.parts import Parts
from overwinter.check import Checker, Finding
from overwinter.clock import SECOND_US
from overwinter.errors import CheckFailed, JailUnavailable, NotFound, UsageError
from overwinter.events import Status
from overwinter.schedule import LATE_US, Schedule, passed
from overwinter.store import Page
from overwinter.testing import CrashPoints, ManualClock, ScriptedModel, faulty_store, idle

pytestmark = pytest.mark.anyio
DAY = 86_400
BERLIN = ZoneInfo("Europe/Berlin")


def us(text: str, zone: ZoneInfo | None = None) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=zone or UTC).timestamp()) * SECOND_US


def dying(points: CrashPoints, parts: Parts) -> Parts:
    return replace(crashing(points)(parts), schedules=faulty_store(parts.schedules, points))


def plain(next_us: int, **more: Any) -> Schedule:
    return Schedule(
        id="s-1", name="n", agent="a", start={}, cron="* * * * *", next_us=next_us, made_us=0, by="me", **more
    )


async def ticks(app, clock: ManualClock, seconds: float, step: float = 60.0) -> None:
    """Let time pass a step at a time, as it does."""
    for _ in range(round(seconds / step)):
        clock.advance(step)
        await settled(app, clock)


async def come(app, clock: ManualClock, times: int) -> None:
    """Let the next instant come, again and again."""
    for _ in range(times):
        (schedule,) = await app.schedules.listed()
        clock.advance((schedule.next_us - clock.now_us()) / SECOND_US)
        await settled(app, clock)


async def settled(app, clock: ManualClock) -> None:
    """Return when everything that is due has been looked at, and what it began has come to rest."""
    with anyio.fail_after(20):
        while any(each.next_us <= clock.now_us() and not each.paused for each in await app.schedules.listed()):  # noqa: ASYNC110 - it is no run
            await anyio.sleep(0.002)
    await idle(app)


# --- Instants --------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C1.zone")
@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        (
            "30 2 * * *",
            "2026-03-28 12:00",
            "2026-03-29 03:00",
        ),  # 02:30 is left out by summer time: the first after the gap
        ("30 2 * * *", "2026-03-29 12:00", "2026-03-30 02:30"),
        ("0 9 * * 1-5", "2026-11-27 09:00", "2026-11-30 09:00"),
        ("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"),
        ("@daily", "2026-11-25 10:00", "2026-11-26 00:00"),
        ("0 12 13 * fri", "2026-11-25 10:00", "2026-11-27 12:00"),  # the 13th, or any Friday
    ],
)
def test_a_cron_line_is_read_in_its_zone(cron, after, expected):
    assert following(cron, "Europe/Berlin", us(after, BERLIN)) == us(expected, BERLIN)


@pytest.mark.claim("C1.zone")
def test_a_local_time_that_comes_twice_counts_once():
    first = following("30 2 * * *", "Europe/Berlin", us("2026-10-24 12:00", BERLIN))
    assert first == us("2026-10-25 00:30")
    assert following("30 2 * * *", "Europe/Berlin", first or 0) == us("2026-10-26 01:30")


@pytest.mark.claim("C1.zone")
@pytest.mark.parametrize("after", ["2026-10-24 22:00", "2026-03-28 22:00"])  # an hour comes twice, an hour is left out
@pytest.mark.parametrize("cron", ["*/30 * * * *", "0,30 * * * *"])
def test_a_line_for_every_hour_goes_by_time_that_passes(cron, after):
    at = us(after)
    for _ in range(10):
        at, before = following(cron, "Europe/Berlin", at) or 0, at
        assert at == before + 1_800 * SECOND_US


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["* * * * *", "*/7 3 * * *", "30 2 * * *", "0 0 1 * *", "15 4 * * 1"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(1_500_000_000, 2_000_000_000),
)
def test_the_instant_after_one_is_after_it_and_nothing_lies_between(cron, zone, second):
    at = following(cron, zone, second * SECOND_US)
    assert at is not None
    assert at > second * SECOND_US
    assert following(cron, zone, at - SECOND_US) == at


@pytest.mark.parametrize(("cron", "zone"), [("* * * *", "UTC"), ("x * * * *", "UTC"), ("61 * * * *", "UTC"), ("* * * * *", "Mars/X"), ("* * * * * *", "UTC"), ("0 0 30 2 *", "/etc")])  # fmt: skip
def test_what_is_no_time_is_refused(cron, zone):
    with pytest.raises(UsageError):
        following(cron, zone, 0)


def test_a_local_time_is_taken_in_its_zone():
    assert local("2026-12-01T09:00", "Europe/Berlin") == us("2026-12-01 08:00")
    with pytest.raises(UsageError):
        local("soon", "UTC")


@pytest.mark.claim("C1.zone")
@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29 01:00"),  # left out: the first after the gap is 03:00
        ("2026-03-29T02:00", "Europe/Berlin", "2026-03-29 01:00"),
        ("2026-03-29T03:00", "Europe/Berlin", "2026-03-29 01:00"),
        ("2026-10-04T02:15", "Australia/Lord_Howe", "2026-10-03 15:30"),  # half an hour is left out there
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25 00:30"),  # twice: the first
        ("2026-03-29T02:30+01:00", "Europe/Berlin", "2026-03-29 01:30"),
    ],
)
def test_a_local_time_that_is_left_out_is_the_first_after_the_gap(text, zone, expected):
    assert local(text, zone) == us(expected)


@pytest.mark.claim("C1.zone")
@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"]),
    st.datetimes(datetime.fromisoformat("2020-01-01"), datetime.fromisoformat("2035-01-01")),
)
def test_a_local_time_is_itself_or_if_it_is_left_out_one_after_it(zone, at):
    at = at.replace(microsecond=0, fold=0)
    instant = datetime.fromtimestamp(local(at.isoformat(), zone) // SECOND_US, UTC).astimezone(ZoneInfo(zone))
    shown = instant.replace(tzinfo=None, fold=0)
    is_left_out = (
        at.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0) != at
    )
    assert (shown > at) if is_left_out else (shown == at)
    assert instant.fold == 0


@pytest.mark.claim("C1.missed")
@pytest.mark.parametrize(("misfire", "late_s"), [("skip", 0), ("skip", 59), ("once", 0), ("once", 1_700)])
def test_the_instant_that_is_started_is_the_last_however_many_were_missed(misfire, late_s):
    half_hour = 1_800 * SECOND_US
    last = 5_000 * half_hour
    came = passed(plain(0, misfire=misfire), last + late_s * SECOND_US, lambda at: (at // half_hour + 1) * half_hour)
    assert (came.starts_us, came.next_us) == (last, last + half_hour)
    assert came.missed == 999


@pytest.mark.claim("C1.missed")
@given(st.integers(0, 3_000), st.integers(0, 59), st.sampled_from(["skip", "once"]))
def test_of_what_was_missed_at_most_one_is_started(minutes, seconds, misfire):
    now = (minutes * 60 + seconds) * SECOND_US
    came = passed(plain(0, misfire=misfire), now, lambda at: at + 60 * SECOND_US)
    assert came.missed + (came.starts_us is not None) == min(minutes + 1, 1_000)
    assert came.next_us is not None
    assert came.next_us > now
    if came.starts_us is not None and misfire == "skip":
        assert now - came.starts_us <= LATE_US


# --- In a home -------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C1.once")
async def test_each_instant_of_two_weeks_is_started_once(project, ledger):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        made = await app.schedules.add({"source": "await shop.pay(cents=1)", "inputs": {}}, by="me", cron="0 0 * * *")
        await come(app, clock, 14)
        runs = await app.runs(Page())
        (left,) = await app.schedules.listed()
        started = [(await app.starter(run.run_id))["by"] for run in runs]
    assert ledger.read_text().splitlines() == ["pay 1"] * left.started
    assert (left.started, left.missed) == (14, 0)
    assert set(started) == {f"schedule {made.id}"}


@pytest.mark.claim("C1.missed")
@pytest.mark.parametrize(("misfire", "started"), [("skip", 0), ("once", 1)])
async def test_after_downtime_there_is_no_storm(project, misfire, started):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        await app.schedules.add({"source": "1", "inputs": {}}, by="me", cron="0 * * * *", misfire=misfire)
        await idle(app)
    clock.advance(3 * DAY + 1_800)
    async with opened(project, clock=clock) as app:
        await settled(app, clock)
        (left,) = await app.schedules.listed()
        assert left.started == started
        assert left.missed + left.started in (72, 73)
        assert (left.next_us or 0) > clock.now_us()


@pytest.mark.claim("C1.once")
async def test_stopped_at_any_point_an_instant_is_started_once(project, ledger):
    del ledger
    crossed = set[str]()
    for crash_at in range(1, 12):
        clock, points, home = ManualClock(), CrashPoints(crash_at), project / f"home-{crash_at}"
        home.mkdir()
        module = (project / "module").read_text()
        (home / "module").write_text(module)
        (home / f"{module}.py").symlink_to(project / f"{module}.py")
        async with opened(home, clock=clock) as app:
            await app.schedules.add({"source": "1", "inputs": {}}, by="me", cron="0 0 * * *")
        async with (
            opened(home, clock=clock, wrap=partial(dying, points), drain_s=0) as app,
            anyio.create_task_group() as group,
        ):

            async def pass_a_day(app=app, clock=clock, points=points) -> None:
                await come(app, clock, 1)
                points.crashed.set()

            group.start_soon(pass_a_day)
            await points.crashed.wait()
            group.cancel_scope.cancel()
        async with opened(home, clock=clock) as app:
            await settled(app, clock)
            (left,) = await app.schedules.listed()
            assert (len(await app.runs(Page())), left.started, left.missed) == (1, 1, 0), points.passed
        crossed.update(points.passed)
    assert {"create.before", "create.after", "came.before", "came.after"} <= crossed


async def test_an_instant_at_which_the_run_before_is_live_is_left_out_and_counted(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        await app.schedules.add({"source": "await tools.receive()", "inputs": {}}, by="me", cron="* * * * *")
        await ticks(app, clock, 300)
        (left,) = await app.schedules.listed()
        assert left.started == 1
        assert left.skipped >= 3


@pytest.mark.claim("C1.breaker")
async def test_a_schedule_whose_runs_all_fail_pauses_itself(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        await app.schedules.add({"source": "1 / 0", "inputs": {}}, by="me", cron="* * * * *")
        await ticks(app, clock, 900)
        (left,) = await app.schedules.listed()
        runs = await app.runs(Page())
        assert {run.status for run in runs} == {Status.FAILED}
        assert len(runs) == 5
        assert "its last 5 runs failed" in left.paused
        resumed = await app.schedules.resume(left.id, by="me")
        assert (resumed.paused, resumed.failures) == ("", 0)


@pytest.mark.claim("C1.breaker")
async def test_a_schedule_whose_goals_all_end_without_an_answer_pauses_itself(project):
    clock = ManualClock()
    model = ScriptedModel(lambda heard: says(str(heard.number)))
    async with opened(project, config=config_of(NOWHERE), models=model, clock=clock) as app:
        await app.schedules.add({"goal": "go on for ever", "inputs": {}, "steps": 1}, by="me", cron="* * * * *")
        await ticks(app, clock, 900)
        (left,) = await app.schedules.listed()
        assert "its last 5 runs failed" in left.paused


@pytest.mark.claim("C1.breaker")
async def test_a_revoked_agent_starts_nothing_by_the_calendar(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        await app.schedules.add({"source": "1", "inputs": {}}, by="me", cron="* * * * *")
        await app.governance.revoke("default", by="lead")
        await ticks(app, clock, 180)
        (left,) = await app.schedules.listed()
        assert not await app.runs(Page())
        assert "revoked" in left.paused


async def test_what_is_wrong_is_refused_when_a_schedule_is_made(project):
    async with opened(project) as app:
        add: Any = app.schedules.add
        with pytest.raises(CheckFailed):
            await add({"source": "await shop.pay(cent=1)", "inputs": {}}, by="me", cron="* * * * *")
        for times in (
            {},
            {"cron": "* * * * *", "at": "2030-01-01T00:00"},
            {"at": "2020-01-01T00:00"},
            {"cron": "* * * * *", "misfire": "all"},
        ):
            with pytest.raises(UsageError):
                await add({"source": "1", "inputs": {}}, by="me", **times)
        with pytest.raises(NotFound):
            await app.schedules.schedule("nothing")
        once = await add({"source": "1", "inputs": {}}, by="me", at="2099-01-01T00:00", name="new year")
        assert (await app.schedules.schedule("new year")).id == once.id
        await app.schedules.pause("new year", by="me", reason="holidays")
        await app.schedules.remove("new year", by="me")
        assert not await app.schedules.listed()
        with pytest.raises(NotFound):
            await app.schedules.resume("new year", by="me")


class Shaken:
    """A checker that cannot tell for a while."""

    def __init__(self, checker: Checker) -> None:
        self.checker, self.faults = checker, list[Finding | Exception]()

    async def check(self, *given: Any, **named: Any) -> Any:
        if not self.faults:
            return await self.checker.check(*given, **named)
        fault = self.faults.pop(0)
        if isinstance(fault, Exception):
            raise fault
        return [fault]


@pytest.mark.parametrize(
    "fault", [Finding(line=1, column=0, rule="uncheckable", message="it died"), JailUnavailable("no room to fork")]
)
async def test_a_schedule_whose_program_cannot_be_checked_at_the_moment_waits_and_is_not_paused(project, fault):
    clock, shaken = ManualClock(), list[Shaken]()

    def wrap(parts: Parts) -> Parts:
        shaken.append(Shaken(parts.checker))
        return replace(parts, checker=shaken[0])

    async with opened(project, clock=clock, wrap=wrap) as app:
        made = await app.schedules.add({"source": "1 + 1"}, by="me", cron="*/5 * * * *")
        shaken[0].faults = [fault]
        clock.set(made.next_us or 0)
        with anyio.fail_after(20):
            while shaken[0].faults or not (left := (await app.schedules.listed())[0]).started:
                clock.advance(1.0)
                await anyio.sleep(0.002)
        assert (left.paused, left.started) == ("", 1)
