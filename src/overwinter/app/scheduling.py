"""Starts what is due by the calendar: each instant once, late ones as their schedule says, and none for ever in vain."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import anyio

from overwinter.adapters.cron import following, local
from overwinter.app.parts import Parts
from overwinter.clock import SECOND_US
from overwinter.errors import (
    CheckFailed,
    Conflict,
    HomeError,
    JailUnavailable,
    NotFound,
    OverwinterError,
    UsageError,
    WorkerCrashed,
)
from overwinter.events import Status
from overwinter.frozen import replace
from overwinter.schedule import FAILURES_MAX, SCHEDULES_MAX, Misfire, Overlap, Schedule, begins, passed, started_as
from overwinter.store import RunRecord
from overwinter.values import Value

__all__ = ["Scheduling"]

LOOK_US = 3_600 * SECOND_US
"""How long it sleeps at most; a clock that was set is noticed then."""
TAIL_MIN = 4
RETRY_US = 5 * SECOND_US
"""Pause before a store or a checker that is in trouble is asked again."""


class Starts(Protocol):
    """What of an App it needs."""

    async def start(self, source: str | None = None, **start: Any) -> str:  # noqa: ANN401 - see `App.start`
        """See `App.start`."""
        ...

    async def check_start(self, start: Mapping[str, Any], agent: str) -> None:
        """Raise what `start` would, and begin nothing."""
        ...


class Scheduling:
    """The schedules of a home."""

    def __init__(self, parts: Parts, app: Starts) -> None:
        self._schedules, self._store, self._clock, self._ids, self._app = (
            parts.schedules, parts.store, parts.clock, parts.ids, app,
        )  # fmt: skip
        self._changed = anyio.Event()

    async def add(  # noqa: PLR0913 - all that a schedule is made of
        self,
        start: Mapping[str, Value],
        *,
        by: str,
        agent: str = "default",
        name: str = "",
        cron: str = "",
        at: str = "",
        zone: str = "UTC",
        misfire: Misfire = "skip",
        overlap: Overlap = "skip",
    ) -> Schedule:
        """Make a schedule, and return it.

        Args:
            start: what `App.start` is told: `source` and `inputs`, or `goal` and its limits.
            by: who makes it.
            agent: under whose identity its runs act.
            name: for people.
            cron: five fields; or
            at: a local time, once.
            zone: in which both are read.
            misfire: what becomes of instants that nobody was up for.
            overlap: what becomes of an instant at which the run before is live.

        Raises:
            CheckFailed: the program is wrong.
            UsageError: the times are none, in the past, or the agent has too many schedules.
        """
        if bool(cron) == bool(at):
            raise UsageError("a schedule has a cron line or a time, one of the two")
        if misfire not in ("skip", "once") or overlap not in ("skip", "allow"):
            raise UsageError("misfire is 'skip' or 'once', overlap is 'skip' or 'allow'")
        now_us = self._clock.now_us()
        next_us = following(cron, zone, now_us) if cron else local(at, zone)
        if next_us is None or next_us <= now_us:
            raise UsageError(f"{cron or at!r} in {zone} never comes again")
        await self._app.check_start(start, agent)
        schedule = Schedule(
            id=f"s-{self._ids.new()[-10:].lower()}", name=name or "schedule", agent=agent, start=start, cron=cron, zone=zone,
            misfire=misfire, overlap=overlap, next_us=next_us, made_us=now_us, by=by,
        )  # fmt: skip
        if not await self._schedules.add(schedule):
            raise UsageError(f"agent {agent!r} has {SCHEDULES_MAX} schedules, and no more: remove one")
        self._ring()
        return schedule

    async def listed(self) -> Sequence[Schedule]:
        """Return all, those first that start first."""
        return await self._schedules.schedules()

    async def schedule(self, text: str) -> Schedule:
        """Return the schedule that a text names: its id or the end of it, or its name.

        Raises:
            NotFound: there is none, or several.
        """
        found = [
            each
            for each in await self.listed()
            if text in (each.id, each.name) or (len(text) >= TAIL_MIN and each.id.endswith(text.lower()))
        ]
        if len(found) > 1:
            raise NotFound(
                f"{len(found)} schedules are called {text!r}, say which: {', '.join(each.id for each in found)}"
            )
        if not found:
            raise NotFound(f"no schedule is called {text!r}: `overwinter schedule` lists them")
        return found[0]

    async def pause(self, text: str, *, by: str, reason: str = "") -> Schedule:
        """Have a schedule start nothing until it is resumed."""
        schedule = replace(await self.schedule(text), paused=reason or f"paused by {by}")
        await self._schedules.pause(schedule.id, schedule.paused, by=by)
        return schedule

    async def resume(self, text: str, *, by: str) -> Schedule:
        """Have a schedule start again, from now on.

        Raises:
            Conflict: it never starts again.
        """
        schedule = await self.schedule(text)
        now_us = self._clock.now_us()
        next_us = following(schedule.cron, schedule.zone, now_us) if schedule.cron else schedule.next_us
        if next_us is None or next_us <= now_us:
            raise Conflict(f"schedule {schedule.id} was for once, and its time has passed: make a new one")
        await self._schedules.resume(schedule.id, next_us, by=by)
        self._ring()
        return replace(schedule, paused="", failures=0, next_us=next_us)

    async def remove(self, text: str, *, by: str) -> Schedule:
        """Remove a schedule; its runs go on."""
        schedule = await self.schedule(text)
        await self._schedules.remove(schedule.id, by=by)
        return schedule

    async def run_now(self, text: str, *, by: str) -> str:
        """Start what a schedule starts, beside its times; return the run."""
        schedule = await self.schedule(text)
        return await self._app.start(**{**begins(schedule), "by": by})

    # --- By the clock ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start what is due, until cancelled."""
        while True:
            self._changed = anyio.Event()  # before the look: what is added meanwhile rings
            try:
                next_us = await self._look()
            except HomeError:
                next_us = self._clock.now_us() + RETRY_US
            async with anyio.create_task_group() as group:
                group.start_soon(self._ring_at, next_us)
                await self._changed.wait()
                group.cancel_scope.cancel()

    async def _look(self) -> int:
        """Start what is due; return when to look again."""
        now_us = self._clock.now_us()
        next_us = now_us + LOOK_US
        for schedule in await self.listed():
            if schedule.paused or schedule.next_us is None:
                continue
            left = schedule if schedule.next_us > now_us else await self._due(schedule.id, now_us)
            if left is not None and left.next_us is not None and not left.paused:
                next_us = min(next_us, left.next_us)
        return next_us

    async def _due(self, schedule_id: str, now_us: int) -> Schedule | None:
        """Start what has come of a schedule, then write down that it has; None: somebody paused or removed it.

        It is read anew, for starting those before it in the list takes time. Killed in between, it finds the run by its key.
        """
        for schedule in await self._schedules.schedules(schedule_id):
            if schedule.paused or schedule.next_us is None:
                continue
            try:
                left = await self._recalled(schedule)
                if left.next_us is not None and left.next_us <= now_us:
                    left = await self._come(left, now_us)
            except (
                WorkerCrashed,
                JailUnavailable,
            ):  # while the program was checked: nothing is wrong with the schedule
                return replace(schedule, next_us=now_us + RETRY_US)
            except HomeError:
                raise
            except OverwinterError as error:  # it would not start at any other instant either
                left = replace(schedule, paused=_why(error))
            await self._schedules.came(left)
            return left
        return None

    async def _recalled(self, schedule: Schedule) -> Schedule:
        """Return how a schedule stands with the run of which nobody lived to write down that it was begun."""
        begun = await self._schedules.begun(schedule)
        if begun is None:
            return schedule
        run_id, instant_us = begun
        came = passed(replace(schedule, misfire="once"), instant_us, self._following(schedule))
        left = replace(schedule, next_us=came.next_us, missed=schedule.missed + came.missed)
        left = replace(left, failures=_failures(schedule, await self._last(schedule)))
        return replace(left, started=left.started + 1, last_run=run_id, last_us=instant_us)

    async def _come(self, schedule: Schedule, now_us: int) -> Schedule:
        """Start what has come of a schedule, and return how it stands then."""
        came, last = passed(schedule, now_us, self._following(schedule)), await self._last(schedule)
        left = replace(schedule, next_us=came.next_us, missed=schedule.missed + came.missed)
        if came.starts_us is None:
            return left
        left = replace(left, failures=_failures(schedule, last))
        if left.failures >= FAILURES_MAX:
            why = f"its last {left.failures} runs failed: mend it, then `overwinter schedule resume`"
            return replace(left, paused=why)
        if schedule.overlap == "skip" and last is not None and last.status is Status.LIVE:
            return replace(left, skipped=left.skipped + 1)
        return await self._begun(left, came.starts_us)

    async def _last(self, schedule: Schedule) -> RunRecord | None:
        return None if schedule.last_run is None else await self._store.run(schedule.last_run)

    @staticmethod
    def _following(schedule: Schedule) -> Callable[[int], int | None]:
        return partial(following, schedule.cron, schedule.zone) if schedule.cron else lambda _: None

    async def _begun(self, schedule: Schedule, instant_us: int) -> Schedule:
        try:
            run_id = await self._app.start(**begins(schedule), dedup=started_as(schedule, instant_us))
        except UsageError as error:  # refused, as it would be at any other instant
            if isinstance(error, CheckFailed) and any(each.rule == "uncheckable" for each in error.findings):
                raise WorkerCrashed(str(error)) from error
            return replace(schedule, paused=_why(error))
        return replace(schedule, started=schedule.started + 1, last_run=run_id, last_us=instant_us)

    async def _ring_at(self, at_us: int) -> None:
        await self._clock.sleep_until(at_us)
        self._changed.set()

    def _ring(self) -> None:
        self._changed.set()


def _failures(schedule: Schedule, last: RunRecord | None) -> int:
    if last is None or last.status is Status.LIVE:
        return schedule.failures
    is_lost = "goal" in schedule.start and last.status is Status.FINISHED and last.result.get("end") != "done"
    return schedule.failures + 1 if is_lost or last.status in (Status.FAILED, Status.QUARANTINED) else 0


def _why(error: OverwinterError) -> str:
    """Return why a schedule cannot start; of a program that was refused what is wrong with it, not only that it was."""
    first, _, rest = str(error).partition("\n")
    return f"{first}: {rest.splitlines()[0]}" if isinstance(error, CheckFailed) and rest else first
