"""Agents as rows: enrolled, revoked with all below them, restored in a new epoch. Each function is part of one commit."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from overwinter.identity import Identity

__all__ = ["ended", "enrol", "enrolled", "epoch", "fell", "identities", "is_active", "restore", "revoke"]

ACTIVE, REVOKED = 0, 1
_COLUMNS = "name, owner, purpose, parent, expires, models, epoch, state, changed, by, reason"
# An agent and all below it. UNION, not UNION ALL: a circle ends.
_BELOW = """
with recursive below(name) as (select ?1 union select agent.name from agent join below on agent.parent = below.name)
select name from below"""
_FALLEN = """
with recursive below(name) as (
    select name from agent where state = 1 union select agent.name from agent join below on agent.parent = below.name)
select name from below"""
_ABOVE = """
with recursive above(name) as (
    select parent from agent where name = ?1 union select agent.parent from agent join above using (name))
select name from above where name is not null"""


def enrol(db: apsw.Connection, given: Iterable[Identity]) -> None:
    """Add agents, or change what is declared of them."""
    db.executemany(
        "insert into agent (name, owner, purpose, parent, expires, models) values (?, ?, ?, ?, ?, ?) on conflict (name) do "
        "update set owner = excluded.owner, purpose = excluded.purpose, parent = excluded.parent, "
        "expires = excluded.expires, models = excluded.models",
        [
            (each.name, each.owner, each.purpose, each.parent, each.expires_us, json.dumps(each.models))
            for each in given
        ],
    )


def enrolled(db: apsw.Connection, name: str) -> int | None:
    """Return the epoch of an agent, added if it is not known; None: it is revoked."""
    for epoch, state in db.execute("select epoch, state from agent where name = ?", (name,)):
        return epoch if state == ACTIVE else None
    enrol(db, [Identity(name=name, owner="owner")])
    return 1


def epoch(db: apsw.Connection, name: str) -> int:
    """Return the epoch of an agent; 0: it is not known."""
    return next((found for (found,) in list(db.execute("select epoch from agent where name = ?", (name,)))), 0)


def is_active(db: apsw.Connection, name: str) -> bool:
    """Whether an agent is known, and not revoked."""
    return list(db.execute("select state from agent where name = ?", (name,))) == [(ACTIVE,)]


def ended(db: apsw.Connection, name: str, now: int) -> str | None:
    """Return whose authority has ended, the agent's own or one's above it; None: nobody's."""
    sql = f"select name from agent where expires <= ?2 and (name = ?1 or name in ({_ABOVE})) limit 1"
    return next((found for (found,) in list(db.execute(sql, (name, now)))), None)


def identities(db: apsw.Connection) -> list[Identity]:
    """Return every agent, by name."""
    return [_identity(row) for row in db.execute(f"select {_COLUMNS} from agent order by name")]


def revoke(db: apsw.Connection, name: str, by: str, reason: str, now: int) -> Sequence[Identity]:
    """Revoke an agent and all below it; return those that were active."""
    sql = f"""update agent set state = ?2, epoch = epoch + 1, changed = ?3, by = ?4, reason = ?5
        where state = 0 and name in ({_BELOW}) returning {_COLUMNS}"""
    return [_identity(row) for row in db.execute(sql, (name, REVOKED, now, by, reason))]


def fell(db: apsw.Connection, by: str, reason: str, now: int) -> Sequence[Identity]:
    """Revoke what stands below a revoked agent by now; return it. A declaration puts nobody out of a revocation's reach."""
    sql = f"""update agent set state = ?1, epoch = epoch + 1, changed = ?2, by = ?3, reason = ?4
        where state = 0 and name in ({_FALLEN}) returning {_COLUMNS}"""
    return [_identity(row) for row in db.execute(sql, (REVOKED, now, by, reason))]


def restore(db: apsw.Connection, name: str, by: str, reason: str, now: int, *, has_runs: bool) -> Identity | None:  # noqa: PLR0913 - the columns of a row
    """Make an agent active again; None: it is not revoked, or one above it is.

    With its runs also one that is active already, if some of its runs are still stopped.
    """
    stopped = "select 1 from run where agent = ?1 and status in (0, 4) and agent_epoch < agent.epoch"
    sql = f"""update agent set state = 0, epoch = epoch + state, changed = ?2, by = ?3, reason = ?4
        where name = ?1 and (state = 1 or (?5 and exists ({stopped})))
        and not exists (select 1 from agent as upper where upper.state = 1 and upper.name in ({_ABOVE})) returning {_COLUMNS}"""
    found = [_identity(row) for row in db.execute(sql, (name, now, by, reason, has_runs))]
    if found and has_runs:
        db.execute("update run set agent_epoch = ? where agent = ? and status in (0, 4)", (found[0].epoch, name))
    return found[0] if found else None


def _identity(row: tuple[Any, ...]) -> Identity:
    return Identity(
        name=row[0],
        owner=row[1],
        purpose=row[2],
        parent=row[3],
        expires_us=row[4],
        models=tuple(json.loads(row[5])),
        epoch=row[6],
        is_revoked=row[7] == REVOKED,
        changed_us=row[8],
        by=row[9],
        reason=row[10],
    )
