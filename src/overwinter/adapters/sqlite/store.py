"""The Store contract on SQLite."""

import json
from collections.abc import AsyncGenerator, Callable, Collection, Container, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import apsw

from overwinter import values
from overwinter.adapters.sqlite import audited, family, gates, rows, starts, voting
from overwinter.adapters.sqlite.audit_keeping import AuditKeeping
from overwinter.adapters.sqlite.audit_log import AuditLog, Sealing, refuse_lost, sealing
from overwinter.adapters.sqlite.chains import Chains
from overwinter.adapters.sqlite.collecting import collect, sweep
from overwinter.adapters.sqlite.deliveries import SqliteDeliveries
from overwinter.adapters.sqlite.registry import SqliteRegistry
from overwinter.adapters.sqlite.requests import SqliteRequests
from overwinter.adapters.sqlite.schedules import SqliteSchedules
from overwinter.adapters.sqlite.schema import connect, guarded, make, migrate
from overwinter.adapters.sqlite.tokens import SqliteTokens
from overwinter.adapters.sqlite.voting import Ballot
from overwinter.adapters.sqlite.watching import Watching
from overwinter.adapters.sqlite.writer import Job, Writer, Wrote
from overwinter.approval import Gate, Vote
from overwinter.clock import DAY_US, Clock
from overwinter.errors import OverwinterError, UsageError
from overwinter.events import Answer, Call, CallState, Event, Returned, Status
from overwinter.frozen import replace
from overwinter.ids import Ids, from_bytes, to_bytes
from overwinter.lineage import SPAWNS
from overwinter.snapshot import key_id
from overwinter.store import (
    FILE_PARTS,
    MAIL_PENDING_MAX,
    MESSAGE_BYTES_MAX,
    After,
    CallRecord,
    Collected,
    Created,
    Draft,
    Inherited,
    Lease,
    Loaded,
    NewRun,
    Page,
    Ready,
    RunRecord,
    Sent,
    Turn,
    Verdict,
    Voted,
)  # fmt: skip
from overwinter.values import Value

__all__ = ["DEDUP_DAYS", "SqliteStore", "open_store"]

SHARD = 0
DEDUP_DAYS = 30
"""How long a `dedup` key of a start is remembered; that of a message, as long as its run."""
PROGRAMS_REMEMBERED = 1_000
COLLECT_GROUP_MAX = 200
"""Runs deleted in one commit: 10,000 in one would hold every other write up for 0.2 s."""
INLINE_EVENTS_MAX = 50
"""Events read on the event loop, 6 us each; more are left to a thread."""

T = TypeVar("T")


@asynccontextmanager
async def open_store(path: Path, clock: Clock, ids: Ids, *, key: bytes) -> "AsyncGenerator[SqliteStore]":
    """Open the store in a file, made if it is missing, until the block is left.

    Raises:
        HomeError: see `errors`: too new, damaged, full, or sealed with another key.
    """
    refuse_lost(path)
    make(path, to_bytes(ids.new()), key_id(key))
    writing = connect(path, is_writer=True)
    with closing(writing):
        epoch = migrate(writing, path, key_id(key))
        with closing(connect(path, is_writer=False)) as reading, closing(sealing(writing, clock, path)) as seal:
            store = SqliteStore(path, writing, reading, clock, ids, epoch, seal, key)
            try:
                yield store
            finally:
                await store.close()


class SqliteStore:
    """Reads of one run happen on the event loop: by primary key they take 10-50 us, a thread hop takes as long.

    Lists and journals go to a thread, each on a connection of its own.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - made by `open_store` alone
        self, path: Path, writing: apsw.Connection, reading: apsw.Connection, clock: Clock, ids: Ids, epoch: int, seal: Sealing,
        key: bytes,
    ) -> None:  # fmt: skip
        self._path = path
        self._reading = reading
        self._clock = clock
        self._ids = ids
        self._epoch = epoch
        self._writer = Writer(writing, path, seal, self._tell)
        self.registry = SqliteRegistry(path, self._writer, reading, clock, ids)
        """Who may act, in the same file."""
        self.tokens = SqliteTokens(path, self._writer, reading, clock)
        """Who may ask from elsewhere, in the same file."""
        self.audit = AuditLog(path=path, key=seal.public, fault=seal.fault)
        """What was done, in the same commits."""
        self.audit_keeping = AuditKeeping(path, self._writer, seal)
        self.deliveries = SqliteDeliveries(path, self._writer, reading)
        """What webhooks are to be told, in the same commits."""
        self.schedules = SqliteSchedules(path, self._writer, reading)
        """What begins by the calendar, in the same file."""
        self.requests = SqliteRequests(self._writer, clock, key)
        """What was asked under keys, in the same file."""
        self._watching = Watching(self._one, self.registry.changed)
        self._chains = Chains(reading)
        self._source = lru_cache(PROGRAMS_REMEMBERED)(self._read_source)

    # --- Leases and wake-ups -----------------------------------------------------------------------------------------

    async def claim(self) -> Sequence[Lease]:
        """Return the one lease of this file; its epoch was taken when the file was opened."""
        return (Lease(shard=SHARD, epoch=self._epoch),)

    async def woken(self) -> frozenset[str]:
        """Wait until runs may have become ready; return them."""
        return await self._watching.woken()

    async def ended(self) -> frozenset[str]:
        """Wait until runs were ended by commits about others; return them."""
        return await self._watching.ended()

    async def watch(self, run_id: str, since: int) -> None:
        """Return when the run's journal has an event at position `since`, or the run goes on no more."""
        await self._watching.watch(run_id, since)

    async def over(self, run_id: str) -> None:
        """Return when the run goes on no more."""
        await self._watching.over(run_id)

    def _tell(self, group: list[Job]) -> None:
        self.deliveries.ring()
        self._watching.tell(group)

    # --- Turns -------------------------------------------------------------------------------------------------------

    async def create(self, run: NewRun, *, dedup: str | None = None) -> Created:
        """Add a run with its program, its inputs and its `created` event."""
        start = starts.Start.of(run)

        def act(db: apsw.Connection) -> Wrote[Any]:
            now = self._clock.now_us()
            if (refused := starts.refused(db, run, now)) is not None:
                return Wrote(refused)
            if dedup is not None:
                for (earlier,) in db.execute("select run from started where dedup = ?", (dedup,)):
                    return Wrote(Created(run_id=from_bytes(earlier), is_new=False))
                db.execute("insert into started values (?, ?, ?)", (dedup, to_bytes(run.run_id), now))
            return starts.put(db, start, now)

        created: Created | OverwinterError = await self._writer.submit(act)
        if isinstance(created, OverwinterError):
            raise created
        return created

    async def draft(self, run: NewRun) -> Draft | None:
        """Return a run as its first turn would find it, if it were created."""
        inherited = None if run.after is None else await self.inherited(run.after)
        if run.after is not None and inherited is None:
            return None
        with guarded(self._path):
            loaded = starts.drafted(self._reading, run, inherited)
        return None if loaded is None else Draft(run=run, loaded=loaded)

    async def inherited(self, run_id: str) -> Inherited | None:
        """Return what a run would begin with that goes on from this one."""
        with guarded(self._path):
            return self._chains.after(run_id)

    async def descendants(self, run_id: str) -> Sequence[str]:
        """Return the runs below one that have not ended."""
        with guarded(self._path):
            return family.descendants(self._reading, run_id)

    async def ready(self, leases: Sequence[Lease], limit: int, *, since_us: int = 0) -> Ready:
        """Return ready runs and the next instant at which time makes one ready."""
        if not leases:
            return Ready(run_ids=(), next_due_us=None)
        now = self._clock.now_us()
        with guarded(self._path):
            sql, since = (rows.READY_SINCE, (since_us,)) if since_us else (rows.READY, ())
            found = [from_bytes(each) for (each,) in self._reading.execute(sql, (now, now, max(0, limit), *since))]
            (next_due,) = next(self._reading.execute(rows.NEXT_DUE, (now,)))
        return Ready(run_ids=found, next_due_us=next_due)

    async def load(self, run_id: str) -> Loaded | None:
        """Return a live run for a turn."""
        with guarded(self._path):
            return rows.loaded(self._reading, run_id, self._clock.now_us(), self._source, self._chains.inherited)

    async def commit(self, turn: Turn, *, can_wait: bool = False) -> Verdict:
        """Apply a turn, or say why not."""
        batch = rows.Prepared.of(turn)
        start = None if turn.draft is None else starts.Start.of(turn.draft.run)

        def act(db: apsw.Connection) -> Wrote[Verdict]:
            now = self._clock.now_us()
            row = rows.run_row(db, turn.run_id)
            made: Wrote[Created] | Verdict | None = None
            if row is None and start is not None:
                made = starts.begun(db, start, turn, now)
                if isinstance(made, Verdict):
                    return Wrote(made)
                row = rows.run_row(db, turn.run_id)
            verdict = rows.verdict(row, turn)
            if row is None or verdict is not Verdict.COMMITTED:
                return Wrote(verdict)
            has_mail, closed, left = rows.apply(db, row, turn, batch, now, self._ids)
            entries = audited.turn(row, turn, batch.events, closed) + audited.facts(row, turn.run_id, left)
            goes_on = turn.status is Status.LIVE
            wrote = Wrote(Verdict.COMMITTED, grown=turn.run_id, is_woken=has_mail, goes_on=goes_on, audited=entries)
            others: Sequence[family.Concerned] = ()
            if turn.status is not Status.LIVE:
                others = family.ended(
                    db, row, turn.run_id, turn.status, batch.result, now, self._ids, is_kept=turn.snapshot is not None
                )
            elif not SPAWNS.isdisjoint(closed.values()):
                others = list(family.cut(db, row.n, turn.run_id, closed, now))
            return family.told(wrote, others, made)

        is_short = batch.is_short and (start is None or start.is_short)
        return await self._writer.submit(act, can_wait=can_wait, is_short=is_short)

    async def stumble(self, run_id: str, lease: Lease, *, not_before_us: int, is_final: bool, event: Event) -> bool:
        """Count a failed turn; if final, quarantine the run, or end it if a call waits for it."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            now = self._clock.now_us()
            row = rows.run_row(db, run_id)
            if row is None or row.status is not Status.LIVE or not row.is_held(lease.epoch):
                return Wrote(result=False)
            wrote = Wrote(result=True, grown=run_id, audited=audited.facts(row, run_id, (event,)))
            if is_final and row.is_child:
                return family.told(wrote, family.given_up(db, row, run_id, event, now, self._ids))
            sql = "update run set failures = failures + 1, not_before = ?, status = ?, result = ?, changed = ? where n = ?"
            status = (Status.QUARANTINED, values.encode(dict(event.body))) if is_final else (Status.LIVE, None)
            db.execute(sql, (not_before_us, *status, now, row.n))
            rows.append_to(db, row, lease.epoch, now, (event,))
            return wrote

        return await self._writer.submit(act)

    async def release(self, run_id: str, event: Event, *, dedup: str | None = None) -> bool:
        """Make a quarantined run live again."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            row = rows.run_row(db, run_id)
            if row is not None and rows.has_seen(db, row.n, dedup):
                return Wrote(result=True)
            if row is None or row.status is not Status.QUARANTINED:
                return Wrote(result=False)
            rows.see(db, row.n, dedup, self._clock.now_us())
            db.execute("update run set failures = 0, not_before = 0, status = 0, result = null where n = ?", (row.n,))
            rows.append_to(db, row, row.epoch, self._clock.now_us(), (event,))
            return Wrote(result=True, grown=run_id, is_woken=True, audited=audited.facts(row, run_id, (event,)))

        return await self._writer.submit(act)

    async def end(
        self, run_id: str, status: Status, event: Event, *, dedup: str | None = None, is_first: bool = False
    ) -> bool:
        """End a live or quarantined run from outside."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            row, now = rows.run_row(db, run_id), self._clock.now_us()
            if row is not None and rows.has_seen(db, row.n, dedup):
                return Wrote(result=True)
            if row is None or row.status not in (Status.LIVE, Status.QUARANTINED):
                return Wrote(result=False)
            rows.see(db, row.n, dedup, now)
            events = (*rows.left(db, row.n), event)
            rows.append_to(db, row, row.epoch, now, events)
            result = values.encode(dict(event.body))
            rows.close_run(db, row.n, status, result, now)
            wrote = Wrote(result=True, grown=run_id, audited=audited.facts(row, run_id, events))
            return family.told(wrote, family.ended(db, row, run_id, status, result, now, self._ids))

        return await (self._writer.submit_first(act) if is_first else self._writer.submit(act))

    # --- Mail and effects --------------------------------------------------------------------------------------------

    async def send(self, run_id: str, message: Value, *, dedup: str | None = None, by: str = "") -> Sent:
        """Add a message to a run's mail."""
        body = rows.encode_answer(Returned(value=message))
        if len(body) > MESSAGE_BYTES_MAX:
            raise UsageError(
                f"the message has {len(body)} bytes, at most {MESSAGE_BYTES_MAX} may be sent: send a reference"
            )

        def act(db: apsw.Connection) -> Wrote[Sent]:
            now = self._clock.now_us()
            row = rows.run_row(db, run_id)
            if row is not None and rows.has_seen(db, row.n, dedup):
                return Wrote(Sent.DUPLICATE)
            if row is None or row.status not in (Status.LIVE, Status.QUARANTINED):
                return Wrote(Sent.GONE)
            if not row.is_active:
                return Wrote(Sent.REVOKED)
            ((pending,),) = db.execute("select count(*) from mail where n = ? and position is null", (row.n,))
            if pending >= MAIL_PENDING_MAX:
                return Wrote(Sent.FULL)
            rows.see(db, row.n, dedup, now)
            mail_id = self._ids.new()
            rows.post(db, row.n, mail_id, None, body, now)
            event = Event(kind="message", body={"id": mail_id, "value": message, **({"by": by} if by else {})})
            rows.append_to(db, row, row.epoch, now, (event,))
            entries = audited.facts(row, run_id, (event,))
            return Wrote(Sent.SENT, grown=run_id, is_woken=row.is_listening, audited=entries)

        return await self._writer.submit(act)

    async def performable(
        self, leases: Sequence[Lease], limit: int, *, since_us: int = 0, besides: Container[tuple[str, int]] = ()
    ) -> Sequence[CallRecord]:
        """Return calls that are to be performed now, and writes whose start an earlier epoch left behind."""
        if not leases or limit <= 0:
            return ()
        with guarded(self._path):
            bound = self._clock.now_us(), since_us or -1, leases[0].epoch
            return rows.performable(self._reading, bound, limit, besides)

    async def start(self, call: Call, lease: Lease) -> bool:
        """Mark a write as about to leave."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            row = rows.run_row(db, call.run_id)
            if row is None or row.status is not Status.LIVE or not row.is_held(lease.epoch) or not row.is_active:
                return Wrote(result=False)
            marked = list(
                db.execute(
                    "update call set state = 1, attempt = attempt + 1, epoch = ? where n = ? and position = ? and state = 0 "
                    f"and not {gates.IS_CLOSED} returning attempt",
                    (lease.epoch, row.n, call.index),
                )
            )
            if not marked:
                return Wrote(result=False)
            event = Event(
                kind="started", body={"index": call.index, "function": call.function, "attempt": marked[0][0]}
            )
            rows.append_to(db, row, lease.epoch, self._clock.now_us(), (event,))
            return Wrote(result=True, grown=call.run_id)

        return await self._writer.submit(act, is_short=True)

    async def finish(self, run_id: str, index: int, answer: Answer, event: Event, *, dedup: str | None = None) -> bool:
        """Bring a call's answer, once."""
        body = rows.encode_answer(answer)

        def act(db: apsw.Connection) -> Wrote[bool]:
            row = rows.run_row(db, run_id)
            if row is None:
                return Wrote(result=False)
            if rows.has_seen(db, row.n, dedup):
                return Wrote(result=True)
            function, now = rows.finished(db, row.n, index), self._clock.now_us()
            if function is None:
                return family.late(db, row, run_id, index, event, now)
            rows.see(db, row.n, dedup, now)
            rows.post(db, row.n, self._ids.new(), index, body, now)
            rows.append_to(db, row, row.epoch, now, (event,))
            entries = audited.facts(row, run_id, (event,), function=function)
            return Wrote(result=True, grown=run_id, is_woken=True, audited=entries)

        return await self._writer.submit(act, is_short=len(body) <= rows.SHORT_BYTES_MAX)

    async def keep(self, run_id: str, index: int, part: int, body: bytes) -> bool:
        """Keep a part of what an open call brought."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            row = rows.run_row(db, run_id)
            if row is None or not rows.is_open(db, row.n, index):
                return Wrote(result=False)
            if part % FILE_PARTS == 0:
                after = "delete from kept where n = ? and position = ? and part >= ? and part < ?"
                db.execute(after, (row.n, index, part, part + FILE_PARTS))
            db.execute("insert or replace into kept values (?, ?, ?, ?)", (row.n, index, part, body))
            return Wrote(result=True)

        return await self._writer.submit(act)

    async def kept(self, run_id: str, index: int, part: int) -> bytes | None:
        """Return a part of what was kept for a call."""
        sql = "select body from kept join run using (n) where run.id = ? and position = ? and part = ?"
        row = self._one(sql, to_bytes(run_id), index, part)
        return None if row is None else bytes(row[0])

    async def postpone(  # noqa: PLR0913 - as in the Protocol
        self,
        call: Call,
        lease: Lease,
        *,
        not_before_us: int,
        event: Event,
        more: Value = None,
        person: str | None = None,
        dedup: str | None = None,
    ) -> bool:
        """Set a call back, to be tried again."""
        left = None if more is None else values.encode(more)

        def act(db: apsw.Connection) -> Wrote[bool]:
            row = rows.run_row(db, call.run_id)
            if row is None or row.status is not Status.LIVE or not row.is_held(lease.epoch) or not row.is_active:
                return Wrote(result=False)
            if rows.has_seen(db, row.n, dedup):
                return Wrote(result=True)
            gates.spend(db, row.n, call.index)
            counted = 0 if call.effect == "write" else 1  # a write's attempts are counted when they start
            db.execute(
                "update call set state = 0, person = ?2, not_before = ?3, more = coalesce(?1, more), "
                "attempt = iif(?1 is null, attempt + ?4, 0) where n = ?5 and position = ?6 and state <> 2",
                (left, person, not_before_us, counted, row.n, call.index),
            )
            if not db.changes():
                return Wrote(result=False)
            rows.see(db, row.n, dedup, self._clock.now_us())
            rows.append_to(db, row, lease.epoch, self._clock.now_us(), (event,))
            return Wrote(result=True, grown=call.run_id, audited=audited.facts(row, call.run_id, (event,)))

        return await self._writer.submit(act)

    async def gate(self, call: Call, lease: Lease, gate: Gate, event: Event) -> bool:
        """Have an INTENDED call wait for approval."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            row = rows.run_row(db, call.run_id)
            if row is None or row.status is not Status.LIVE or not row.is_held(lease.epoch) or not row.is_active:
                return Wrote(result=False)
            if not gates.close(db, row.n, call.index, gate):
                return Wrote(result=False)
            rows.append_to(db, row, lease.epoch, self._clock.now_us(), (event,))
            return Wrote(result=True, grown=call.run_id)

        return await self._writer.submit(act)

    async def vote(self, call: Call, digest: bytes, vote: Vote, answer: Answer, *, dedup: str | None = None) -> Voted:
        """Count what a person says of a gated call."""
        body = rows.encode_answer(answer)

        def act(db: apsw.Connection) -> Wrote[Voted]:
            now = self._clock.now_us()
            ballot = Ballot(call, digest, replace(vote, at_us=now), dedup, answer, body, self._ids.new())
            return voting.count(db, ballot, now)

        return await self._writer.submit(act)

    async def has_seen(self, run_id: str, dedup: str) -> bool:
        """Whether something came for a run under this key."""
        return self._one(rows.SEEN, to_bytes(run_id), dedup) is not None

    async def park(self, call: Call, *, person: str, event: Event) -> bool:
        """Mark a write's outcome unknown, and ask a person."""

        def act(db: apsw.Connection) -> Wrote[bool]:
            row = rows.run_row(db, call.run_id)
            if row is None:
                return Wrote(result=False)
            db.execute(
                "update call set state = 3, person = ? where n = ? and position = ? and state in (0, 1)",
                (person, row.n, call.index),
            )
            if not db.changes():
                return Wrote(result=False)
            rows.append_to(db, row, row.epoch, self._clock.now_us(), (event,))
            return Wrote(result=True, grown=call.run_id, audited=audited.facts(row, call.run_id, (event,)))

        return await self._writer.submit(act)

    # --- Looking -----------------------------------------------------------------------------------------------------

    async def run(self, run_id: str) -> RunRecord | None:
        """Return one run."""
        with guarded(self._path):
            found = self._reading.execute(f"{rows.RUNS} where run.id = ?", (self._clock.now_us(), to_bytes(run_id)))
            return next((rows.run_record(each) for each in found), None)

    async def runs(self, page: Page) -> Sequence[RunRecord]:
        """Return runs, newest first."""
        where, bound = rows.page_filter(page)
        sql = f"{rows.RUNS} where {where} order by run.id desc limit ?"
        bound = (self._clock.now_us(), *bound, page.limit)
        return await self._listed(lambda db: [rows.run_record(each) for each in db.execute(sql, bound)])

    async def find(self, text: str) -> Sequence[str]:
        """Return ids of runs whose id ends with `text`."""
        return await self._listed(lambda db: rows.ids_ending(db, text))

    async def counts(self, agents: Collection[str] | None = None) -> Mapping[Status, int]:
        """Return how many runs stand where: of these agents, or all."""
        wanted = None if agents is None else json.dumps(sorted(agents))
        only = "" if agents is None else "where agent in (select value from json_each(?1))"
        sql = f"select status, count(*) from run {only} group by status"

        def read(db: apsw.Connection) -> dict[Status, int]:
            found = db.execute(sql, () if wanted is None else (wanted,))
            return {Status(status): count for status, count in found}

        return await self._listed(read)

    async def calls(self, run_id: str) -> Sequence[CallRecord]:
        """Return a run's open calls, ascending."""
        with guarded(self._path):
            found = self._reading.execute(f"{rows.CALLS} where run.id = ? order by position", (to_bytes(run_id),))
            return [rows.call_record(each) for each in found if each[rows.STATE] != CallState.DONE]

    async def questions(
        self, run_id: str | None = None, *, after: After | None = None, limit: int = 1_000
    ) -> Sequence[CallRecord]:
        """Return open calls that a person must answer, oldest first."""
        sql, bound = rows.asked(run_id, after, limit)
        return await self._listed(lambda db: rows.call_records(db.execute(sql, bound)))

    async def foremost(self, run_ids: Sequence[str]) -> Mapping[str, tuple[CallRecord, int]]:
        """Return of each run the open call that it waits for most, and how many are open."""
        return await self._listed(lambda db: rows.foremost(db, run_ids))

    async def asked(self) -> int:
        """Return how many open calls a person must answer."""
        return (await self._listed(lambda db: next(db.execute(rows.ASKED))))[0]

    async def journal(self, run_id: str, since: int = 0, limit: int = 1_000) -> Sequence[Event]:
        """Return a run's events from position `since` on."""
        with guarded(self._path):
            if min(rows.events_after(self._reading, run_id, since), limit) <= INLINE_EVENTS_MAX:
                return rows.journal(self._reading, run_id, since, limit)
        return await self._listed(lambda db: rows.journal(db, run_id, since, limit))

    async def program(self, digest: str) -> str | None:
        """Return a program's source."""
        row = self._one("select source from program where digest = ?", bytes.fromhex(digest))
        return None if row is None else row[0]

    async def collect(self, ended_before_us: int, *, limit: int = 10_000) -> Collected:
        """Delete runs that ended before an instant, and what nothing refers to any more."""
        runs = events = 0
        while runs < limit:
            share = min(COLLECT_GROUP_MAX, limit - runs)
            part = await self._writer.submit(lambda db, share=share: Wrote(collect(db, ended_before_us, share)))
            runs, events = runs + part.runs, events + part.events
            if part.runs < share:
                break
        dedups_before = self._clock.now_us() - DEDUP_DAYS * DAY_US
        rest = await self._writer.submit(lambda db: Wrote(sweep(db, dedups_before)))
        return Collected(runs=runs, events=events, programs=rest.programs, dedups=rest.dedups)

    async def close(self) -> None:
        """Write what was submitted, and end the writing thread.

        Raises:
            HomeError: the disk did not take it in `CLOSE_S_MAX` seconds.
        """
        await self._writer.close()

    def _one(self, sql: str, *bound: bytes | int | str) -> tuple[Any, ...] | None:
        with guarded(self._path):
            return next(iter(self._reading.execute(sql, bound)), None)

    def _read_source(self, number: int) -> str:
        ((source,),) = self._reading.execute("select source from program where id = ?", (number,))
        return source

    async def _listed(self, read: Callable[[apsw.Connection], T]) -> T:
        """Read a list in a thread, on a connection of its own: it may take milliseconds."""

        def work() -> T:
            with closing(connect(self._path, is_writer=False)) as db, guarded(self._path):
                return read(db)

        return await anyio.to_thread.run_sync(work)
