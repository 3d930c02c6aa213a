"""Deleting what has ended long ago, as rows. Each function is part of a commit."""

import json

import apsw

from overwinter.adapters.sqlite.chains import held
from overwinter.store import Collected

__all__ = ["collect", "sweep"]


def collect(db: apsw.Connection, ended_before: int, limit: int) -> Collected:
    """Delete old runs with their journals, but those from which a goal under way goes on."""
    old = [
        n
        for (n,) in db.execute(
            "select n from run where status in (1, 2, 3) and changed < ? "
            "and not exists (select 1 from run heir where heir.after = run.n) "
            # What a goal's program left, its next one begins with, however long the goal has slept meanwhile.
            "and not (keeps and exists (select 1 from run upper where upper.n = run.parent and upper.status in (0, 4))) "
            "and n not in (select value from json_each(?)) order by changed limit ?",
            (ended_before, json.dumps(sorted(held(db))), limit),
        )
    ]
    events = 0
    for n in old:
        db.execute("delete from journal where n = ?", (n,))
        events += db.changes()
        db.execute("delete from kept where n = ?", (n,))
        db.execute("delete from snapshot where n = ?", (n,))
        db.execute("delete from seen where n = ?", (n,))
        db.execute("delete from delivery where n = ?", (n,))
        db.execute(
            "update run set parent = null, parent_position = null where parent = ?", (n,)
        )  # `n` may be another's later
        db.execute("delete from run where n = ?", (n,))
    return Collected(runs=len(old), events=events, programs=0, dedups=0)


def sweep(db: apsw.Connection, dedups_before: int) -> Collected:
    """Delete what nothing refers to any more."""
    # The newest stays: the next one's number is one above it. So no number is ever another program's, see `SqliteStore._source`.
    db.execute("delete from program where id not in (select program from run) and id < (select max(id) from program)")
    programs = db.changes()
    db.execute("delete from started where at < ?", (dedups_before,))
    return Collected(runs=0, events=0, programs=programs, dedups=db.changes())
