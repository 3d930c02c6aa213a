"""The Schedules contract on SQLite, in the store's file and its commits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from overwinter import values
from overwinter.adapters.sqlite.writer import Writer, Wrote
from overwinter.audit import Entry, hidden
from overwinter.ids import from_bytes
from overwinter.schedule import SCHEDULES_MAX, Schedule, started_as

__all__ = ["SqliteSchedules"]

TENANT = "home"
_COLUMNS = (
    "id, name, agent, start, cron, zone, misfire, overlap, next, paused, made, by, started, missed, skipped, failures, "
    "last_run, last"
)


class SqliteSchedules:
    """See `schedule.Schedules`."""

    def __init__(self, path: Path, writer: Writer, reading: apsw.Connection) -> None:
        self._path, self._writer, self._reading = path, writer, reading

    async def add(self, schedule: Schedule) -> bool:
        """Write one down; False: its agent has as many as it may."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            ((count,),) = db.execute("select count(*) from schedule where agent = ?", (schedule.agent,))
            if count >= SCHEDULES_MAX:
                return Wrote(result=False)
            row = _row(schedule)
            db.execute(f"insert into schedule ({_COLUMNS}) values ({', '.join('?' * len(row))})", row)
            return Wrote(result=True, audited=[_entry(schedule, schedule.by, "made")])

        return await self._writer.submit(act)

    async def pause(self, schedule_id: str, why: str, *, by: str) -> bool:
        """Have one start nothing."""
        return await self._change(schedule_id, "paused = ?", (why,), by, "paused")

    async def resume(self, schedule_id: str, next_us: int, *, by: str) -> bool:
        """Have one start again."""
        return await self._change(schedule_id, "paused = '', failures = 0, next = ?", (next_us,), by, "resumed")

    async def _change(self, schedule_id: str, what: str, values: tuple[str | int, ...], by: str, reason: str) -> bool:
        """Change only what a person asked for: counters are those of the instants."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            changed = db.execute(
                f"update schedule set {what} where id = ? returning {_COLUMNS}", (*values, schedule_id)
            )
            found = [_schedule(row) for row in changed]
            return Wrote(result=bool(found), audited=[_entry(each, by, reason) for each in found])

        return await self._writer.submit(act)

    async def came(self, schedule: Schedule) -> bool:
        """Write down what an instant came to."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            found = list(db.execute("select paused from schedule where id = ?", (schedule.id,)))
            db.execute(
                "update schedule set next = ?, paused = case when paused = '' then ? else paused end, started = ?, missed = ?, "
                "skipped = ?, failures = ?, last_run = ?, last = ? where id = ?",
                (
                    schedule.next_us, schedule.paused, schedule.started, schedule.missed, schedule.skipped, schedule.failures,
                    schedule.last_run, schedule.last_us, schedule.id,
                ),
            )  # fmt: skip
            has_paused_itself = found == [("",)] and schedule.paused
            entry = _entry(schedule, f"schedule {schedule.id}", schedule.paused)
            return Wrote(result=bool(found), audited=[entry] if has_paused_itself else [])

        return await self._writer.submit(act)

    async def begun(self, schedule: Schedule) -> tuple[str, int] | None:
        """Return the last run that was begun for `next_us` or later."""
        assert schedule.next_us is not None, "it never starts again"
        # Instants of the years 2001 to 2286 have sixteen digits, so their keys sort as they do; ":" follows the digits.
        keys = (started_as(schedule, schedule.next_us), f"{started_as(schedule, 0)[:-1]}:")
        found = self._reading.execute(
            "select dedup, run from started where dedup >= ? and dedup < ? order by dedup desc limit 1", keys
        )
        for dedup, run in found:
            return from_bytes(run), int(dedup.rpartition(" ")[2])
        return None

    async def remove(self, schedule_id: str, *, by: str) -> bool:
        """Remove one."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            gone = [
                _schedule(row)
                for row in db.execute(f"delete from schedule where id = ? returning {_COLUMNS}", (schedule_id,))
            ]
            db.execute("delete from delivery where schedule = ?", (schedule_id,))
            return Wrote(result=bool(gone), audited=[_entry(each, by, "removed") for each in gone])

        return await self._writer.submit(act)

    async def schedules(self, schedule_id: str | None = None) -> Sequence[Schedule]:
        """Return all, those first that start first; or one."""
        found = self._reading.execute(
            f"select {_COLUMNS} from schedule where ?1 is null or id = ?1 order by next is null, next, id",
            (schedule_id,),
        )
        return [_schedule(row) for row in found]


def _row(each: Schedule) -> tuple[Any, ...]:
    return (
        each.id, each.name, each.agent, values.encode(dict(each.start)), each.cron, each.zone, each.misfire, each.overlap, each.next_us,
        each.paused, each.made_us, each.by, each.started, each.missed, each.skipped, each.failures, each.last_run, each.last_us,
    )  # fmt: skip


def _schedule(row: tuple[Any, ...]) -> Schedule:
    return Schedule(
        id=row[0], name=row[1], agent=row[2], start=values.decode(row[3]), cron=row[4], zone=row[5], misfire=row[6], overlap=row[7],
        next_us=row[8], paused=row[9], made_us=row[10], by=row[11], started=row[12], missed=row[13], skipped=row[14],
        failures=row[15], last_run=row[16], last_us=row[17],
    )  # fmt: skip


def _entry(each: Schedule, by: str, what: str) -> Entry:
    body = values.encode({
        "by": by, "what": what, "schedule": each.id, "name": each.name, "cron": each.cron, "zone": each.zone,
        "next_us": each.next_us, "start": dict(each.start),
    })  # fmt: skip
    return Entry(kind="schedule", tenant=TENANT, agent=each.agent, epoch=0, act=(by,), lease=each.id, args=hidden(body))
