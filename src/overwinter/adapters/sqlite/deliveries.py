"""What webhooks are to be told, as rows. A row is written in the commit of the fact that it tells of, by a trigger.

The trigger is of the writing connection alone, made when the home is opened with webhooks: so no path that writes a fact can
forget them, and a home without webhooks pays nothing. A row goes when its receiver has taken it, or with its run, or schedule.
"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import apsw

from overwinter.adapters.sqlite.schema import connect, guarded
from overwinter.adapters.sqlite.writer import Writer, Wrote
from overwinter.ids import from_bytes, to_bytes
from overwinter.webhook import TOPICS, Delivery, Tally

__all__ = ["SqliteDeliveries"]

WAITING, SET_ASIDE = 0, 1
WHY_LENGTH_MAX = 300
_COLUMNS = "webhook, topic, run.id, position, attempt, delivery.not_before, why, schedule"
_TRIGGER = """
drop trigger if exists temp.told; drop table if exists temp.wanted;
create temp table wanted (kind text not null, webhook text not null, topic text not null, primary key (kind, webhook)) without rowid;
create temp trigger told after insert on main.journal when exists (select 1 from wanted where kind = new.kind) begin
    insert or ignore into delivery (webhook, topic, n, position)
        select webhook, topic, new.n, new.position from wanted where kind = new.kind;
end;
"""
# Only what an instant comes to changes `started`: who pauses one knows it. The position must be new for ever, for it names the message.
_PAUSES = """
drop trigger if exists temp.told_pause;
create temp trigger told_pause after update of started on main.schedule when new.paused <> '' and old.paused = '' begin
    delete from delivery where schedule = new.id;
    insert into delivery (webhook, topic, n, position, schedule)
        select webhook, topic, 0, max(cast(unixepoch('subsec') * 1000000 as integer),
            (select coalesce(max(position), 0) + 1 from delivery where n = 0)), new.id from wanted where kind = 'schedule.paused';
end;
"""


class SqliteDeliveries:
    """The open deliveries of a home, in the store's file."""

    def __init__(self, path: Path, writer: Writer, reading: apsw.Connection) -> None:
        self._path, self._writer, self._reading = path, writer, reading
        self._is_told = False
        self.rung = anyio.Event()
        """Set when something may have come; then it is another one. Take it before looking."""

    def ring(self) -> None:
        """Say that something may have come."""
        if self._is_told:
            self.rung.set()
            self.rung = anyio.Event()

    async def subscribe(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Have each webhook told of its topics from now on.

        Args:
            wanted: names of webhooks, each with a topic.
        """
        rows = [(kind, webhook, topic) for webhook, topic in wanted for kind in TOPICS[topic] or (topic,)]
        if not rows:
            return

        def act(db: apsw.Connection) -> Wrote[None]:
            db.execute(_TRIGGER + _PAUSES)
            db.executemany("insert or ignore into wanted values (?, ?, ?)", rows)
            return Wrote(None)

        await self._writer.submit(act)
        self._is_told = True

    def due(self, webhook: str, now_us: int, limit: int) -> Sequence[Delivery]:
        """Return what is to be sent now, what waits longest first."""
        sql = f"""select {_COLUMNS} from delivery left join run using (n)
            where webhook = ? and coalesce(schedule, run.id) is not null and delivery.state = 0 and delivery.not_before <= ? order by delivery.not_before, n, position limit ?"""
        with guarded(self._path):
            return [_delivery(row) for row in self._reading.execute(sql, (webhook, now_us, limit))]

    def next_us(self, webhook: str) -> int | None:
        """Return when the next one is to be sent; None: nothing waits."""
        with guarded(self._path):
            sql = "select min(not_before) from delivery where webhook = ? and state = 0"
            ((found,),) = self._reading.execute(sql, (webhook,))
            return found

    async def settle(self, delivery: Delivery, why: str | None, not_before_us: int | None) -> None:
        """Write down what an attempt came to.

        Args:
            delivery: as it was.
            why: it failed; None: it was taken, and the row goes.
            not_before_us: when it is tried again; None: it is set aside.
        """
        run_id = to_bytes(delivery.run_id) if delivery.run_id else None
        key = (delivery.webhook, run_id, delivery.position)
        where = "where webhook = ?1 and n = coalesce((select n from run where id = ?2), 0) and position = ?3"

        def act(db: apsw.Connection) -> Wrote[None]:
            if why is None:
                db.execute(f"delete from delivery {where}", key)
            else:
                state = SET_ASIDE if not_before_us is None else WAITING
                sql = f"update delivery set attempt = attempt + 1, state = ?4, not_before = ?5, why = ?6 {where}"
                db.execute(sql, (*key, state, not_before_us or 0, why[:WHY_LENGTH_MAX]))
            return Wrote(None)

        await self._writer.submit(act, is_short=True)

    async def again(self, webhook: str) -> int:
        """Have what waits for its next attempt, or was set aside, sent now; return how many that are."""

        def act(db: apsw.Connection) -> Wrote[int]:
            db.execute("update delivery set state = 0, attempt = 0, not_before = 0 where webhook = ?", (webhook,))
            return Wrote(db.changes())

        found = await self._writer.submit(act)
        self.ring()
        return found

    async def tallies(self) -> Sequence[Tally]:
        """Return how many deliveries of each webhook are open."""
        sql = """select webhook, sum(state = 0), sum(state = 1), coalesce((
            select why from delivery as last where last.webhook = delivery.webhook and why <> '' order by n desc, position desc limit 1), '')
            from delivery group by webhook"""

        def read() -> list[Tally]:
            with closing(connect(self._path, is_writer=False)) as db, guarded(self._path):
                return [
                    Tally(webhook=name, waiting=open_, set_aside=aside, why=why)
                    for name, open_, aside, why in db.execute(sql)
                ]

        return await anyio.to_thread.run_sync(read)


def _delivery(row: tuple[Any, ...]) -> Delivery:
    return Delivery(
        webhook=row[0],
        topic=row[1],
        run_id="" if row[2] is None else from_bytes(row[2]),
        position=row[3],
        attempt=row[4],
        not_before_us=row[5],
        why=row[6],
        schedule=row[7] or "",
    )
