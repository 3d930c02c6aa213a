"""Calls that wait for people's approval, as rows. Each function is part of one commit."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from overwinter.approval import Gate, Need, Vote, left, named
from overwinter.store import NEVER_US, Voted

__all__ = ["IS_CLOSED", "clear", "close", "gate_of", "put", "spend", "vote"]

IS_CLOSED = """exists (
    select 1 from gate where gate.n = call.n and gate.position = call.position and gate.used is null)"""


def put(db: apsw.Connection, n: int, position: int, gate: Gate) -> None:
    """Gate a call; what was said of another gate of it counts no more."""
    clear(db, n, (position,))
    needs = json.dumps([[each.people, each.count] for each in gate.needs])
    total = sum(each.count for each in gate.needs)
    db.execute(
        "insert into gate values (?, ?, ?, ?, ?, ?, ?, ?, null)",
        (n, position, gate.digest, needs, gate.reason, json.dumps(gate.policies), total, gate.expires_us),
    )


def clear(db: apsw.Connection, n: int, positions: Iterable[int]) -> None:
    """Forget gates and votes of calls that are answered."""
    gone = [(n, each) for each in positions]
    db.executemany("delete from gate where n = ? and position = ?", gone)
    db.executemany("delete from vote where n = ? and position = ?", gone)


def close(db: apsw.Connection, n: int, position: int, gate: Gate) -> bool:
    """Gate a call that is INTENDED; return whether it is."""
    db.execute(
        "update call set person = ?, not_before = ?, due = ? where n = ? and position = ? and state = 0",
        (gate.approver, NEVER_US, gate.expires_us, n, position),
    )
    is_intended = bool(db.changes())
    if is_intended:
        put(db, n, position, gate)
    return is_intended


def vote(db: apsw.Connection, n: int, position: int, digest: bytes, given: Vote) -> Voted:
    """Count a vote; open the gate with the last that is needed."""
    sql = """select digest, approver, needed, expires from gate join call using (n, position)
        where n = ? and position = ? and used is null and state = 0"""
    row: tuple[Any, ...] | None = next(iter(db.execute(sql, (n, position))), None)
    if row is None:
        return Voted.GONE
    if row[0] != digest:
        return Voted.OTHER
    if not given.is_yes:
        return Voted.REJECTED
    if row[3] is not None and row[3] <= given.at_us:
        return Voted.EXPIRED
    db.execute(
        "insert into vote values (?, ?, ?, 1, ?, ?) on conflict do nothing",
        (n, position, given.person, given.reason, given.at_us),
    )
    yes = {
        each
        for (each,) in db.execute("select person from vote where n = ? and position = ? and yes = 1", (n, position))
    }
    if left(_needs(row[1], row[2]), yes):
        return Voted.COUNTED
    db.execute("update gate set used = ? where n = ? and position = ? and used is null", (given.at_us, n, position))
    assert db.changes() == 1, "a gate is passed once"
    # What runs out is the question, not the call.
    db.execute("update call set person = null, not_before = 0, due = null where n = ? and position = ?", (n, position))
    return Voted.LET_THROUGH


def spend(db: apsw.Connection, n: int, position: int) -> None:
    """Forget the yes to a call that is set back though it may have been carried out: it let it through once."""
    if list(db.execute("select 1 from call where n = ? and position = ? and state = 3", (n, position))):
        clear(db, n, (position,))


def gate_of(row: Sequence[Any]) -> Gate:
    """Return the gate in the last columns of `rows.CALLS`."""
    digest, approver, reason, policies, needed, expires, used, votes = row
    return Gate(
        digest=bytes(digest),
        needs=_needs(approver, needed),
        reason=reason,
        policies=tuple(json.loads(policies)),
        expires_us=expires,
        is_used=used is not None,
        votes=tuple(
            Vote(person=person, is_yes=bool(yes), reason=why, at_us=at) for person, yes, why, at in json.loads(votes)
        ),
    )


def _needs(approver: str, needed: int) -> tuple[Need, ...]:
    """Return who must say yes. The column once held names with commas between them."""
    if not approver.startswith("[["):
        return (Need(named(approver), needed),)
    return tuple(Need(tuple(people), count) for people, count in json.loads(approver))
