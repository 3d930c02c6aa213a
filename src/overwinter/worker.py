"""Claims runs, takes their turns and performs their calls, until it is cancelled.

One task listens for wake-ups, one keeps the alarm for timers and looks for what a hint missed, and as many as there are
interpreter workers take turns. A run is in the hands of at most one of them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import anyio
import anyio.lowlevel

from overwinter.catalog import Tools
from overwinter.clock import SECOND_US, Clock
from overwinter.effects import Attempt, Cut, Effects, InHand
from overwinter.errors import HomeError, HomeHeld, JailUnavailable, ProgramOutdated, SnapshotRefused, WakeDenied
from overwinter.events import Event
from overwinter.frozen import frozen
from overwinter.line import Line
from overwinter.store import NEVER_US, Created, Draft, Lease, Loaded, NewRun, Store, Verdict
from overwinter.turn import Means, Standing, Turned, turn
from overwinter.values import Value

__all__ = ["FAILURES_MAX", "Pulse", "Stopped", "Worker"]

FAILURES_MAX = 5
"""Turns of one run that may fail in a row before it is quarantined."""
STUMBLE_S_MAX = 300.0
SAFETY_POLL_US = 1 * SECOND_US
"""How late a wake-up may be whose hint was lost."""
FULL_LOOK_US = SAFETY_POLL_US // 10
"""How long a call waits at most after there is room for it."""
QUEUE_MAX = 10_000
"""Ready runs held in memory; the rest stays in the store until there is room."""
CROWD = 64
"""Runs at it or in line from which on commits wait for each other, see `adapters/sqlite/writer.py`."""
LEFT_MAX = 256
LEFT_BYTES_MAX = 64 << 10
"""Runs whose state stays in memory while a call of theirs is in flight, and how large it may be: the answer of a quick
call need not read back what was written a moment ago."""
LEFT_US_MAX = 1_000_000
"""How long: an answer that took longer than `effects.BY_HAND_US_MAX` is read from the store anyway, and the state with it."""
DRAFT_S_MAX = 0.02
"""How long a run may be nowhere but in memory: most programs make their first call, or end, within a millisecond."""
DRAIN_LOOK_S = 0.02
STOP_S_MAX = 1.0
STOP_LOOK_S = 0.001
STORE_PAUSE_S = 1.0
"""How long to leave a store alone that could not be read or written (a full disk)."""


@frozen
class Pulse:
    """What a worker has done and holds."""

    turns: int
    queued: int
    busy: int
    in_flight: int
    epoch: int


@frozen
class Stopped:
    """What was stopped in mid-task."""

    turns: Sequence[str]
    """Runs whose program was computing: its interpreter was killed."""
    cut: Sequence[Cut]
    """Calls in flight."""


@dataclass(slots=True, eq=False)
class _Beginning:
    """A run that is to be written down with its first turn."""

    run: NewRun
    draft: Draft | None = None
    is_over: anyio.Event = field(default_factory=anyio.Event)
    """Set when that turn was taken or has failed, or is not to be taken from the draft any more."""
    is_written: bool = False


@dataclass(slots=True, eq=False)
class _Left:
    """A run as its last turn left it, in memory."""

    since_us: int
    standing: Standing
    is_whole: bool = True
    """False: something waits for it in the store by now, so only its state is as it was."""


class Worker:
    """One process's part in the work. `run` it in a task; it ends when it is cancelled or fenced."""

    def __init__(  # noqa: PLR0913 - a composition root names each part once
        self, store: Store, means: Means, tools: Tools, clock: Clock, *, slots: int, calls_max: int, random: Random
    ) -> None:
        self._store = store
        self._means = means
        self._clock = clock
        self._slots = slots
        self._effects = Effects(
            store, tools, clock, means, calls_max=calls_max, random=random, has_answer=self._go_on, ring=self.ring
        )
        self._leases: Mapping[int, Lease] = {}
        self._line = Line()
        self._busy: dict[str, anyio.CancelScope] = {}
        self._agents: dict[str, str] = {}
        """Agent of each run that is in a turn."""
        self._again: set[str] = set()
        self._left: dict[str, _Left] = {}
        """The oldest first."""
        self._beginning: dict[str, _Beginning] = {}
        self._scope = anyio.CancelScope()
        self._alarm_us = 0
        self._rung = anyio.Event()
        self._looked_us = 0
        """The instant up to which what time makes ready was found."""
        self._whole_us = 0
        """When everything in the store was looked through last; 0: it is to be looked through at once."""
        self._is_full = False
        """Whether calls may wait for which there was no room when they were begun, or looked for."""
        self._turns = 0
        self._is_draining = False

    def pulse(self) -> Pulse:
        """Return what the worker does at this moment."""
        epoch = max((lease.epoch for lease in self._leases.values()), default=0)
        return Pulse(
            turns=self._turns,
            queued=len(self._line),
            busy=len(self._busy),
            in_flight=self._effects.in_flight,
            epoch=epoch,
        )

    @property
    def _is_crowded(self) -> bool:
        """Whether so many runs are at it that a turn waits longer for an interpreter than for its commit."""
        return len(self._busy) + len(self._line) >= CROWD

    async def begin(self, run: NewRun) -> Created:
        """Create a run that a call waits for: in the commit of its first turn, if that is to be had at once, else before it.

        It is not while many turns are under way or wait, nor if the turn takes long or fails: nobody should wait for what is
        nowhere but in memory.

        Raises:
            Revoked: see `Store.create`; the same as `Conflict`.
        """
        if self._is_draining or self._is_crowded or self._means.policy.fault or not self._leases:
            return await self._store.create(run)
        beginning = self._beginning[run.run_id] = _Beginning(run)  # before it is looked at: a revocation must find it
        is_made = False
        try:
            beginning.draft = await self._store.draft(run)
            if beginning.draft is not None and not beginning.is_over.is_set():
                self._line.add(run.run_id, is_answered=False)
                with anyio.move_on_after(DRAFT_S_MAX):
                    await beginning.is_over.wait()
            beginning.is_over.set()  # what has not begun by now begins from the store
            is_made = beginning.is_written
            created = Created(run_id=run.run_id, is_new=True) if is_made else await self._store.create(run)
            is_made = created.run_id == run.run_id
        finally:
            del self._beginning[run.run_id]
            if not (is_made or beginning.is_written) and run.run_id in self._busy:
                self._busy[run.run_id].cancel()  # nothing computes for a run that there will not be
        return created

    async def interrupt(self, run_id: str) -> Stopped:
        """Stop a run that has been ended: kill its interpreter worker if it is in a turn, cancel its calls in flight."""
        self._left.pop(run_id, None)
        origins = {each: beginning.run.origin for each, beginning in self._beginning.items()}
        begun = [each for each, origin in origins.items() if origin is not None and origin.run_id == run_id]
        turns = [each for each in (run_id, *begun) if each in self._busy]
        return await self._stop(turns, lambda attempt: attempt.call.run_id == run_id)

    async def revoked(self, agents: Collection[str]) -> Stopped:
        """Stop every run of agents that were revoked, and return when all have stopped."""
        # A function that swallows its cancellation still answers: its run must be looked up, and is then not found active.
        self._left = {run_id: left for run_id, left in self._left.items() if left.standing.run.agent not in agents}
        for beginning in self._beginning.values():
            if beginning.run.agent in agents:
                beginning.is_over.set()
        turns = [run_id for run_id, agent in self._agents.items() if agent in agents]
        return await self._stop(turns, lambda attempt: attempt.agent in agents)

    async def _stop(self, turns: Sequence[str], concerns: Callable[[Attempt], bool]) -> Stopped:
        for run_id in turns:
            self._busy[run_id].cancel()
        cut = await self._effects.cut(concerns)
        with anyio.move_on_after(STOP_S_MAX):
            while any(run_id in self._busy for run_id in turns):  # noqa: ASYNC110 - each ends within a millisecond or two
                await anyio.sleep(STOP_LOOK_S)
        await self._effects.park(cut, "its agent was stopped while it was on the wire")
        return Stopped(turns=turns, cut=cut)

    def ring(self, at_us: int) -> None:
        """Have the worker look at `at_us` for what becomes ready at that instant, if it would not have looked before.

        An instant that has passed is looked for at once. At 0 everything is looked through: for what became ready by
        something else than time.
        """
        if at_us:
            self._looked_us = min(self._looked_us, at_us - 1)  # a look came between that instant and its commit
        else:
            self._whole_us = 0
        if at_us < self._alarm_us:
            self._alarm_us = at_us
            self._rung.set()

    async def drain(self) -> None:
        """Begin no turn and no call any more, and return when those under way have ended."""
        self._is_draining = True
        while self._busy or self._effects.in_flight:  # noqa: ASYNC110 - dozens of tasks end here, none knows the last
            await anyio.sleep(DRAIN_LOOK_S)

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            HomeHeld: every lease is lost; whatever this process would still do, no store takes it.
            JailUnavailable: no interpreter worker can be started any more.
        """
        self._leases = {lease.shard: lease for lease in await self._store.claim()}
        async with anyio.create_task_group() as group, self._effects.open():
            self._scope = group.cancel_scope
            group.start_soon(self._listen)
            group.start_soon(self._hear_ends)
            group.start_soon(self._watch)
            for _ in range(self._slots):
                group.start_soon(self._drive)
            await anyio.sleep_forever()
        if not self._leases:
            raise HomeHeld("another process has opened this home: this one lets go of it")

    # --- Finding work ------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            for run_id in await self._store.woken():
                self._enqueue(run_id)

    async def _hear_ends(self) -> None:
        """Stop what runs are at that were ended with others: by a time-out of the call that began them, or their parent's end."""
        while True:
            ended = await self._store.ended()
            for run_id in ended & {*self._busy, *(run_id for run_id, _ in self._effects.places)}:
                with suppress(HomeError):  # all of it has stopped; only what became of a write was not written down
                    await self.interrupt(run_id)

    async def _watch(self) -> None:
        while True:
            self._alarm_us = NEVER_US  # whatever rings during the look is heard after it
            began_us = self._clock.now_us()
            try:
                next_us = await self._look()
            except HomeError:
                self._whole_us = 0
                await anyio.sleep(STORE_PAUSE_S)
                continue
            now_us = self._clock.now_us()
            rested_us = now_us + max(0, now_us - began_us)  # a look at a million runs leaves as much time to others
            self._alarm_us = min(self._alarm_us, max(next_us, rested_us), now_us + SAFETY_POLL_US)
            await self._until_alarm()

    async def _look(self) -> int:
        """Take up what is ready and what is to be performed; return when to look again.

        Most looks are for a timer, and find what time has made ready since the last one. All that waits is looked
        through once a second, and when somebody asks for it: while thousands wait, that takes as long as many turns.
        """
        leases = tuple(self._leases.values())
        now_us = self._clock.now_us()
        self._forget(now_us)
        if self._means.policy.fault:  # nothing can be decided: runs and calls wait as they are, and are found again
            self._whole_us = 0
            return now_us + SAFETY_POLL_US
        is_whole = not 0 <= now_us - self._whole_us < SAFETY_POLL_US
        since_us = 0 if is_whole else self._looked_us
        if is_whole:
            self._whole_us = now_us
        self._looked_us = now_us
        ready = await self._store.ready(leases, QUEUE_MAX - len(self._line), since_us=since_us)
        for run_id in ready.run_ids:
            self._enqueue(run_id)
        if self._is_draining:
            return ready.next_due_us or NEVER_US
        since_us = 0 if self._is_full else since_us
        room = self._effects.room
        found = await self._store.performable(leases, room, since_us=since_us, besides=self._effects.places)
        for record in found:
            attempt = Attempt(
                call=record.call, agent=record.agent, lease=leases[0], number=record.attempt, state=record.state,
                agent_epoch=record.agent_epoch, gate=record.gate,
            )  # fmt: skip
            self._effects.begin(attempt)
        self._is_full = len(found) >= room
        next_us = min(ready.next_due_us or NEVER_US, self._whole_us + SAFETY_POLL_US)
        return min(next_us, now_us + FULL_LOOK_US) if self._is_full else next_us

    async def _until_alarm(self) -> None:
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(SAFETY_POLL_US / SECOND_US):  # the clock may be set back meanwhile
            while (at_us := self._alarm_us) > self._clock.now_us():
                self._rung = anyio.Event()
                async with anyio.create_task_group() as group:
                    group.start_soon(self._sleep_and_ring, at_us)
                    await self._rung.wait()
                    group.cancel_scope.cancel()

    async def _sleep_and_ring(self, at_us: int) -> None:
        await self._clock.sleep_until(at_us)
        self._rung.set()

    def _enqueue(self, run_id: str) -> None:
        self._outdate(run_id)
        if run_id in self._busy:
            self._again.add(run_id)
        elif len(self._line) < QUEUE_MAX:
            self._line.add(run_id, is_answered=False)

    def _outdate(self, run_id: str) -> None:
        """Have a run read anew before its next turn: something waits for it in the store."""
        if (left := self._left.get(run_id)) is not None:
            left.is_whole = False

    def _go_on(self, run_id: str) -> bool:
        """Have the run take a turn with the answers in hand. False: it will take none."""
        if self._is_draining:
            return False
        if run_id not in self._busy:
            self._line.add(run_id, is_answered=True)
        return True

    # --- Taking turns ------------------------------------------------------------------------------------------------

    async def _drive(self) -> None:
        while True:
            # One for many turns, for it costs a fiftieth of a turn; behind a turn that was cancelled a new one is opened.
            with anyio.CancelScope() as scope:
                while not scope.cancel_called:
                    run_id = await self._line.next()
                    if self._is_draining:
                        self._effects.settle(self._effects.take(run_id), answered=frozenset())
                        continue
                    self._busy[run_id] = scope
                    try:
                        await self._advance(run_id)
                    finally:
                        self._leave(run_id)

    def _leave(self, run_id: str) -> None:
        """Let a run go after its turn, and line it up if something came meanwhile."""
        del self._busy[run_id]
        self._agents.pop(run_id, None)
        is_again = run_id in self._again
        self._again.discard(run_id)
        if self._effects.has_in_hand(run_id):  # nowhere else is it known that this run can go on
            if is_again:
                self._outdate(run_id)
            self._line.add(run_id, is_answered=True)
        elif is_again:
            self._enqueue(run_id)

    async def _advance(self, run_id: str) -> None:
        lease = next(iter(self._leases.values()))
        in_hand = self._effects.take(run_id)
        answered: frozenset[int] = frozenset()
        try:
            left = self._left.pop(run_id, None)
            standing = left.standing if left is not None and left.is_whole else await self._load(run_id, left)
            if standing is not None and not self._means.policy.fault:
                self._agents[run_id] = standing.run.agent
                answered = await self._take_turn(standing, lease, in_hand)
        except HomeError:
            # The store's trouble, not the run's: leave it as it is, the safety poll finds it again.
            await anyio.sleep(STORE_PAUSE_S)
        finally:
            if (beginning := self._beginning.get(run_id)) is not None:
                beginning.is_over.set()
            self._effects.settle(in_hand, answered)

    async def _load(self, run_id: str, left: _Left | None) -> Standing | None:
        beginning = self._beginning.get(run_id)
        if beginning is not None and beginning.draft is not None and not beginning.is_over.is_set():
            return Standing(run=beginning.draft.loaded, draft=beginning.draft)
        run = await self._store.load(run_id)
        if run is None:
            return None
        if left is not None and left.standing.run.seq == run.seq:
            return Standing(run=run, state=left.standing.state)
        return Standing(run=run)

    async def _take_turn(self, standing: Standing, lease: Lease, in_hand: Mapping[int, InHand]) -> frozenset[int]:
        """Take a turn; return the calls whose answers are durable now."""
        answers = {index: each.answer for index, each in in_hand.items()}
        nothing: frozenset[int] = frozenset()
        run = standing.run
        try:
            turned = await turn(
                standing,
                lease,
                self._means,
                self._store,
                self._clock.now_us(),
                in_hand=answers,
                can_wait=self._is_crowded,
            )
        except JailUnavailable:
            raise
        except (SnapshotRefused, ProgramOutdated, WakeDenied) as error:
            await self._stumble(run, lease, error, is_final=True)
            return nothing
        except HomeError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault in one run must not end the others
            await self._stumble(run, lease, error)
            return nothing
        if turned is None:
            return nothing
        self._turns += 1
        match turned.verdict:
            case Verdict.COMMITTED:
                self._committed(run, lease, turned)
                return turned.answered
            case Verdict.FENCED:
                # Another process holds the home now. Whatever this one still does, no store will take it.
                self._leases = {}
                self._scope.cancel()
            case Verdict.STALE | Verdict.ENDED | Verdict.REVOKED:
                pass
        return nothing

    def _committed(self, run: Loaded, lease: Lease, turned: Turned) -> None:
        if (beginning := self._beginning.get(run.run_id)) is not None:
            beginning.is_written = True
        if not self._busy[run.run_id].cancel_called:  # else it was stopped meanwhile: its calls stay where they are
            self._act(run, lease, turned)

    def _act(self, run: Loaded, lease: Lease, turned: Turned) -> None:
        """Start the effects of a committed turn: the only place from which a new intent is carried out."""
        self._effects.let_go(run.run_id, turned.answered)
        has_effect = False
        for intent in turned.calls:
            if intent.due_us is not None:
                self.ring(intent.due_us)
            if intent.call.effect != "wait" and intent.gate is None and not self._is_draining:
                has_effect = True
                attempt = Attempt(
                    call=intent.call, agent=run.agent, lease=lease, agent_epoch=run.agent_epoch, rules=turned.rules
                )
                self._effects.begin(attempt)
        if has_effect and self._effects.room <= 0:
            self._is_full = True
            self.ring(self._clock.now_us() + FULL_LOOK_US)
        if has_effect and turned.left is not None:
            self._keep(turned.left)

    def _keep(self, left: Standing) -> None:
        if left.state is not None and len(left.state.body) <= LEFT_BYTES_MAX:
            now_us = self._clock.now_us()
            self._forget(now_us)
            if len(self._left) >= LEFT_MAX:
                del self._left[next(iter(self._left))]
            self._left[left.run.run_id] = _Left(now_us, left)

    def _forget(self, now_us: int) -> None:
        """Let go of the states whose calls are slow: a thousand runs may wait for their models at once."""
        while self._left:
            run_id, left = next(iter(self._left.items()))
            if left.since_us + LEFT_US_MAX > now_us:
                break
            del self._left[run_id]

    async def _stumble(self, run: Loaded, lease: Lease, error: Exception, *, is_final: bool = False) -> None:
        failures = run.failures + 1
        is_final = is_final or failures >= FAILURES_MAX
        at_us = self._clock.now_us() + round(min(STUMBLE_S_MAX, 2.0**failures) * SECOND_US)
        body: dict[str, Value] = {"kind": type(error).__name__, "message": str(error), "failures": failures}
        event = Event(kind="quarantined" if is_final else "stumbled", body=body)
        await self._store.stumble(run.run_id, lease, not_before_us=at_us, is_final=is_final, event=event)
        self.ring(at_us)
