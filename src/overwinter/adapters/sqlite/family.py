"""Runs and the runs that they began, as rows. Each function is part of one commit, see rule 11 of the store."""

from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

import apsw

from overwinter import journal, lineage, values
from overwinter.adapters.sqlite import audited, chains, rows
from overwinter.adapters.sqlite.writer import Wrote
from overwinter.audit import Entry
from overwinter.events import Event, Status
from overwinter.frozen import frozen
from overwinter.ids import Ids, from_bytes, to_bytes
from overwinter.lineage import CHILDREN_MAX, DEPTH_MAX, FAMILY_MAX, Origin
from overwinter.store import NEVER_US, Created, NewRun

__all__ = ["Concerned", "child", "cut", "descendants", "ended", "given_up", "put", "refused", "stranded", "told"]

T = TypeVar("T")
_OPEN = f"({Status.LIVE}, {Status.QUARANTINED})"
_PARENT = """
select upper.id, call.function, call.position from run join run upper on upper.n = run.parent
join call on call.n = upper.n and call.position = run.parent_position
where run.n = ? and call.state <> 2"""
_DEPTH = """
with recursive above (n, depth) as (
    select n, 1 from run where id = ?
    union all select run.parent, depth + 1 from above join run using (n) where run.parent is not null and depth < 64)
select max(depth) from above"""
# Those that have ended have none that have not.
_FAMILY = f"""
with recursive above (n, depth) as (
    select n, 1 from run where id = ?
    union all select run.parent, depth + 1 from above join run using (n) where run.parent is not null and depth < 64),
below (n) as (
    select * from (select n from above order by depth desc limit 1)
    union all select run.n from below join run on run.parent = below.n where run.status in {_OPEN} limit {FAMILY_MAX + 1})
select count(*) from below"""
_DESCENDANTS = f"""
with recursive below (n) as (
    select run.n from run join run upper on run.parent = upper.n where upper.id = ?
    union all select run.n from below join run on run.parent = below.n)
select id from below join run using (n) where status in {_OPEN}"""

_ACTIVE = "exists (select 1 from agent where name = {0}.agent and state = 0 and epoch = {0}.agent_epoch)"
_STRANDED = f"""
select run.id from run join run upper on upper.n = run.parent
where run.parent is not null and run.status in {_OPEN} and upper.status in {_OPEN} and upper.agent <> run.agent
and {_ACTIVE.format("upper")} and not {_ACTIVE.format("run")}"""


@frozen
class Concerned:
    """A run that the end of another one concerns."""

    run_id: str
    is_woken: bool
    """Whether its call was answered, so it may have become ready; else it was ended with the one that began it."""
    audited: Sequence[Entry]


def child(db: apsw.Connection, origin: Origin) -> str | None:
    """Return the run that a call has begun; None: it has begun none."""
    sql = "select run.id from run join run upper on run.parent = upper.n where upper.id = ? and run.parent_position = ?"
    return next(
        (from_bytes(found) for (found,) in list(db.execute(sql, (to_bytes(origin.run_id), origin.index)))), None
    )


def put(db: apsw.Connection, n: int, run_id: str, origin: Origin, now: int) -> None:
    """Write down which call began a run, and set the call aside until the run's end."""
    parent = rows.run_row(db, origin.run_id)
    assert parent is not None, "`refused` has found it"
    db.execute("update run set parent = ?, parent_position = ? where n = ?", (parent.n, origin.index, n))
    sql = "update call set not_before = ?, more = ? where n = ? and position = ? returning function"
    ((function,),) = list(db.execute(sql, (NEVER_US, values.encode({"run": run_id}), parent.n, origin.index)))
    event = Event(kind="began", body={"index": origin.index, "function": function, "run": run_id})
    rows.append_to(db, parent, parent.epoch, now, (event,))


def told(wrote: Wrote[T], others: Sequence[Concerned], made: Wrote[Created] | None = None) -> Wrote[T]:
    """Return what a commit did, with the runs that it concerns too, and what making the run did, if this commit made it."""
    if made is not None:
        wrote.others, wrote.audited = made.others, [*made.audited, *wrote.audited]
    if others:
        wrote.others = [*wrote.others, *((each.run_id, each.is_woken) for each in others)]
        wrote.ended = [each.run_id for each in others if not each.is_woken]
        wrote.audited = [*wrote.audited, *(entry for each in others for entry in each.audited)]
    return wrote


def refused(db: apsw.Connection, run: NewRun) -> str:
    """Return why a run may not begin; "" if it may."""
    if run.after is not None and not chains.has_left(db, run.after):
        return f"run {run.after} has left no variables: only one that has ended and was to keep them has"
    return "" if run.origin is None else _refused(db, run.origin)


def _refused(db: apsw.Connection, origin: Origin) -> str:
    """Return why a call may begin no run; "" if it may."""
    row = rows.run_row(db, origin.run_id)
    if row is None or row.status is not Status.LIVE or not rows.is_open(db, row.n, origin.index):
        return f"the call {origin.run_id}:{origin.index} that would begin a run waits for nothing any more"
    ((depth,),) = db.execute(_DEPTH, (to_bytes(origin.run_id),))
    if depth >= DEPTH_MAX:
        return f"runs begin runs over at most {DEPTH_MAX} generations: let the program do the work itself"
    ((live,),) = db.execute(f"select count(*) from run where parent = ? and status in {_OPEN}", (row.n,))
    if live >= CHILDREN_MAX:
        return f"a run has at most {CHILDREN_MAX} children at a time: wait for some of them"
    if depth == 1:
        return ""  # `CHILDREN_MAX` bounds it, and the whole family is counted at what they begin
    ((family,),) = db.execute(_FAMILY, (to_bytes(origin.run_id),))
    is_full = family > FAMILY_MAX
    return f"there are at most {FAMILY_MAX:,} runs in a family at a time: wait for some of them" if is_full else ""


def descendants(db: apsw.Connection, run_id: str) -> list[str]:
    """Return the runs below one that have not ended."""
    return [from_bytes(found) for (found,) in db.execute(_DESCENDANTS, (to_bytes(run_id),))]


def ended(  # noqa: PLR0913, PLR0917 - what a run ended with
    db: apsw.Connection,
    row: rows.RunRow,
    run_id: str,
    status: Status,
    result: bytes | None,
    now: int,
    ids: Ids,
    *,
    is_kept: bool = False,
) -> list[Concerned]:
    """Answer the call that began a run, and cancel the runs that it began; its row says already that it has ended."""
    found = list(cut(db, row.n, run_id, None, now))
    if not row.is_child:
        return found
    for upper, function, position in list(db.execute(_PARENT, (row.n,))):
        parent_id = from_bytes(upper)
        parent = rows.run_row(db, parent_id)
        if parent is None or parent.status not in (Status.LIVE, Status.QUARANTINED):
            continue
        value = None if result is None else values.decode(result)
        ((messages,),) = db.execute("select count(*) from mail where n = ? and position is null", (parent.n,))
        answer = lineage.answer(function, run_id, status, value, {"is_kept": is_kept, "messages": messages})
        event = journal.answered(position, answer)
        rows.finished(db, parent.n, position)
        rows.post(db, parent.n, ids.new(), position, rows.encode_answer(answer), now)
        rows.append_to(db, parent, parent.epoch, now, (event,))
        entries = audited.facts(parent, parent_id, (event,), function=function)
        found.append(Concerned(run_id=parent_id, is_woken=True, audited=entries))
    return found


def late(  # noqa: PLR0913, PLR0917 - an answer
    db: apsw.Connection, row: rows.RunRow, run_id: str, index: int, event: Event, now: int
) -> Wrote[bool]:
    """Write down the answer of a write that was under way when its run ended: nobody waits for it, and it is true all the same."""
    function = None if row.status in (Status.LIVE, Status.QUARANTINED) else rows.left_function(db, row.n, index)
    if function is None:
        return Wrote(result=False)
    rows.append_to(db, row, row.epoch, now, (event,))
    return Wrote(result=False, grown=run_id, audited=audited.facts(row, run_id, (event,), function=function))


def given_up(  # noqa: PLR0913, PLR0917 - what a run stumbled over
    db: apsw.Connection, row: rows.RunRow, run_id: str, event: Event, now: int, ids: Ids
) -> list[Concerned]:
    """End a child run whose turns keep failing: quarantined it would hold the call that began it for ever."""
    last = lineage.given_up(event)
    left = rows.left(db, row.n)
    rows.append_to(db, row, row.epoch, now, (event, *left, last))
    result = values.encode(dict(last.body))
    rows.close_run(db, row.n, Status.FAILED, result, now)
    found = ended(db, row, run_id, Status.FAILED, result, now, ids)
    return (
        [Concerned(run_id=run_id, is_woken=False, audited=audited.facts(row, run_id, left)), *found] if left else found
    )


def stranded(db: apsw.Connection, now: int, ids: Ids) -> list[Concerned]:
    """Cancel the runs of revoked agents that runs of agents which are not revoked wait for: nothing else would answer those."""
    found = list[Concerned]()
    for (each,) in list(db.execute(_STRANDED)):
        run_id = from_bytes(each)
        row = rows.run_row(db, run_id)
        assert row is not None, "it was found in this transaction"
        if row.status not in (Status.LIVE, Status.QUARANTINED):
            continue  # it went with one above it
        event = lineage.stranded(row.agent)
        events = (*rows.left(db, row.n), event)
        result = values.encode(dict(event.body))
        rows.append_to(db, row, row.epoch, now, events)
        rows.close_run(db, row.n, Status.CANCELLED, result, now)
        entries = audited.facts(row, run_id, events)
        found.append(Concerned(run_id=run_id, is_woken=False, audited=entries))
        found += ended(db, row, run_id, Status.CANCELLED, result, now, ids)
    return found


def cut(db: apsw.Connection, n: int, run_id: str, positions: Collection[int] | None, now: int) -> Iterator[Concerned]:
    """Cancel the runs that a run began, all or those of some of its calls, and what they began."""
    sql = f"select id, parent_position from run where parent = ? and status in {_OPEN}"
    for found, position in list(db.execute(sql, (n,))):
        child_id = from_bytes(found)
        row = rows.run_row(db, child_id)
        if row is None or (positions is not None and position not in positions):
            continue
        event = lineage.cut_off(run_id)
        events = (*rows.left(db, row.n), event)
        rows.append_to(db, row, row.epoch, now, events)
        rows.close_run(db, row.n, Status.CANCELLED, values.encode(dict(event.body)), now)
        yield Concerned(run_id=child_id, is_woken=False, audited=audited.facts(row, child_id, events))
        yield from cut(db, row.n, child_id, None, now)
