"""THE MAIN LOOP. One turn of one run: answers in, the program runs until it is blocked or done, one commit out.

    mail, timers ──► given ──► the program runs ──► Blocked | Finished | Failed
                                                        │
                      policy decides each new call: Allow │ Deny
                                                        ▼
         ONE COMMIT, fenced: snapshot + intents + consumed mail + timers + journal
                                                        ▼
         effects start only from committed intents (effects.py); their answers come as mail or by hand, and the run is
         due again

Nothing outside happens in a turn. If the process dies before the commit, the turn was never taken; if it dies after, the
intents are found in the store. So a crash can only repeat a call under the key it had, `(run, index)`.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache

from overwinter import journal
from overwinter.approval import Gate, Need, digest
from overwinter.catalog import Catalog, Function, bind
from overwinter.check import Finding
from overwinter.clock import SECOND_US
from overwinter.errors import SnapshotRefused, WakeDenied
from overwinter.events import Answer, Call, Effect, Event, Raised, Status
from overwinter.frozen import frozen, replace
from overwinter.handles import unbound
from overwinter.interpreter import Blocked, Failed, Finished, Interpreter, Limits, Outcome, Program, Request
from overwinter.journal import Given
from overwinter.policy import Allow, Ask, Decision, Deny, Policy, Resource
from overwinter.principal import Principal
from overwinter.rebuild import rebuild, told
from overwinter.recheck import recheck
from overwinter.snapshot import Snapshot, seal, unseal
from overwinter.store import Draft, Inherited, Lease, Loaded, NewCall, Store, Turn, Verdict
from overwinter.values import Value
from overwinter.waits import WAITS, meant, snapshot_after, until, wait

__all__ = [
    "Began", "Means", "Standing", "Turned", "advance", "approvable", "decide", "deliveries", "may_go_on", "opened", "permitted", "principal_of",
    "program_of", "settle", "turn",
]  # fmt: skip


NAME_LENGTH_MAX = 200
NAMES_REMEMBERED = 1_000


@frozen
class Means:
    """What turns are made with; the same for every run of a home."""

    interpreter: Interpreter
    policy: Policy
    catalog: Catalog
    named: Callable[[tuple[str, ...]], Mapping[str, tuple[str, ...]]]
    """Which functions of which modules sources name, remembered: parsing costs more than a turn. Those of earlier programs are
    called by functions that they left."""
    key: bytes
    """Authenticates snapshots; lies outside the store."""
    limits: Limits
    owners: Mapping[str, str]
    """Agent name to the person who answers for it."""
    parents: Mapping[str, tuple[str, ...]]
    """Agent name to those above it, the highest first."""
    types: Callable[[str], bytes]
    """Digest of the types that a source speaks of, as they are now; remembered."""
    check: Callable[[Loaded], Awaitable[Sequence[Finding]]]
    """What is wrong with a run's program, by those types; remembered."""


@frozen
class Standing:
    """Where a run stands between two turns."""

    run: Loaded
    state: Snapshot | None = None
    """Its state, if this process has just written it; None: it is in the store, sealed, or there is none yet."""
    draft: Draft | None = None
    """What the commit of its first turn makes, if the run itself is not written down yet."""


@frozen
class Turned:
    """What became of a turn."""

    verdict: Verdict
    calls: Sequence[NewCall] = ()
    """The intents that the commit holds, to be performed now."""
    status: Status = Status.LIVE
    answered: frozenset[int] = frozenset()
    """Calls whose answers the program got: with the commit they are durable."""
    rules: str = ""
    """Version of the rules by which its calls were decided."""
    left: Standing | None = None
    """What the commit left, without what came meanwhile; None if the run has ended."""


@frozen
class Began:
    """A turn as it begins."""

    run: Loaded
    lease: Lease
    snapshot: Snapshot | None
    """None before the run's first turn."""
    given: Sequence[Given]
    """What the program gets, one answer for each call that is answered now."""
    now_us: int
    """The only instant that the program can read in this turn."""


async def turn(  # noqa: PLR0913 - what a turn is made of, no more
    standing: Standing,
    lease: Lease,
    means: Means,
    store: Store,
    now_us: int,
    *,
    in_hand: Mapping[int, Answer],
    can_wait: bool = False,
) -> Turned | None:
    """Take one turn: resume the program with what has arrived, decide its calls, commit. None: nothing had arrived.

    Args:
        standing: the run as loaded, or as its last turn left it.
        lease: the right to commit.
        means: what turns are made with.
        store: takes the commit.
        now_us: the instant of the turn.
        in_hand: answers that are nowhere but here yet, by call. The commit writes those down that the program got.
        can_wait: whether other turns are about to be committed; see `Store.commit`.

    Raises:
        WorkerCrashed: the interpreter died under it; nothing was committed and the turn may be taken again.
        SnapshotRefused: the snapshot cannot be trusted and the journal cannot rebuild it; a person must look.
        ProgramOutdated: what it calls has changed, and what is left of it does not fit; a person must look.
        WakeDenied: the rules do not let its agent go on; a person must look.
    """
    run, snapshot = standing.run, standing.state
    may_go_on(run, means)
    refused: tuple[Event, ...] = ()
    try:
        snapshot = snapshot or opened(run, means)
    except SnapshotRefused as error:
        snapshot = await rebuild(run, program_of(run, means), means.interpreter, store)
        refused = (Event(kind="refused", body={"reason": str(error)}),)
    given = deliveries(snapshot, run, in_hand) if snapshot else ()
    if snapshot and not given:
        return None
    if snapshot and run.checked and run.checked != means.types(run.program):
        await recheck(run, means.check, store)
    began = Began(run=run, lease=lease, snapshot=snapshot, given=given, now_us=now_us)
    outcome = await advance(began, means)
    rules = means.policy.version
    commit, state = settle(began, outcome, means)
    if refused:
        commit = replace(commit, events=(*refused, *commit.events))
    if standing.draft is not None:
        commit = replace(commit, draft=standing.draft)
    verdict = await store.commit(commit, can_wait=can_wait)
    return Turned(
        verdict=verdict,
        calls=commit.calls,
        status=commit.status,
        rules=rules,
        answered=frozenset([each.index for each in given]),
        left=None if state is None else Standing(run=_after(run, commit), state=state),
    )


def may_go_on(run: Loaded, means: Means) -> None:
    """Have the rules say whether a run may take a turn.

    Raises:
        WakeDenied: they do not let it.
    """
    principal = principal_of(run.agent, run.run_id, means)
    match means.policy.decide(principal, "wake", _waking(run.name), {}):
        case Allow():
            pass
        case Deny(reason=reason) | Ask(reason=reason):
            raise WakeDenied(reason)


def settle(began: Began, outcome: Outcome, means: Means) -> tuple[Turn, Snapshot | None]:
    """Return the one commit that an outcome of the program comes to, and the state in it if the run goes on.

    Pure: nothing has happened outside.
    """
    match outcome:
        case Blocked(pending=pending) if not pending:
            # D9: an await that nothing can answer must not sleep for ever.
            return _ended(began, Status.FAILED, outcome, journal.failed(_deadlock(outcome))), None
        case Blocked():
            return _blocked(began, outcome, means)
        case Finished():
            return _ended(
                began, Status.FINISHED, outcome, journal.finished(outcome), _left(began, outcome.state, means)
            ), None
        case Failed():
            return _ended(
                began, Status.FAILED, outcome, journal.failed(outcome), _left(began, outcome.state, means)
            ), None


# --- Before: what the program is given -------------------------------------------------------------------------------


def opened(run: Loaded, means: Means) -> Snapshot | None:
    """Return the run's snapshot, authenticated; None before its first turn.

    Raises:
        SnapshotRefused: if it was altered, or another engine wrote it.
    """
    if run.snapshot is None and run.seq == 0:
        return None
    if run.snapshot is None:
        raise SnapshotRefused(f"run {run.run_id} has taken {run.seq} turns and has no snapshot")
    snapshot = unseal(means.key, run.run_id, run.seq, run.snapshot, bytes_max=2 * means.limits.snapshot_bytes)
    if snapshot.engine != means.interpreter.engine:
        raise SnapshotRefused(f"{snapshot.engine} wrote the snapshot, this is {means.interpreter.engine}")
    return snapshot


def deliveries(snapshot: Snapshot, run: Loaded, in_hand: Mapping[int, Answer]) -> tuple[Given, ...]:
    """Return what has arrived for the calls that wait, one answer for each, in order of index.

    An answer goes before a passed timer; messages go to the open receives in order, as far as they reach.
    """
    indices = set(snapshot.pending.values())
    given: dict[int, Given] = {}
    messages = iter([mail for mail in run.mail if mail.index is None])
    for mail in run.mail:
        if mail.index in indices:
            given[mail.index] = Given(index=mail.index, answer=mail.answer, by="mail", mail_id=mail.id)
    for index, mail in zip([each for each in snapshot.receives if each not in given], messages, strict=False):
        given[index] = Given(index=index, answer=mail.answer, by="message", mail_id=mail.id)
    for index, answer in in_hand.items():
        if index in indices and index not in given:
            given[index] = Given(index=index, answer=answer, by="hand")
    for index in run.due:
        if index in indices and index not in given:
            answer = journal.timer_answer(is_sleep=index in snapshot.sleeps)
            given[index] = Given(index=index, answer=answer, by="timer")
    if snapshot.first is not None:
        return (given[snapshot.first],) if snapshot.first in given else ()
    return tuple(given[index] for index in sorted(given))


async def advance(began: Began, means: Means) -> Outcome:
    """Run the program on from where it stands, until it is blocked or done."""
    program = program_of(began.run, means, is_first=began.snapshot is None)
    if began.snapshot is None:
        return await means.interpreter.start(program, now_us=began.now_us)
    tickets = {index: ticket for ticket, index in began.snapshot.pending.items()}
    answers = {tickets[each.index]: told(each.index, each.answer) for each in began.given}
    return await means.interpreter.resume(program, began.snapshot.body, answers, now_us=began.now_us)


def program_of(run: Loaded, means: Means, *, is_first: bool = True) -> Program:
    """Return the run's program with the modules that it names; for its first turn with the state that it begins with."""
    if run.inherited is None:
        modules = means.named((run.program,))
        return Program(run_id=run.run_id, source=run.program, inputs=run.inputs, modules=modules, keeps=run.keeps)
    before = run.inherited
    sources = tuple(source for source, _ in before.earlier)
    return Program(
        run_id=run.run_id,
        source=run.program,
        inputs=run.inputs,
        modules=means.named((*sources, run.program)),
        earlier=sources,
        state=_state_after(before, means) if is_first else None,
        keeps=run.keeps,
    )


def _state_after(before: Inherited, means: Means) -> bytes:
    """Return the state that a run has left, if it is what was written and this interpreter can read it."""
    snapshot = unseal(means.key, before.run_id, before.seq, before.sealed, bytes_max=2 * means.limits.snapshot_bytes)
    if snapshot.engine != means.interpreter.engine:
        raise SnapshotRefused(
            f"{snapshot.engine} wrote what run {before.run_id} left, this is {means.interpreter.engine}: start anew"
        )
    return snapshot.body


# --- After: what the outcome comes to ---------------------------------------------------------------------------------


def _blocked(began: Began, outcome: Blocked, means: Means) -> tuple[Turn, Snapshot]:
    run, before = began.run, began.snapshot
    calls: list[NewCall] = []
    answers: dict[int, Answer] = {}
    events = _opening(began, outcome)
    for index, request in enumerate(map(meant, outcome.requests), run.calls):
        match decide(began, index, request, means):
            case NewCall() as intent:
                calls.append(intent)
                events.append(journal.called(intent.call, due_us=intent.due_us, person=intent.person))
                if intent.gate is not None:
                    events.append(journal.gated(intent.call, intent.gate))
                elif intent.person is not None:
                    events.append(journal.asked(intent.call, intent.person))
            case Raised() as refusal:
                answers[index] = refusal
                events.append(journal.denied(index, request, refusal.message))
                events.append(journal.answered(index, refusal))
    after = snapshot_after(means.interpreter.engine, before, outcome, run.calls)
    gone = set(before.pending.values()) - set(after.pending.values()) if before else set[int]()
    commit = Turn(
        run_id=run.run_id,
        lease=began.lease,
        seq=run.seq,
        status=Status.LIVE,
        snapshot=seal(means.key, run.run_id, run.seq + 1, after),
        consumed=_consumed(began),
        closed=tuple(gone | {each.index for each in began.given}),
        calls=calls,
        answers=answers,
        calls_next=run.calls + len(outcome.requests),
        rules=means.policy.version,
        first=after.first,
        receives=len(after.receives),
        events=events,
    )
    return commit, after


def decide(began: Began, index: int, request: Request, means: Means) -> NewCall | Raised:
    """Return the intent of a requested call, or the error that the program gets instead of it."""
    bound = _bound(request, means)
    if began.run.only_reads and not isinstance(bound, Raised) and bound[0].effect not in ("read", "wait"):
        message = f"{bound[0].name} changes something ({bound[0].effect}), and this run may only read"
        bound = Raised(kind="PermissionError", message=message, status=403, code="only-reads")
    if isinstance(bound, Raised):
        return bound
    function, arguments = bound
    call = Call(
        run_id=began.run.run_id,
        index=index,
        function=function.name,
        arguments=arguments,
        effect=function.effect,
        line=request.line,
        agent=began.run.agent,
    )
    if function.name in WAITS:
        return _waiting(call, began.now_us)
    if isinstance(due := until(function.name, arguments, began.now_us), str):
        return Raised(kind="ValueError", message=due)
    match permitted(call, began.run.agent_epoch, means, began.now_us):
        case Allow(policies=policies):
            return NewCall(call=call, due_us=due, policies=policies)
        case Gate() as gate:
            return NewCall(call=call, due_us=gate.expires_us, person=gate.approver, gate=gate)
        case Raised() as refusal:
            return refusal


def _waiting(call: Call, now_us: int) -> NewCall | Raised:
    waits = wait(call.function, call.arguments, now_us)
    if isinstance(waits, str):
        return Raised(kind="ValueError", message=waits)
    return NewCall(call=call, due_us=waits.due_us, person=waits.person)


def permitted(
    call: Call, agent_epoch: int, means: Means, now_us: int, *, standing: Gate | None = None
) -> Allow | Gate | Raised:
    """Decide a call at this moment: whether it may be performed, who must approve it first, or why it may not be.

    Args:
        call: about to be intended, or about to be performed.
        agent_epoch: of its agent, as its run has it.
        means: the policy, and what it must know.
        now_us: this moment, from which people have so long to answer.
        standing: the gate that it has. If the rules ask for the same, it is returned as it is, its end with it, or the
            call may be performed if it was passed. If they ask for anything else by now, a yes to it counts for nothing.
    """
    function = WAITS.get(call.function) or means.catalog.function(call.function)
    if function is None or function.fault:
        return Raised(
            kind="PermissionError",
            message=f"{call.function}: {function.fault if function else 'it is gone'}",
            status=403,
            code="changed",
        )
    decision = _decided(call, function, means)
    if function.is_gated and isinstance(decision, Allow):
        owner = principal_of(call.agent, call.run_id, means).owner
        decision = Ask(needs=(Need((owner,)),), reason="its author wants each call approved")
    if isinstance(decision, Ask):
        if (handle := unbound(call.arguments.values())) is not None:
            message = f"{call.function}: {decision.approver} would approve the file {handle} without its hash: pass on the handle as the call that brought the file returned it"
            return Raised(kind="PermissionError", message=message, status=403, code="unbound")
        gate = _gate(call, function, agent_epoch, decision, means, now_us, standing)
        if not gate.is_used:
            return gate
        decision = _decided(call, function, means, approved=True)
    match decision:
        case Allow():
            return decision
        case Deny(reason=reason) | Ask(reason=reason):
            return Raised(kind="PermissionError", message=reason, status=403, code="denied")


def approvable(call: Call, person: str, means: Means) -> Decision:
    """Return whether the rules let a person who is asked say yes to a call."""
    function = means.catalog.function(call.function)
    if function is None:
        return Allow()  # to refuse it, see `permitted`
    resource = Resource(
        name=function.name, effect=function.effect, pin_ok=not function.fault, stub=function.stub, approver=person
    )
    principal = replace(principal_of(call.agent, call.run_id, means), person=person)
    return means.policy.decide(principal, "approve", resource, call.arguments)


def _decided(call: Call, function: Function, means: Means, *, approved: bool = False) -> Decision:
    resource = _called(function.name, function.effect, function.stub, pin_ok=not function.fault)
    principal = principal_of(call.agent, call.run_id, means)
    return means.policy.decide(principal, "call", resource, call.arguments, approved=approved)


def _gate(  # noqa: PLR0913, PLR0917 - all that a gate is made of
    call: Call, function: Function, agent_epoch: int, asked: Ask, means: Means, now_us: int, standing: Gate | None
) -> Gate:
    pin = hashlib.sha256(function.stub.encode("utf-8", "surrogatepass")).hexdigest()

    def bound(expires_us: int | None) -> bytes:
        return digest(
            call, agent_epoch=agent_epoch, pin=pin, rules=means.policy.version, needs=asked.needs, expires_us=expires_us
        )

    # The end of a gate is counted from when it was made: counted anew it would be another gate at each look.
    has_end = asked.lasts_s is not None
    if standing and (standing.expires_us is not None) == has_end and standing.digest == bound(standing.expires_us):
        return standing
    expires_us = None if asked.lasts_s is None else now_us + asked.lasts_s * SECOND_US
    return Gate(
        digest=bound(expires_us), needs=asked.needs, reason=asked.reason, policies=asked.policies, expires_us=expires_us
    )


def principal_of(agent: str, run_id: str, means: Means) -> Principal:
    """Return who acts in a run, with those on whose behalf."""
    return Principal(
        agent=agent, run_id=run_id, owner=means.owners.get(agent, "owner"), parents=means.parents.get(agent, ())
    )


def _bound(request: Request, means: Means) -> tuple[Function, Mapping[str, Value]] | Raised:
    function = WAITS.get(request.function) or means.catalog.function(request.function)
    if request.function == "tools.call":
        message = (
            "tools.call takes the full name of a function and its arguments as a dict; what waits is awaited itself"
        )
        return Raised(kind="TypeError", message=message)
    if function is None:
        return Raised(kind="AttributeError", message=f"there is no function {request.function}")
    if function.fault:
        return Raised(kind="PermissionError", message=f"{function.name}: {function.fault}", status=403, code="changed")
    arguments = bind(function, request.args, request.kwargs)
    return Raised(kind="TypeError", message=arguments) if isinstance(arguments, str) else (function, arguments)


def _left(began: Began, state: bytes | None, means: Means) -> bytes | None:
    """Return what another program goes on with, sealed."""
    if state is None:
        return None
    left = Snapshot(engine=means.interpreter.engine, pending={}, first=None, receives=(), sleeps=(), body=state)
    return seal(means.key, began.run.run_id, began.run.seq + 1, left)


def _ended(began: Began, status: Status, outcome: Outcome, last: Event, left: bytes | None = None) -> Turn:
    return Turn(
        run_id=began.run.run_id,
        lease=began.lease,
        seq=began.run.seq,
        status=status,
        snapshot=left,
        consumed=_consumed(began),
        calls_next=began.run.calls,
        events=[*_opening(began, outcome), last],
    )


def _opening(began: Began, outcome: Outcome) -> list[Event]:
    events = [journal.answered(each.index, each.answer) for each in began.given if each.by == "hand"]
    events.append(journal.turn(began.now_us, began.given))
    return [*events, journal.printed(outcome.output)] if outcome.output else events


# Made at each turn, these two took a hundredth of it: a resource has ten fields.
@lru_cache(NAMES_REMEMBERED)
def _waking(name: str) -> Resource:
    """Return a run that is to go on, its name as a rule can speak of it."""
    return Resource(name=re.sub(r"[^\w.@/-]+", "_", name)[:NAME_LENGTH_MAX] or "program", effect="wait")


@lru_cache(NAMES_REMEMBERED)
def _called(name: str, effect: Effect, stub: str, *, pin_ok: bool) -> Resource:
    """Return a function that is to be called."""
    return Resource(name=name, effect=effect, pin_ok=pin_ok, stub=stub)


def _after(run: Loaded, commit: Turn) -> Loaded:
    # Not `replace`, which takes three times as long.
    return Loaded(
        run_id=run.run_id,
        agent=run.agent,
        name=run.name,
        program=run.program,
        inputs=run.inputs,
        status=run.status,
        seq=run.seq + 1,
        calls=commit.calls_next,
        failures=0,
        first=commit.first,
        receives=commit.receives,
        snapshot=commit.snapshot,
        mail=(),
        due=(),
        checked=run.checked,
        agent_epoch=run.agent_epoch,
        only_reads=run.only_reads,
        inherited=run.inherited,
        keeps=run.keeps,
    )


def _consumed(began: Began) -> tuple[str, ...]:
    return tuple(each.mail_id for each in began.given if each.mail_id is not None)


def _deadlock(outcome: Blocked) -> Failed:
    message = "the program awaits something that nothing can answer"
    return Failed(kind="RuntimeError", message=message, line=0, traceback="", output=outcome.output)
