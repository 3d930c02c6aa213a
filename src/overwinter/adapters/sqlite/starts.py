"""How a run comes to be, as rows: in a commit of its own, or in the one of its first turn. Each function is part of a commit."""

import hashlib

import apsw

from overwinter import values
from overwinter.adapters.sqlite import agents, audited, family, rows
from overwinter.adapters.sqlite.writer import Wrote
from overwinter.errors import Conflict, OverwinterError, Revoked
from overwinter.events import Event, Status
from overwinter.frozen import frozen
from overwinter.ids import to_bytes
from overwinter.store import Created, Inherited, Loaded, NewRun, Turn, Verdict

__all__ = ["Start", "begun", "drafted", "put", "refused"]


@frozen(kw_only=False)
class Start:
    """A new run as bytes, made before it is written."""

    run: NewRun
    digest: bytes
    """Of the program."""
    inputs: bytes
    created: Event
    is_short: bool
    """Whether it may be written on the event loop."""

    @classmethod
    def of(cls, run: NewRun) -> "Start":
        """Encode a new run.

        Raises:
            values.Uncrossable: if an input of it is no plain data.
        """
        digest = hashlib.sha256(run.program.encode()).digest()
        body = {"program": digest.hex(), "inputs": dict(run.inputs), "agent": run.agent, "name": run.name}
        body |= {"by": run.by} if run.by else {}
        body |= {"parent": run.origin.run_id, "call": run.origin.index} if run.origin is not None else {}
        body |= {"after": run.after} if run.after is not None else {}
        inputs = values.encode(dict(run.inputs))
        is_short = len(run.program) + 2 * len(inputs) <= rows.SHORT_BYTES_MAX  # inputs stand in the event too
        return cls(run, digest, inputs, Event(kind="created", body=body), is_short)


def refused(db: apsw.Connection, run: NewRun, now: int) -> OverwinterError | Created | None:
    """Return why a run may not begin, or the one that its call has begun before; None: it may, and its agent is enrolled."""
    if run.origin is not None and (earlier := family.child(db, run.origin)) is not None:
        return Created(run_id=earlier, is_new=False)  # before all else: it has begun, whatever forbids it by now
    if agents.enrolled(db, run.agent) is None:
        return Revoked(f"agent {run.agent!r} was revoked: it can start nothing; a person may restore it")
    if (whose := agents.ended(db, run.agent, now)) is not None:
        return Revoked(
            f"the authority of agent {whose!r} has ended: nothing starts under it; `expires` in overwinter.toml says when it does"
        )
    why = family.refused(db, run)
    return Conflict(why) if why else None


def put(db: apsw.Connection, start: Start, now: int) -> Wrote[Created]:
    """Add a run that is not refused, with its program, its inputs and its `created` event."""
    run = start.run
    agent_epoch = agents.epoch(db, run.agent)
    program = rows.program_number(db, start.digest, run.program)
    db.execute(
        "insert into run (id, agent, name, program, inputs, events, created, changed, checked, agent_epoch, "
        "reads, keeps, after) values (?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, (select n from run where id = ?))",
        (
            to_bytes(run.run_id), run.agent, run.name, program, start.inputs, now, now, run.checked, agent_epoch, run.only_reads,
            run.keeps, None if run.after is None else to_bytes(run.after),
        ),
    )  # fmt: skip
    n = db.last_insert_rowid()
    if run.origin is not None:
        family.put(db, n, run.run_id, run.origin, now)
    rows.append(db, n, 0, rows.epoch_held(db), now, (start.created,))
    entries = [audited.started(run, agent_epoch, start.created)] if run.by else []
    others = [] if run.origin is None else [(run.origin.run_id, False)]
    created = Created(run_id=run.run_id, is_new=True)
    return Wrote(created, grown=run.run_id, is_woken=True, audited=entries, others=others)


def begun(db: apsw.Connection, start: Start, turn: Turn, now: int) -> Wrote[Created] | Verdict:
    """Add the run of a first turn's draft, or say why its commit cannot."""
    assert turn.draft is not None, "a start is made of it"
    if rows.epoch_held(db) != turn.lease.epoch:
        return Verdict.FENCED
    is_known = agents.epoch(db, start.run.agent) == turn.draft.loaded.agent_epoch
    return put(db, start, now) if is_known and refused(db, start.run, now) is None else Verdict.STALE


def drafted(db: apsw.Connection, run: NewRun, inherited: Inherited | None) -> Loaded | None:
    """Return a run that is not written down as its first turn would find it; None: its agent is not known, or revoked."""
    if not agents.is_active(db, run.agent):
        return None
    return Loaded(
        run_id=run.run_id, agent=run.agent, agent_epoch=agents.epoch(db, run.agent), name=run.name, program=run.program,
        inputs=values.decode(values.encode(dict(run.inputs))), status=Status.LIVE, seq=0, calls=0, failures=0, first=None, receives=0,
        snapshot=None, mail=[], due=[], checked=run.checked, only_reads=run.only_reads, inherited=inherited, keeps=run.keeps,
    )  # fmt: skip
