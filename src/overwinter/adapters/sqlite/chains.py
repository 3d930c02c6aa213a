"""What a run goes on with that comes after another: that one's state, and the programs that ran up to it.

Nothing of a run that has ended changes, so what ran up to it is read once; each step of a goal then reads one program, not all of
those before it.
"""

from contextlib import suppress
from typing import Any

import apsw

from overwinter import journal, values
from overwinter.brain import LOOP_BEGINS
from overwinter.events import Status
from overwinter.ids import from_bytes, to_bytes
from overwinter.store import Inherited

__all__ = ["Chains", "has_left", "held"]

CHAINS_MAX = 256
"""Runs of which is remembered what ran up to them: one for each goal under way, as a rule."""
_GOALS = """
select agent, inputs from run where status in (0, 4) and instr(inputs, cast('"after":"' as blob))
and program in (select id from program where substr(source, 1, ?) = ?)"""
_OWN = "select n, inputs from run where id = ? and agent = ?"
_LEFT = """
select id, agent, seq, snapshot.body from run join snapshot using (n)
where n = ? and status in (1, 2)"""
_RAN = """
select source, run.status, run.result, run.after, upper.id from run join program on program.id = run.program
left join run upper on upper.n = run.after where run.n = ?"""

Ran = tuple[tuple[str, int | None], ...]
"""Sources, see `Inherited.earlier`."""


def has_left(db: apsw.Connection, run_id: str) -> bool:
    """Return whether another run can go on from one."""
    sql = "select 1 from run join snapshot using (n) where id = ? and status in (1, 2)"  # without the state itself
    return bool(list(db.execute(sql, (to_bytes(run_id),))))


def held(db: apsw.Connection) -> set[int]:
    """Return the runs from which goals under way go on: the goals before them, and the last program of each.

    A goal names them in its inputs, for it goes on with a conversation and not with a state of its own; only its own agent's count.
    """
    found, unread = set[int](), list(db.execute(_GOALS, (len(LOOP_BEGINS), LOOP_BEGINS)))
    while unread:
        agent, encoded = unread.pop()
        inputs: dict[str, Any] = {"last": "", "after": "", **values.decode(encoded)}
        for name in ("last", "after"):
            with suppress(ValueError):  # whoever starts the loop's text as a program gives it inputs of their own
                for n, raw in list(db.execute(_OWN, (to_bytes(str(inputs[name])), agent))):
                    if name == "after" and n not in found:
                        unread.append((agent, raw))
                    found.add(n)
    return found


class Chains:
    """Reads what runs go on with."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._ran: dict[str, Ran] = {}
        self._last: Inherited | None = None

    def after(self, run_id: str) -> Inherited | None:
        """Return what a run goes on with that comes after this one; None: there is nothing, or no such run.

        A step of a goal asks three times, and nothing of it changes unless it is deleted.
        """
        if self._last is not None and self._last.run_id == run_id and has_left(self._db, run_id):
            return self._last
        found = list(self._db.execute("select n from run where id = ?", (to_bytes(run_id),)))
        self._last = self.inherited(found[0][0]) if found else None
        return self._last

    def inherited(self, n: int) -> Inherited | None:
        """Return what a run goes on with that comes after one; None: there is nothing any more."""
        for run_id, agent, seq, sealed in list(self._db.execute(_LEFT, (n,))):
            named = from_bytes(run_id)
            return Inherited(run_id=named, agent=agent, seq=seq, sealed=bytes(sealed), earlier=self._up_to(n, named))
        return None

    def _up_to(self, n: int, run_id: str) -> Ran:
        """Return what ran up to a run, and it too; read back to the first run of which that is known."""
        known = self._ran.pop(run_id, None)
        found = list[tuple[str, int | None]]()
        place: int | None = n
        while known is None and place is not None:
            ((source, status, ended, place, before),) = list(self._db.execute(_RAN, (place,)))
            found.append((source, None if status == Status.FINISHED else journal.stopped_line(values.decode(ended))))
            known = None if before is None else self._ran.pop(from_bytes(before), None)
        ran = (*(known or ()), *reversed(found))
        while len(self._ran) >= CHAINS_MAX:
            del self._ran[next(iter(self._ran))]
        self._ran[run_id] = ran
        return ran
