"""A run's state made anew from its journal, when its snapshot is missing, refused or of another engine.

The journal holds the program, every answer and the instant of every turn; `random` is seeded with the run. So the same
turns are taken again, without any effect: a call that the program makes must be the one the journal has at that index,
and is answered from the journal. The first difference stops the rebuild, for beyond it the two histories part.
"""

from collections.abc import Mapping

from overwinter.errors import SnapshotRefused
from overwinter.events import Answer, Event, Raised, describe
from overwinter.frozen import replace
from overwinter.interpreter import Blocked, Interpreter, Outcome, Program, Request
from overwinter.journal import PastTurn, history
from overwinter.snapshot import Snapshot
from overwinter.store import Loaded, Store
from overwinter.waits import meant, snapshot_after

__all__ = ["rebuild", "told"]

PAGE = 1_000
"""Events read at a time."""


async def rebuild(run: Loaded, program: Program, interpreter: Interpreter, store: Store) -> Snapshot:
    """Return the state of a run after the last turn of its journal.

    Raises:
        SnapshotRefused: if the program goes another way than the journal, or the journal is not whole.
        WorkerCrashed: the interpreter died under it; it may be tried again.
    """
    turns = history(await _whole_journal(run, store))
    if len(turns) != run.seq:
        raise SnapshotRefused(f"run {run.run_id} took {run.seq} turns, its journal holds {len(turns)}")
    snapshot: Snapshot | None = None
    made = 0
    for number, past in enumerate(turns):
        outcome = await _repeat(program, interpreter, snapshot, past)
        if not isinstance(outcome, Blocked):
            raise SnapshotRefused(f"run {run.run_id} does not repeat its journal: turn {number + 1} ends the program")
        _compare(run.run_id, number, outcome.requests, past)
        snapshot = snapshot_after(interpreter.engine, snapshot, outcome, made)
        made += len(outcome.requests)
    if snapshot is None:
        raise SnapshotRefused(f"run {run.run_id} has an empty journal")
    return snapshot


async def _whole_journal(run: Loaded, store: Store) -> list[Event]:
    events: list[Event] = []
    while page := await store.journal(run.run_id, len(events), PAGE):
        events += page
    return events


async def _repeat(program: Program, interpreter: Interpreter, snapshot: Snapshot | None, past: PastTurn) -> Outcome:
    if snapshot is None:
        return await interpreter.start(program, now_us=past.now_us)
    tickets = {index: ticket for ticket, index in snapshot.pending.items()}
    answers = {tickets[index]: told(index, answer) for index, answer in past.given}
    return await interpreter.resume(program, snapshot.body, answers, now_us=past.now_us)


def told(index: int, answer: Answer) -> Answer:
    """Return an answer as the program sees it: an error's message carries what `tools.error` reads back."""
    return replace(answer, message=describe(answer, index)) if isinstance(answer, Raised) else answer


def _compare(run_id: str, number: int, requests: tuple[Request, ...], past: PastTurn) -> None:
    requests = tuple(map(meant, requests))
    now = [request.function for request in requests]
    then = [function for _, function, _ in past.made]
    if now != then:
        raise SnapshotRefused(
            f"run {run_id} does not repeat its journal: in turn {number + 1} it calls {now}, the journal has {then}"
        )
    for request, (index, function, arguments) in zip(requests, past.made, strict=True):
        if not _are_same(request, arguments):
            raise SnapshotRefused(
                f"run {run_id} does not repeat its journal: call {index} of {function} has other arguments"
            )


def _are_same(request: Request, arguments: Mapping[str, object]) -> bool:
    """Positions were bound to names when the call was journaled: compare the values in order, and the names given."""
    values = list(arguments.values())
    return values[: len(request.args)] == list(request.args) and all(
        name in arguments and arguments[name] == value for name, value in request.kwargs.items()
    )
