"""Programs and goals that begin by the calendar: what a schedule is, and which of its instants are started when one has passed.

An instant is started once, whatever happens meanwhile: the run's key is `schedule ID INSTANT`. What passed while nobody served is missed, and
counted: never a storm after downtime.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from overwinter.clock import SECOND_US
from overwinter.frozen import frozen
from overwinter.values import Value

__all__ = [
    "FAILURES_MAX",
    "KEYS",
    "LATE_US",
    "MISSED_MAX",
    "SCHEDULES_MAX",
    "Misfire",
    "Overlap",
    "Passed",
    "Schedule",
    "Schedules",
    "begins",
    "passed",
    "started_as",
]

KEYS = "schedule "
"""What the keys of instants begin with; who could take one would have its instant never start."""
Misfire = Literal["skip", "once"]
"""What becomes of instants that nobody was up for: none is started, or the last of them."""
Overlap = Literal["skip", "allow"]
"""What becomes of an instant at which the run before is still live: it is left out and counted, or started beside it."""
LATE_US = 60 * SECOND_US
"""How late an instant may be started and is not missed: a restart takes a second or two."""
MISSED_MAX = 1_000
"""Instants that are counted one by one; of more it is said that there were so many at least."""
FAILURES_MAX = 5
"""Runs in a row that may fail before their schedule pauses itself."""
SCHEDULES_MAX = 100
"""Of one agent."""


@frozen
class Schedule:
    """One schedule, and how it stands."""

    id: str
    name: str
    agent: str
    start: Mapping[str, Value]
    """What `App.start` is told: `source` and `inputs`, or `goal` and its limits."""
    cron: str = ""
    """Five fields; "": once, at `next_us`."""
    zone: str = "UTC"
    """In which the fields are read, as the IANA database names it."""
    misfire: Misfire = "skip"
    overlap: Overlap = "skip"
    next_us: int | None
    """When it starts next, microseconds UTC; None: never again."""
    paused: str = ""
    """Why it is paused; "": it is not."""
    made_us: int
    by: str
    started: int = 0
    missed: int = 0
    skipped: int = 0
    """Instants that were left out, for the run before was live."""
    failures: int = 0
    """Runs in a row that failed."""
    last_run: str | None = None
    last_us: int | None = None
    """The instant of that run."""


@frozen
class Passed:
    """What an instant that has passed comes to."""

    starts_us: int | None
    """The instant that is started now; None: none."""
    missed: int
    next_us: int | None


def passed(schedule: Schedule, now_us: int, following: Callable[[int], int | None]) -> Passed:
    """Return what the instants up to now come to.

    Args:
        schedule: its `next_us` has come.
        now_us: this instant.
        following: the first instant of the schedule after one; None: there is none.
    """
    assert schedule.next_us is not None, "it never starts again"
    assert schedule.next_us <= now_us, "its instant has not come"
    last, count = schedule.next_us, 1
    after = following(last)
    while after is not None and after <= now_us and count < MISSED_MAX:
        last, count = after, count + 1
        after = following(last)
    if after is not None and after <= now_us:
        last, after = _last(last, now_us, following), following(now_us)
    is_on_time = now_us - last <= LATE_US
    is_started = is_on_time or schedule.misfire == "once"
    return Passed(starts_us=last if is_started else None, missed=count - is_started, next_us=after)


def _last(earlier_us: int, now_us: int, following: Callable[[int], int | None]) -> int:
    """Return the last instant up to now, to the second; it is known that one comes after `earlier_us`."""
    low, high = earlier_us, now_us
    while high - low > SECOND_US:
        middle = (low + high) // 2
        after = following(middle)
        low, high = (middle, high) if after is not None and after <= now_us else (low, middle)
    return following(low) or earlier_us


class Schedules(Protocol):
    """Schedules, durable. Making, pausing and removing one is an entry of the audit log, in its own commit."""

    async def add(self, schedule: Schedule) -> bool:
        """Write one down; False: its agent has `SCHEDULES_MAX`."""
        ...

    async def pause(self, schedule_id: str, why: str, *, by: str) -> bool:
        """Have one start nothing. What becomes of an instant at that moment stays. False: it is gone."""
        ...

    async def resume(self, schedule_id: str, next_us: int, *, by: str) -> bool:
        """Have one start again at an instant, with no failures behind it. False: it is gone."""
        ...

    async def came(self, schedule: Schedule) -> bool:
        """Write down what an instant came to; a pause that somebody asked for meanwhile stays. False: it is gone."""
        ...

    async def begun(self, schedule: Schedule) -> tuple[str, int] | None:
        """Return the last run that was begun for `next_us` or later, and its instant: `came` was not written down then."""
        ...

    async def remove(self, schedule_id: str, *, by: str) -> bool:
        """Remove one. False: there is none."""
        ...

    async def schedules(self, schedule_id: str | None = None) -> Sequence[Schedule]:
        """Return all, those first that start first; or the one with an id, if it is there."""
        ...


def started_as(schedule: Schedule, instant_us: int) -> str:
    """Return the key under which an instant is started, once."""
    return f"{KEYS}{schedule.id} {instant_us}"


def begins(schedule: Schedule) -> dict[str, Any]:
    """Return what `App.start` is told of a schedule."""
    return {**schedule.start, "agent": schedule.agent, "name": schedule.name, "by": f"schedule {schedule.id}"}
