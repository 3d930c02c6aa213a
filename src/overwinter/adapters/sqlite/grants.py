"""Grants as rows. Each function is part of one commit. A revoked one is deleted: the audit log has it, and its id stays taken."""

from collections.abc import Sequence
from typing import Any

import apsw

from overwinter.frozen import replace
from overwinter.grant import PREFIX, Granted

__all__ = ["FORMAT_3", "grants", "put", "remove"]

# `autoincrement`: an id in the audit log means one grant for ever.
FORMAT_3 = """
create table granted (
    id integer primary key autoincrement, agent text not null, pattern text not null, reads integer not null,
    asks integer not null, approver text not null, expires integer, by text not null, made integer not null) strict;
"""
_COLUMNS = "id, agent, pattern, reads, asks, approver, expires, by, made"


def put(db: apsw.Connection, given: Granted) -> Granted | None:
    """Add a grant; None: its agent may not act, or is not known."""
    row = (
        given.agent, given.pattern, given.reads_only, given.is_asked, given.approver, given.expires_us, given.by, given.made_us,
    )  # fmt: skip
    sql = """insert into granted (agent, pattern, reads, asks, approver, expires, by, made)
        select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 where exists (select 1 from agent where name = ?1 and state = 0) returning id"""
    found = list(db.execute(sql, row))
    return replace(given, id=f"{PREFIX}{found[0][0]}") if found else None


def remove(db: apsw.Connection, name: str) -> Granted | None:
    """Take a grant away and return it; None: there is none of this id."""
    number = name.removeprefix(PREFIX)
    if not number.isdecimal() or not number.isascii() or f"{PREFIX}{number}" != name:
        return None
    sql = f"delete from granted where id = cast(? as integer) returning {_COLUMNS}"
    return next((_granted(row) for row in list(db.execute(sql, (number,)))), None)


def grants(db: apsw.Connection) -> Sequence[Granted]:
    """Return every grant, the oldest first."""
    return [_granted(row) for row in db.execute(f"select {_COLUMNS} from granted order by id")]


def _granted(row: tuple[Any, ...]) -> Granted:
    number, agent, pattern, reads, asks, approver, expires, by, made = row
    return Granted(
        id=f"{PREFIX}{number}",
        agent=agent,
        pattern=pattern,
        reads_only=bool(reads),
        is_asked=bool(asks),
        approver=approver,
        expires_us=expires,
        by=by,
        made_us=made,
    )
