"""What a person says of a gated call, counted in one commit."""

import apsw

from overwinter import journal as facts
from overwinter.adapters.sqlite import audited, gates, rows
from overwinter.adapters.sqlite.writer import Wrote
from overwinter.approval import Vote
from overwinter.events import Answer, Call, Status
from overwinter.frozen import frozen
from overwinter.store import Voted

__all__ = ["Ballot", "count"]

REMEMBERED = (Voted.LET_THROUGH, Voted.COUNTED, Voted.REJECTED)


@frozen(kw_only=False)
class Ballot:
    """A vote on its way into the file; see `Store.vote`."""

    call: Call
    digest: bytes
    vote: Vote
    dedup: str | None
    answer: Answer
    body: bytes
    """The answer, as mail."""
    mail_id: str


def count(db: apsw.Connection, ballot: Ballot, now: int) -> Wrote[Voted]:
    """Count a vote, once for its key."""
    call, vote = ballot.call, ballot.vote
    row = rows.run_row(db, call.run_id)
    if row is None:
        return Wrote(Voted.GONE)
    for before in REMEMBERED if ballot.dedup is not None else ():
        if rows.has_seen(db, row.n, f"{ballot.dedup} {before.name}"):
            return Wrote(before)
    if row.status is not Status.LIVE or not row.is_active:
        return Wrote(Voted.GONE)
    voted = gates.vote(db, row.n, call.index, ballot.digest, vote)
    if voted not in REMEMBERED:
        return Wrote(voted)
    rows.see(db, row.n, ballot.dedup and f"{ballot.dedup} {voted.name}", now)
    said = facts.voted(call, ballot.digest, vote, is_enough=voted is Voted.LET_THROUGH)
    entries = audited.facts(row, call.run_id, (said,))
    if voted is not Voted.REJECTED:
        rows.append_to(db, row, row.epoch, now, (said,))
        return Wrote(voted, grown=call.run_id, audited=entries)
    db.execute("update call set state = 2, due = null where n = ? and position = ?", (row.n, call.index))
    rows.post(db, row.n, ballot.mail_id, call.index, ballot.body, now)
    answered = facts.answered(call.index, ballot.answer, by=vote.by)
    rows.append_to(db, row, row.epoch, now, (said, answered))
    entries += audited.facts(row, call.run_id, (answered,), function=call.function)
    return Wrote(voted, grown=call.run_id, is_woken=True, audited=entries)
