"""Rows to values and back: every statement on the tables that is more than a line."""

from collections.abc import Callable, Container, Iterable, Sequence
from itertools import chain
from typing import Any

import apsw

from overwinter import journal as facts
from overwinter import values
from overwinter.adapters.sqlite import gates
from overwinter.events import POLL, Answer, Call, CallState, Effect, Event, Status
from overwinter.frozen import frozen
from overwinter.ids import ID_LENGTH, Ids, from_bytes, to_bytes
from overwinter.store import (
    NEVER_US,
    After,
    CallRecord,
    Inherited,
    Loaded,
    Mail,
    NewCall,
    Page,
    RunRecord,
    Turn,
    Verdict,
)

__all__ = [
"ASKED", "CALLS", "NEXT_DUE", "PERFORMABLE", "READY", "READY_SINCE", "RUNS", "SEEN", "SHORT_BYTES_MAX", "STATE", "Prepared", "RunRow", "append", "append_to", "apply", "asked", "call_record", "call_records", "close_run", "encode_answer", "epoch_held", "events_after", "finished", "foremost", "has_mail", "has_seen", "ids_ending", "is_open", "journal", "left", "left_function", "loaded", "page_filter", "performable", "post", "program_number", "run_record", "run_row", "see", "verdict",
]  # fmt: skip

EFFECTS: tuple[Effect, ...] = ("read", "idempotent", "write", "wait")
ID_BYTES = 16

# Rule 5 of the contract. `first` lets nothing through but mail or a timer for that one call.
_HAS_MAIL = """exists (select 1 from mail where mail.n = run.n and (
    (mail.position is not null and (run.first is null or run.first = mail.position))
    or (mail.position is null and run.receives > 0 and run.first is null)))"""
_IS_DUE = """exists (select 1 from call where call.n = run.n and call.due <= ?1
    and (run.first is null or run.first = call.position))"""
# Rule 9: what an agent's run may do ends with the epoch of the agent.
_IS_ACTIVE = (
    "exists (select 1 from agent where agent.name = run.agent and agent.state = 0 and agent.epoch = run.agent_epoch)"
)
# CROSS JOIN keeps the planner from walking all runs: candidates first, each looked up by its key.
READY = f"""
select id from (
    select n, 0 as since from run where status = 0 and seq = 0
    union all select n, min(sent) from mail group by n
    union all select n, due from call where due <= ?1) cross join run using (n)
where status = 0 and not_before <= ?2 and (seq = 0 or {_HAS_MAIL} or {_IS_DUE}) and {_IS_ACTIVE}
group by n order by min(since), n limit ?3"""
# What time made ready after ?4; all else is told of when it happens.
READY_SINCE = f"""
select id from (
    select n, due as since from call where due > ?4 and due <= ?1
    union all select n, not_before from run where status = 0 and not_before > 0 and not_before > ?4 and not_before <= ?1)
    cross join run using (n)
where status = 0 and not_before <= ?2 and (seq = 0 or {_HAS_MAIL} or {_IS_DUE}) and {_IS_ACTIVE}
group by n order by min(since), n limit ?3"""
# A scalar subquery each: only so is a minimum one step into its index. `not_before > 0` is the condition of the partial
# index, said again because the planner cannot tell it from a parameter; without it every run is looked at.
NEXT_DUE = """
select min(at) from (
    select (select min(due) from call where due > ?1) as at
    union all select (select min(not_before) from call where state = 0 and effect < 3 and not_before > ?1)
    union all select (select min(not_before) from run where status = 0 and not_before > 0 and not_before > ?1))"""
GOES_ON = f"select 1 from run where id = ? and status = 0 and {_IS_ACTIVE}"
RUNS = f"""
select run.id, agent, name, digest, status, seq, events, calls, failures, not_before, created, changed,
    status = 0 and not_before <= ?1 and (seq = 0 or {_HAS_MAIL} or {_IS_DUE}) and {_IS_ACTIVE},
    (select min(due) from call where call.n = run.n), result, (select length(body) from snapshot where snapshot.n = run.n),
    not {_IS_ACTIVE}, (select upper.id from run upper where upper.n = run.parent), run.keeps and status in (1, 2)
from run join program on program.id = run.program"""
CALLS = """
select run.id, call.position, call.state, call.attempt, call.effect, call.function, call.arguments, call.line,
    call.not_before, call.due, call.person, call.made, run.agent, run.name, call.more, run.agent_epoch, gate.digest,
    gate.approver, gate.reason, gate.policies, gate.needed, gate.expires, gate.used,
    iif(gate.digest is null, null, (select json_group_array(json_array(person, yes, reason, at)) from vote
        where vote.n = call.n and vote.position = call.position))
from call join run using (n) left join gate using (n, position)"""
SHORT_BYTES_MAX = 64 << 10
SHORT_CALLS_MAX = 16
"""What a turn may write on the event loop; more is left to the thread that commits."""
INSERTS_MAX = 16
"""Events written by one statement."""
_INSERT_EVENTS = [
    f"insert into journal values {', '.join(['(?, ?, ?, ?, ?, ?)'] * size)}" for size in range(INSERTS_MAX + 1)
]
STATE, ARGUMENTS = 2, 6
"""Columns of `CALLS`."""
LISTED_BYTES_MAX = 16 << 20
"""Arguments listed at once: a thousand calls with a megabyte each, as JSON for people, took the server gigabytes."""
_CALL = f"{CALLS} where call.n = ? and call.position = ?"
PERFORMABLE = f"""
select id, n, position from (
    select run.id, n, call.position from call join run using (n)
    where call.state = 0 and call.effect < 3 and call.not_before <= ?1 and call.not_before > ?2
    and run.status = 0 and {_IS_ACTIVE} order by call.not_before)
union all select run.id, n, call.position from call join run using (n)
where call.state = 1 and call.epoch < ?3 and run.status = 0"""


@frozen(kw_only=False)
class RunRow:
    """What a write must know of a run."""

    n: int
    status: Status
    seq: int
    events: int
    is_listening: bool
    """Whether a message may be received now."""
    has_mail: bool
    epoch: int
    """The file's present one. What is not fenced is written under it: so the epochs of a journal never fall."""
    is_active: bool
    """Whether its agent may act, in the epoch in which the run was made."""
    agent: str
    agent_epoch: int
    owner: str
    is_child: bool
    """Whether its end answers a call of another run."""

    def is_held(self, epoch: int) -> bool:
        """Whether this epoch still is the file's: a later opening has fenced every earlier one."""
        return self.epoch == epoch


@frozen(kw_only=False)
class Prepared:
    """A turn's values as bytes, made before it is written: encoding is most of the work."""

    events: tuple[tuple[str, bytes], ...]
    calls: tuple[tuple[NewCall, bytes], ...]
    answers: tuple[tuple[int, bytes], ...]
    result: bytes | None
    is_short: bool
    """Whether it may be written on the event loop."""

    @classmethod
    def of(cls, turn: Turn) -> "Prepared":
        """Encode a turn.

        Raises:
            values.Uncrossable: if a value of it is no plain data.
        """
        last = turn.events[-1].body if turn.status is not Status.LIVE else None
        result = None if last is None else last["value"] if turn.status is Status.FINISHED else dict(last)
        events = tuple((event.kind, values.encode(dict(event.body))) for event in turn.events)
        size_bytes = len(turn.snapshot or b"") + sum(len(body) for _, body in events)
        return cls(
            events=events,
            calls=tuple((new, values.encode(dict(new.call.arguments))) for new in turn.calls),
            answers=tuple((index, encode_answer(answer)) for index, answer in (turn.answers or {}).items()),
            result=None if last is None else values.encode(result),
            is_short=size_bytes <= SHORT_BYTES_MAX and len(turn.calls) <= SHORT_CALLS_MAX,
        )


def encode_answer(answer: Answer) -> bytes:
    """Return an answer's bytes, for mail."""
    return values.encode(dict(facts.answered(0, answer).body))


def epoch_held(db: apsw.Connection) -> int:
    """Return the file's epoch."""
    ((present,),) = db.execute("select epoch from meta")
    return present


def run_row(db: apsw.Connection, run_id: str) -> RunRow | None:
    """Return what a write must know of a run."""
    for n, status, seq, events, listens, mail, epoch, active, *who in db.execute(_RUN_ROW, (to_bytes(run_id),)):
        return RunRow(n, Status(status), seq, events, bool(listens), bool(mail), epoch, bool(active), *who)
    return None


_RUN_ROW = """
select n, status, seq, events, receives > 0 and first is null, exists (select 1 from mail where mail.n = run.n),
    (select epoch from meta), coalesce(agent.state = 0 and agent.epoch = run.agent_epoch, 0), run.agent, run.agent_epoch,
    coalesce(agent.owner, 'owner'), run.parent is not null from run left join agent on agent.name = run.agent where id = ?"""


def verdict(row: RunRow | None, turn: Turn) -> Verdict:
    """Return what becomes of a turn's commit, in the order of rule 2 of the contract."""
    if row is None:
        return Verdict.ENDED
    if not row.is_held(turn.lease.epoch):
        return Verdict.FENCED
    if row.status is not Status.LIVE:
        return Verdict.ENDED
    if not row.is_active:
        return Verdict.REVOKED
    return Verdict.COMMITTED if row.seq == turn.seq else Verdict.STALE


def is_open(db: apsw.Connection, n: int, index: int) -> bool:
    """Whether a call waits for its answer."""
    return bool(list(db.execute("select 1 from call where n = ? and position = ? and state <> 2", (n, index))))


def finished(db: apsw.Connection, n: int, index: int) -> str | None:
    """Mark a call as answered; return its function, None if it is open no more."""
    sql = "update call set state = 2, due = null where n = ? and position = ? and state <> 2 returning function"
    for (function,) in list(db.execute(sql, (n, index))):
        return function
    return None


def program_number(db: apsw.Connection, digest: bytes, source: str) -> int:
    """Return the number of a program, stored once."""
    for (number,) in db.execute("select id from program where digest = ?", (digest,)):
        return number
    db.execute("insert into program (digest, source) values (?, ?)", (digest, source))
    return db.last_insert_rowid()


def apply(  # noqa: PLR0913, PLR0917 - one statement list, called once
    db: apsw.Connection, row: RunRow, turn: Turn, batch: Prepared, now: int, ids: Ids
) -> tuple[bool, dict[int, str], Sequence[Event]]:
    """Write a turn whose epoch, `seq` and status have been compared.

    Return whether mail is left for the run, the functions of the calls that are closed now, by index, and what of them had left.

    Each statement costs the thread a change of hands with the event loop: so none that has nothing to do.
    """
    if turn.status is not Status.LIVE:
        under_way = left(db, row.n)
        told = [(each.kind, values.encode(dict(each.body))) for each in under_way]
        events = (*batch.events[:-1], *told, *batch.events[-1:])
        _write_events(db, row.n, row.events, turn.lease.epoch, now, events)
        db.execute(
            "update run set seq = seq + 1, events = events + ?, calls = ? where n = ?",
            (len(events), turn.calls_next, row.n),
        )
        closed = close_run(db, row.n, turn.status, batch.result, now)
        if turn.snapshot is not None:
            db.execute("insert into snapshot values (?, ?)", (row.n, turn.snapshot))
        return False, closed, under_way
    _write_events(db, row.n, row.events, turn.lease.epoch, now, batch.events)
    db.execute(
        "update run set seq = seq + 1, events = events + ?, calls = ?, failures = 0, not_before = 0, first = ?, "
        "receives = ?, changed = ? where n = ?",
        (len(batch.events), turn.calls_next, turn.first, turn.receives, now, row.n),
    )
    db.execute("insert or replace into snapshot values (?, ?)", (row.n, turn.snapshot))
    if turn.consumed:
        db.executemany("delete from mail where n = ? and id = ?", [(row.n, to_bytes(each)) for each in turn.consumed])
    closed: dict[int, str] = {}
    if turn.closed:
        gone = [(row.n, each) for each in turn.closed]
        closed.update(
            db.executemany("delete from call where n = ? and position = ? returning position, function", gone)
        )
        if row.has_mail:
            # An answer that came while the turn took the call's time-out: nobody can receive it, and it must not wake the run.
            db.executemany("delete from mail where n = ? and position = ?", gone)
    for new, arguments in batch.calls:
        call = new.call
        db.execute(
            "insert into call (n, position, effect, function, arguments, line, due, person, made, not_before) "
            "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.n, call.index, EFFECTS.index(call.effect), call.function, arguments, call.line, new.due_us, new.person,
                now, NEVER_US if new.gate else 0,
            ),
        )  # fmt: skip
        if new.gate is not None:
            gates.put(db, row.n, call.index, new.gate)
    for index, body in batch.answers:
        post(db, row.n, ids.new(), index, body, now)
    return bool(batch.answers) or (row.has_mail and has_mail(db, row.n)), closed, ()


def left(db: apsw.Connection, n: int) -> Sequence[Event]:
    """Return the facts that writes have left, or were taken and are polled, whose run is about to end, in the order of their calls."""
    sql = "select position, function, state, more from call where n = ? and effect = 2 and state < 2 order by position"
    rows = list(db.execute(sql, (n,)))
    return [facts.under_way(at, function) for at, function, state, more in rows if state == 1 or _is_taken(more)]


def _is_taken(more: bytes | None) -> bool:
    told = None if more is None else values.decode(bytes(more))
    return isinstance(told, dict) and told.get(POLL) is True


def left_function(db: apsw.Connection, n: int, index: int) -> str | None:
    """Return the function of a write that was under way when its run ended, and has no answer yet; None: there is none.

    Such facts stand right before the last fact of a run, and answers that came since behind it: the rest of its journal is not read.
    """
    has_ended = False
    for kind, raw in db.execute("select kind, body from journal where n = ? order by position desc", (n,)):
        body: Any = values.decode(bytes(raw)) if kind in ("answered", "left") else {}
        if body.get("index") == index:
            return str(body["function"]) if kind == "left" else None
        if has_ended and kind != "left":
            return None
        has_ended = has_ended or kind not in ("answered", "left")
    return None


def close_run(db: apsw.Connection, n: int, status: Status, result: bytes | None, now: int) -> dict[int, str]:
    """Bring a run to its end: of all that moved, only the row and the journal stay.

    Return the functions of its open calls, by index.
    """
    db.execute(
        "update run set status = ?, result = ?, changed = ?, not_before = 0, first = null, receives = 0 where n = ?",
        (status, result, now, n),
    )
    closed: dict[int, str] = dict(db.execute("delete from call where n = ? returning position, function", (n,)))
    for table in ("snapshot", "mail", "gate", "vote"):
        db.execute(f"delete from {table} where n = ?", (n,))
    return closed


def has_mail(db: apsw.Connection, n: int) -> bool:
    """Whether anything waits for the run."""
    return bool(list(db.execute("select 1 from mail where n = ? limit 1", (n,))))


SEEN = "select 1 from seen join run using (n) where run.id = ? and dedup = ?"


def has_seen(db: apsw.Connection, n: int, dedup: str | None) -> bool:
    """Whether something came for the run under this key before."""
    return dedup is not None and bool(list(db.execute("select 1 from seen where n = ? and dedup = ?", (n, dedup))))


def see(db: apsw.Connection, n: int, dedup: str | None, now: int) -> None:
    """Remember a key."""
    if dedup is not None:
        db.execute("insert or ignore into seen values (?, ?, ?)", (n, dedup, now))


def post(db: apsw.Connection, n: int, mail_id: str, position: int | None, body: bytes, now: int) -> None:  # noqa: PLR0913, PLR0917 - the columns of a row
    """Add a piece of mail."""
    db.execute("insert into mail values (?, ?, ?, ?, ?)", (n, to_bytes(mail_id), position, body, now))


def append_to(db: apsw.Connection, row: RunRow, epoch: int, now: int, events: Sequence[Event]) -> None:
    """Append events to a run's journal and count them."""
    append(db, row.n, row.events, epoch, now, events)
    db.execute("update run set events = events + ? where n = ?", (len(events), row.n))


def append(db: apsw.Connection, n: int, position: int, epoch: int, now: int, events: Sequence[Event]) -> None:  # noqa: PLR0913, PLR0917 - the columns of a row
    """Append events from `position` on."""
    _write_events(db, n, position, epoch, now, [(event.kind, values.encode(dict(event.body))) for event in events])


def _write_events(  # noqa: PLR0913, PLR0917 - the columns of a row
    db: apsw.Connection, n: int, position: int, epoch: int, now: int, events: Iterable[tuple[str, bytes]]
) -> None:
    rows = [(n, place, epoch, now, kind, body) for place, (kind, body) in enumerate(events, position)]
    while rows:
        some, rows = rows[:INSERTS_MAX], rows[INSERTS_MAX:]
        db.execute(_INSERT_EVENTS[len(some)], tuple(chain.from_iterable(some)))


def loaded(
    db: apsw.Connection,
    run_id: str,
    now: int,
    source: Callable[[int], str],
    inherited: Callable[[int], Inherited | None],
) -> Loaded | None:
    """Read a live run for a turn.

    The statements need no common transaction: the run's row is read first, and a turn that was committed after it makes
    the commit of this one `STALE`.
    """
    row: tuple[Any, ...] | None = next(iter(db.execute(_LOAD, (to_bytes(run_id), now))), None)
    if row is None or row[5] != Status.LIVE:
        return None
    n, first_due = row[0], row[12]
    mail = [
        Mail(id=from_bytes(mail_id), index=position, answer=facts.answer_in(values.decode(body)))
        for mail_id, position, body in db.execute(_LOAD_MAIL, (n, row[10]))
    ]
    due: list[int] = []
    if first_due is not None and first_due <= now:
        due = [
            row[0]
            for row in db.execute("select position from call where n = ? and due <= ? order by position", (n, now))
        ]
    return Loaded(
        run_id=run_id,
        agent=row[1],
        name=row[2],
        program=source(row[3]),
        inputs=values.decode(row[4]),
        status=Status.LIVE,
        seq=row[6],
        calls=row[7],
        failures=row[8],
        first=row[9],
        receives=row[10],
        snapshot=row[11],
        mail=mail,
        due=due,
        checked=row[13],
        agent_epoch=row[14],
        only_reads=bool(row[15]),
        keeps=bool(row[16]),
        inherited=None if row[17] is None else inherited(row[17]),
    )


# Of the messages only as many as can be received now: a run that never receives may have ten thousand pending.
_LOAD_MAIL = """
select id, position, body from mail where n = ?1 and position is not null
union all select * from (select id, position, body from mail where n = ?1 and position is null order by id limit ?2)
order by id"""
_LOAD = f"""
select n, agent, name, program, inputs, status, seq, calls, failures, first, receives, snapshot.body,
    (select min(due) from call where call.n = run.n), checked, agent_epoch, run.reads, run.keeps, run.after
from run left join snapshot using (n) where id = ? and not_before <= ? and {_IS_ACTIVE}"""


def run_record(row: tuple[Any, ...]) -> RunRecord:
    """Return the run of a row of `RUNS`."""
    return RunRecord(
        run_id=from_bytes(row[0]),
        agent=row[1],
        name=row[2],
        program_digest=row[3].hex(),
        status=Status(row[4]),
        seq=row[5],
        events=row[6],
        calls=row[7],
        failures=row[8],
        not_before_us=row[9],
        created_us=row[10],
        changed_us=row[11],
        is_ready=bool(row[12]),
        due_us=row[13],
        result=None if row[14] is None else values.decode(row[14]),
        snapshot_bytes=row[15] or 0,
        is_revoked=bool(row[16]),
        parent=None if row[17] is None else from_bytes(row[17]),
        is_kept=bool(row[18]) and row[15] is not None,
    )


def call_record(row: tuple[Any, ...]) -> CallRecord:
    """Return the call of a row of `CALLS`."""
    call = Call(
        run_id=from_bytes(row[0]),
        index=row[1],
        function=row[5],
        arguments=values.decode(row[6]),
        effect=EFFECTS[row[4]],
        line=row[7],
        agent=row[12],
        more=None if row[14] is None else values.decode(row[14]),
    )
    return CallRecord(
        call=call,
        state=CallState(row[2]),
        attempt=row[3],
        not_before_us=row[8],
        due_us=row[9],
        person=row[10],
        made_us=row[11],
        agent=row[12],
        run_name=row[13],
        agent_epoch=row[15],
        gate=None if row[16] is None else gates.gate_of(row[16:]),
    )


def performable(
    db: apsw.Connection, bound: tuple[int, int, int], limit: int, besides: Container[tuple[str, int]]
) -> list[CallRecord]:
    """Return calls of `PERFORMABLE`, reading of those `besides` no more than the key.

    Args:
        db: where from.
        bound: the instant, the one after which, and the epoch.
        limit: how many at most.
        besides: run and index of those that are under way.
    """
    records = list[CallRecord]()
    for id_, n, position in db.execute(PERFORMABLE, bound):
        if (from_bytes(id_), position) in besides:
            continue
        records += [call_record(row) for row in db.execute(_CALL, (n, position))]
        if len(records) >= limit:
            break
    return records


def call_records(found: Iterable[tuple[Any, ...]]) -> list[CallRecord]:
    """Return calls of rows of `CALLS`, at least one, until their arguments have `LISTED_BYTES_MAX` together."""
    records, room = list[CallRecord](), LISTED_BYTES_MAX
    for row in found:
        room -= len(row[ARGUMENTS])
        if room < 0 and records:
            break
        records.append(call_record(row))
    return records


_FOREMOST = f"""
{CALLS} where run.id = ? and call.state <> 2
order by person is null, function like '%.sleep', coalesce(due, 0), call.position limit 1"""
_OPEN = "select count(*) from call join run using (n) where run.id = ? and state <> 2"


def foremost(db: apsw.Connection, run_ids: Iterable[str]) -> dict[str, tuple[CallRecord, int]]:
    """Return of each run the open call that it waits for most, and how many are open."""
    found: dict[str, tuple[CallRecord, int]] = {}
    for run_id in run_ids:
        for row in db.execute(_FOREMOST, (to_bytes(run_id),)):
            ((count,),) = db.execute(_OPEN, (to_bytes(run_id),))
            found[run_id] = (call_record(row), count)
    return found


ASKED = "select count(*) from call where person is not null and state in (0, 3)"


def asked(run_id: str | None, after: After | None, limit: int) -> tuple[str, tuple[Any, ...]]:
    """Return the statement for open calls that a person must answer, and what is bound to it.

    Its conditions are those of the index `call_asked`, which has `made` and the key: a page costs what is on it, however many
    are open.
    """
    conditions, bound = ["person is not null and call.state in (0, 3)"], list[Any]()
    if run_id is not None:
        conditions.append("run.id = ?")
        bound.append(to_bytes(run_id))
    if after is not None:
        conditions.append("(call.made, call.n, call.position) > (?, coalesce((select n from run where id = ?), 0), ?)")
        bound += [after.made_us, to_bytes(after.run_id), after.index]
    where = " and ".join(conditions)
    return f"{CALLS} where {where} order by call.made, call.n, call.position limit ?", (*bound, limit)


def journal(db: apsw.Connection, run_id: str, since: int, limit: int) -> list[Event]:
    """Return a run's events from position `since` on."""
    found = db.execute(
        "select position, journal.epoch, at, kind, body from journal join run using (n) "
        "where run.id = ? and position >= ? order by position limit ?",
        (to_bytes(run_id), since, limit),
    )
    return [
        Event(kind=kind, body=values.decode(body), position=position, at_us=at, epoch=epoch)
        for position, epoch, at, kind, body in found
    ]


def events_after(db: apsw.Connection, run_id: str, since: int) -> int:
    """Return how many events a run has from position `since` on."""
    found = db.execute("select events from run where id = ?", (to_bytes(run_id),))
    return max(0, next((events for (events,) in found), 0) - since)


def page_filter(page: Page) -> tuple[str, tuple[Any, ...]]:
    """Return the condition of a page and what is bound to it."""
    conditions, bound = ["?1 is not null"], list[Any]()
    if page.statuses is not None:
        conditions.append(f"status in ({', '.join('?' for _ in page.statuses)})")
        bound += [int(status) for status in page.statuses]
    for column, value in (("agent", page.agent), ("name", page.name)):
        if value is not None:
            conditions.append(f"{column} = ?")
            bound.append(value)
    if page.before is not None:
        conditions.append("run.id < ?")
        bound.append(to_bytes(page.before))
    return " and ".join(conditions), tuple(bound)


def ids_ending(db: apsw.Connection, text: str) -> list[str]:
    """Return at most ten ids that end with `text`, newest first. 100,000 runs take some 10 ms."""
    size = min(len(text), ID_LENGTH) * 5 // 8  # a letter is five bits: SQLite compares whole bytes, the loop the rest
    try:
        tail = to_bytes(text.rjust(ID_LENGTH, "0"))[ID_BYTES - size :]
    except ValueError:
        return []
    found: list[str] = []
    bound = (ID_BYTES - size + 1, tail)
    for (raw,) in db.execute("select id from run where substr(id, ?) = ? order by id desc", bound):
        if (run_id := from_bytes(raw)).endswith(text):
            found.append(run_id)
            if len(found) == 10:  # noqa: PLR2004 - the contract's number
                break
    return found
