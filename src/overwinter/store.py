"""Where everything durable lives. This docstring and `tests/conformance` are the contract; each store keeps both.

A **run** is one row with a compare-and-swap number `seq`, one snapshot, its open calls, its pending mail, its timers and
an append-only journal. A **lease** is one holder's right to work on runs; its `epoch` grows with each new holder, and
every commit that advances a run or starts an effect is refused (`FENCED`) when its epoch is not the present one.

Rules that every store keeps:

1. *One commit, all or nothing.* `commit` applies snapshot, calls, consumed mail, timers and journal together. A method
   that returns has made its change durable: `kill -9` or power loss afterwards does not undo it.
2. *Fenced three times.* A turn applies only if the lease's epoch is the present one **and** the run's agent is active in
   the epoch in which the run was made **and** the run's `seq` is the one the turn was loaded with **and** the run is live.
   The refusals are values, in this order: `FENCED`, `ENDED`, `REVOKED`, `STALE`.
3. *Mail goes by exact id.* A commit deletes the mail it names and no other. Mail that arrives during a turn stays, unless
   it answers a call that the turn closed (its time-out came first): nobody can receive it any more.
4. *A repeat is recognised after the first copy is gone*, also when its run has ended: `dedup` keys are remembered apart from
   pending mail, as long as the run's row. What people do (`finish`, `postpone`, `vote`, `end`, `release`) is told again, under the
   same key, as what it was the first time, and changes nothing.
5. *Ready is derived.* A live run past `not_before_us` is ready when it was never advanced, or it has mail for an open
   call, or a message while a `receive` is open, or a due timer. If `first` is set, only mail or a timer for that call
   counts. Senders never touch the run's row, so no wake-up is lost.
6. *A started effect is marked before it leaves.* `start` moves INTENDED to STARTED, fenced as a turn is, and only for a
   live run.
   `finish` is not fenced, for a result is true whoever brings it; it moves INTENDED, STARTED or UNKNOWN to DONE and adds
   the answer as mail, in one commit, once: a second one returns False and changes nothing.
7. *A run that has ended keeps nothing but its row, its journal and those keys*: snapshot, mail, timers and calls go with the commit
   that ends it; but one that was to keep its state has the one that this commit brought, until it is collected. A run is not collected
   before those that went on from it, nor one that was to keep its state before its parent has ended. Quarantine is no end: it keeps all.
8. Journal positions of a run are 0, 1, 2, ... without a gap, and its epochs never fall.
9. *A gate is passed once.* A gated call is not performable until enough people have said yes to its digest, in the commit
   that counts the last of them; no second vote, call or restart lets it through again.
10. *Revoking is one commit* (`registry.py`). After it, no turn of the agent's runs or of those below it is committed, none of
   their effects starts or is tried again, nothing wakes them, and no message reaches them. They keep all they had.
11. *The end of a child run answers the call that began it*, in the commit that ends it, whatever ended it; one call begins one run,
   however often it is made, and waits for it from the commit on that makes it (its `began` event), be it that of its first turn. In the commit that closes that call, or ends the parent, a child that is still open is cancelled,
   and what it began. A child is not quarantined: it fails instead, for a call waits for it.
12. *What has left is not forgotten.* The commit that ends a run writes down each write of it that is STARTED, or was taken and is
   polled, as `left`, before its end. An answer that comes for one afterwards is written down too, once, and wakes nobody: `finish` returns False.

No method holds a transaction across an await that leaves the process. Times are microseconds UTC, from the store's clock.
"""

from collections.abc import Collection, Container, Mapping, Sequence
from enum import Enum, auto
from typing import Protocol

from overwinter.approval import Gate, Vote
from overwinter.events import Answer, Call, CallState, Event, Status
from overwinter.frozen import frozen
from overwinter.lineage import Origin
from overwinter.values import Value

__all__ = [
    "FILE_PARTS", "MAIL_PENDING_MAX", "MESSAGE_BYTES_MAX", "NEVER_US", "PART_BYTES_MAX", "After", "CallRecord", "Collected", "Created", "Draft", "Inherited", "Lease", "Loaded", "Mail", "NewCall",
    "NewRun", "Page", "Ready", "RunRecord", "Sent", "Store", "Turn", "Verdict", "Voted",
]  # fmt: skip

NEVER_US = 1 << 62
"""`not_before` of a call that time alone does not open: it is for a person, or waits for another run."""
MAIL_PENDING_MAX = 10_000
"""Messages a run may have pending: a loop of sends fails, it does not fill the disk."""
PART_BYTES_MAX = 1 << 20
"""Bytes of a part of what is kept: as long as others wait for its commit."""
FILE_PARTS = 1 << 20
"""Numbers of parts that belong to one file of a call."""
MESSAGE_BYTES_MAX = 1 << 20
"""Largest message or answer, encoded."""


class Verdict(Enum):
    """What became of a turn's commit."""

    COMMITTED = auto()
    FENCED = auto()
    """The lease was lost: drop every run held under it."""
    STALE = auto()
    """Somebody advanced the run since it was loaded: drop this turn and load again."""
    ENDED = auto()
    """The run was cancelled or has ended: drop it."""
    REVOKED = auto()
    """The run's agent may not act any more: drop it."""


class Sent(Enum):
    """What became of a message."""

    SENT = auto()
    DUPLICATE = auto()
    """The same `dedup` key was seen before; nothing was added."""
    FULL = auto()
    """The run has `MAIL_PENDING_MAX` messages pending; nothing was added."""
    GONE = auto()
    """The run has ended, or does not exist."""
    REVOKED = auto()
    """The run's agent was revoked; nothing was added."""


class Voted(Enum):
    """What became of a person's yes or no."""

    LET_THROUGH = auto()
    """Enough people have said yes: the call is performed now, once."""
    COUNTED = auto()
    """More people must say yes."""
    REJECTED = auto()
    """The program gets a PermissionError."""
    OTHER = auto()
    """The call is gated under another digest by now; nothing was counted."""
    EXPIRED = auto()
    """It is too late for a yes; nothing was counted."""
    GONE = auto()
    """It was let through, rejected or ended before, or its agent was revoked; nothing was counted."""


@frozen
class Lease:
    """A holder's right to advance the runs of one shard and to start their effects."""

    shard: int
    epoch: int


@frozen
class NewRun:
    """What a run begins with."""

    run_id: str
    agent: str
    name: str
    """For people: the program's file name, as a rule."""
    program: str
    """Source. Stored once per digest, however many runs share it."""
    inputs: Mapping[str, Value]
    checked: bytes | None = None
    """Digest of the types that it was checked against; None: unknown."""
    by: str = ""
    """Who starts it; "": nobody that is known."""
    only_reads: bool = False
    """Whether none of its calls may change anything, whatever its agent may do."""
    after: str | None = None
    """The ended run whose variables and functions it begins with."""
    keeps: bool = False
    """Whether its end leaves a state for another one."""
    origin: Origin | None = None
    """The call of another run that begins it, and that its end answers; None: it is nobody's child."""


@frozen
class Created:
    """The run that `create` made, or the one that an earlier `create` with the same `dedup` made."""

    run_id: str
    is_new: bool


@frozen
class Mail:
    """Something that waits for a run: an answer to one of its calls, or a message."""

    id: str
    index: int | None
    """The call it answers; None for a message, which any open `receive` may take."""
    answer: Answer
    """For a message: `Returned` with its value."""


@frozen
class Inherited:
    """What a run goes on with of one that has ended."""

    run_id: str
    agent: str
    seq: int
    """Of that run: its state is sealed for both."""
    sealed: bytes
    earlier: tuple[tuple[str, int | None], ...]
    """Sources that ran before, in order, each with the line outside of any function at which it failed; None: it ran to its end."""


@frozen
class Loaded:
    """A run as a turn begins: all that the turn needs, read at one instant."""

    run_id: str
    agent: str
    agent_epoch: int
    """The agent's epoch in which the run was made."""
    name: str
    program: str
    inputs: Mapping[str, Value]
    status: Status
    seq: int
    """Turns committed so far; the commit applies only if it still stands."""
    calls: int
    """The next free call index."""
    failures: int
    """Turns that failed in a row."""
    first: int | None
    receives: int
    snapshot: bytes | None
    """Sealed; None before the first turn."""
    mail: Sequence[Mail]
    """In order of id: the order in which one sender sent them. Of messages, only as many as `receives` can take."""
    due: Sequence[int]
    """Calls whose timer has passed, ascending. A call may have mail as well; then the mail is its answer."""
    checked: bytes | None = None
    """Digest of the types that its program was checked against; None: unknown."""
    only_reads: bool = False
    """See `NewRun`."""
    inherited: Inherited | None = None
    """What it began with; None: with nothing."""
    keeps: bool = False
    """See `NewRun`."""


@frozen
class Draft:
    """A run that is written down nowhere yet: the commit of its first turn makes it."""

    run: NewRun
    loaded: Loaded
    """As that turn finds it."""


@frozen
class NewCall:
    """An intent: it is performed only after the commit that holds it."""

    call: Call
    due_us: int | None = None
    """Its timer: the end of a sleep, or the time-out of a question or a receive."""
    person: str | None = None
    """Who must answer; makes it a question."""
    gate: Gate | None = None
    """Who must say yes before it is performed; `person` names them."""
    policies: tuple[str, ...] = ()
    """Ids of the rules that allow it."""


@frozen
class Turn:
    """One turn's commit."""

    run_id: str
    lease: Lease
    seq: int
    """As loaded."""
    status: Status
    """LIVE, or the end that the turn brought."""
    snapshot: bytes | None
    """Sealed for `seq + 1`; None if the run has ended and leaves nothing to another."""
    consumed: Sequence[str] = ()
    """Ids of the mail that the program received."""
    closed: Sequence[int] = ()
    """Calls that were answered, by mail or timer: their rows and timers go."""
    calls: Sequence[NewCall] = ()
    """Indices ascend from `Loaded.calls`, without a gap together with those of `answers`."""
    answers: Mapping[int, Answer] | None = None
    """Calls of this turn whose answer is known at once (denied, wrong arguments): they become mail in this commit."""
    calls_next: int
    """The next free call index afterwards."""
    rules: str = ""
    """Version of the rules by which its calls were decided."""
    first: int | None = None
    """The call that must be answered before any other (`time.sleep`); None: any order."""
    receives: int = 0
    """Open `receive` calls."""
    events: Sequence[Event] = ()
    draft: Draft | None = None
    """Of its first turn: the run is created in this commit as `create` would, unless it is there by now. `STALE` if it may not begin,
    its call has begun another one, or its agent is in another epoch."""


@frozen
class RunRecord:
    """A run as people see it."""

    run_id: str
    agent: str
    name: str
    program_digest: str
    """sha256 of the source, hex."""
    status: Status
    seq: int
    events: int
    calls: int
    failures: int
    not_before_us: int
    created_us: int
    changed_us: int
    """When the last turn was committed, or the run ended."""
    is_ready: bool
    """Whether a turn could run now."""
    due_us: int | None
    """Its next timer."""
    result: Value
    """FINISHED: the value. FAILED, QUARANTINED: `{"kind", "message", "line", "traceback"}`. CANCELLED: `{"by", "reason"}`."""
    snapshot_bytes: int
    is_revoked: bool
    """Whether its agent was revoked since it was made: it keeps what it had, and never goes on by itself."""
    parent: str | None = None
    """The run that began it; None: none did, or its record is gone."""
    is_kept: bool = False
    """Whether it has ended and another one may go on with its variables."""


@frozen
class CallRecord:
    """An open call."""

    call: Call
    state: CallState
    attempt: int
    """How often it has been started, or tried again; 0 before the first."""
    not_before_us: int
    """It will not be tried before; 0: at once."""
    due_us: int | None
    person: str | None
    made_us: int
    agent: str
    run_name: str
    agent_epoch: int
    """Of the agent, in which the run was made."""
    gate: Gate | None = None
    """The approval that it waits for, or had."""


@frozen
class Ready:
    """Work that waits."""

    run_ids: Sequence[str]
    """Ready runs, those with the oldest timer or mail first."""
    next_due_us: int | None
    """When the next run or call becomes ready by time alone; None: never."""


@frozen
class Page:
    """Which runs to list, newest first."""

    statuses: Sequence[Status] | None = None
    """None: any."""
    agent: str | None = None
    name: str | None = None
    before: str | None = None
    """Only runs whose id is below this one: the last id of the page before."""
    limit: int = 100


@frozen
class After:
    """A place in the list of questions: behind this one, whether or not it is still open."""

    made_us: int
    run_id: str
    index: int


@frozen
class Collected:
    """What `gc` removed."""

    runs: int
    events: int
    programs: int
    dedups: int


class Store(Protocol):
    """The durable store. Methods may be called from many tasks at once; each is atomic."""

    async def claim(self) -> Sequence[Lease]:
        """Return the leases that this process holds, taking free ones; the epoch of a newly taken one is new."""
        ...

    async def create(self, run: NewRun, *, dedup: str | None = None) -> Created:
        """Add a run, ready for its first turn, with its `created` event. An agent that is not known is enrolled.

        Raises:
            Revoked: the agent may not act.
            Conflict: its origin may begin no run: the call is closed, too deep, or one too many; or the run that it is to go on
                from has left no state.
        """
        ...

    async def draft(self, run: NewRun) -> Draft | None:
        """Return a run as its first turn would find it, and write nothing.

        Only its agent is looked at, and what it goes on from. None: `create` says what is wrong with those, or enrols the agent.
        """
        ...

    async def inherited(self, run_id: str) -> Inherited | None:
        """Return what a run would begin with that goes on from this one; None: it left nothing, or has not ended."""
        ...

    async def descendants(self, run_id: str) -> Sequence[str]:
        """Return the runs below one, of any generation, that have not ended."""
        ...

    async def send(self, run_id: str, message: Value, *, dedup: str | None = None, by: str = "") -> Sent:
        """Add a message to a run's mail, with its `message` event, which names the sender if there is one.

        Raises:
            values.Uncrossable: if the message is no plain data, or above `MESSAGE_BYTES_MAX`.
        """
        ...

    async def woken(self) -> frozenset[str]:
        """Wait until runs may have become ready through a commit of this process; return them. One caller at a time.

        A hint for speed: what it misses, `ready` finds.
        """
        ...

    async def ended(self) -> frozenset[str]:
        """Wait until commits of this process about other runs have ended runs; return those. One caller at a time.

        A hint, that nothing goes on computing for them: none of their turns is committed any more, and none of their effects starts.
        """
        ...

    async def ready(self, leases: Sequence[Lease], limit: int, *, since_us: int = 0) -> Ready:
        """Return ready runs of these leases, at most `limit`, and the next instant at which time makes one ready.

        After `since_us`, only those that time has made ready since: a timer or `not_before_us` that came after it.
        """
        ...

    async def load(self, run_id: str) -> Loaded | None:
        """Return a live run for a turn; None if it has ended, is quarantined, is unknown, or backs off until later."""
        ...

    async def commit(self, turn: Turn, *, can_wait: bool = False) -> Verdict:
        """Apply a turn, or say why not. If it can wait, others are about to be committed: let it share their sync."""
        ...

    async def stumble(self, run_id: str, lease: Lease, *, not_before_us: int, is_final: bool, event: Event) -> bool:
        """Count a failed turn: the run waits until `not_before_us`; if final it is quarantined, a child fails. False: fenced or ended."""
        ...

    async def release(self, run_id: str, event: Event, *, dedup: str | None = None) -> bool:
        """Make a quarantined run live again, with no failures. False: it is not quarantined."""
        ...

    async def end(
        self, run_id: str, status: Status, event: Event, *, dedup: str | None = None, is_first: bool = False
    ) -> bool:
        """End a live or quarantined run from outside (cancel); never waits for its owner. False: it had ended.

        `is_first`: before whatever else waits to be written; one at a time, so not for many.
        """
        ...

    async def performable(
        self, leases: Sequence[Lease], limit: int, *, since_us: int = 0, besides: Container[tuple[str, int]] = ()
    ) -> Sequence[CallRecord]:
        """Return calls that are to be performed now, but those of `besides` (run and index), which are under way.

        They are the reads, idempotents and writes that are INTENDED and past their `not_before_us`, and the writes that
        are STARTED under an epoch below the lease's, whose outcome is therefore unknown. After `since_us`, of the
        INTENDED only those whose `not_before_us` came after it.
        """
        ...

    async def start(self, call: Call, lease: Lease) -> bool:
        """Mark a write as about to leave, with its `started` event.

        False: fenced, ended, not INTENDED any more, or it waits for approval.
        """
        ...

    async def finish(self, run_id: str, index: int, answer: Answer, event: Event, *, dedup: str | None = None) -> bool:
        """Bring a call's answer: DONE, mail and `answered` event in one commit. False: it was answered or is gone."""
        ...

    async def keep(self, run_id: str, index: int, part: int, body: bytes) -> bool:
        """Keep a part of what an open call brought and no journal should hold. False: the call was answered or is gone.

        Parts are numbered from a multiple of `FILE_PARTS` on, one multiple for each file. The first of a file takes away what
        an earlier attempt left of it.
        """
        ...

    async def kept(self, run_id: str, index: int, part: int) -> bytes | None:
        """Return a part of what was kept for a call; None after the last one."""
        ...

    async def postpone(  # noqa: PLR0913 - what is known of a call that waits
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
        """Set a call back to INTENDED, to be tried again at `not_before_us`. False: fenced or gone.

        If its outcome was unknown, a yes that it had is spent: it is asked about again.
        With `more` its service has taken it and its attempts are counted from 0; without, it is one attempt more. With a
        `person` it is a question to them until then.
        """
        ...

    async def gate(self, call: Call, lease: Lease, gate: Gate, event: Event) -> bool:
        """Have an INTENDED call wait for approval, in place of what it waited for before. False: fenced, or not INTENDED."""
        ...

    async def vote(self, call: Call, digest: bytes, vote: Vote, answer: Answer, *, dedup: str | None = None) -> Voted:
        """Count what a person says of a gated call, once for each person, and let it through when that is enough.

        Args:
            call: gated, see `CallRecord.gate`.
            digest: what the person looked at; another one than the gate's counts for nothing.
            vote: theirs.
            answer: what the program gets if it is a no.
            dedup: remembered with what became of it: `KEY LET_THROUGH`.
        """
        ...

    async def has_seen(self, run_id: str, dedup: str) -> bool:
        """Whether something came for a run under this key."""
        ...

    async def park(self, call: Call, *, person: str, event: Event) -> bool:
        """Mark a write's outcome UNKNOWN: it becomes a question to `person`. False: it was answered or is gone."""
        ...

    async def run(self, run_id: str) -> RunRecord | None:
        """Return one run."""
        ...

    async def runs(self, page: Page) -> Sequence[RunRecord]:
        """Return runs, newest first."""
        ...

    async def find(self, text: str) -> Sequence[str]:
        """Return ids of runs whose id ends with `text`, at most 10, newest first."""
        ...

    async def counts(self, agents: Collection[str] | None = None) -> Mapping[Status, int]:
        """Return how many runs stand where: of these agents, or all."""
        ...

    async def calls(self, run_id: str) -> Sequence[CallRecord]:
        """Return a run's open calls, ascending."""
        ...

    async def questions(
        self, run_id: str | None = None, *, after: After | None = None, limit: int = 1_000
    ) -> Sequence[CallRecord]:
        """Return open calls that a person must answer, oldest first, those behind `after`; fewer if their arguments are large."""
        ...

    async def foremost(self, run_ids: Sequence[str]) -> Mapping[str, tuple[CallRecord, int]]:
        """Return of each run the open call that it waits for most, and how many are open; nothing of one that has none.

        People first, then what moves by itself, then timers by their instant.
        """
        ...

    async def asked(self) -> int:
        """Return how many open calls a person must answer."""
        ...

    async def journal(self, run_id: str, since: int = 0, limit: int = 1_000) -> Sequence[Event]:
        """Return a run's events from position `since` on."""
        ...

    async def watch(self, run_id: str, since: int) -> None:
        """Return when the run's journal has an event at position `since`, or the run goes on no more; at once if it is so."""
        ...

    async def over(self, run_id: str) -> None:
        """Return when the run goes on no more: it has ended, is quarantined, its agent is revoked, or there is no such run."""
        ...

    async def program(self, digest: str) -> str | None:
        """Return a program's source."""
        ...

    async def collect(self, ended_before_us: int, *, limit: int = 10_000) -> Collected:
        """Delete runs that ended before an instant, with their journals, and what nothing refers to any more."""
        ...

    async def close(self) -> None:
        """Finish what was submitted and let go of the files."""
        ...
