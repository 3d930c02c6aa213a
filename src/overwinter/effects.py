"""Performs the calls of committed turns: at once, again when it is allowed, never twice when it is not.

    intended ── write? ── started ──► the function ──► answered           finish: DONE, its answer is mail
        ▲                                  ├─► may be retried ──► postponed, under the same key
        └──────────────────────────────────┘─► no answer to a write ──► UNKNOWN: a person says what became of it

A call in flight is one task and one open request; the program it belongs to holds nothing meanwhile.

The answer of a call that may be repeated, and took no time, goes to the run by hand: the commit of the turn that gets it
writes it down. A crash before that repeats the call, as it would have a moment earlier. All else is written down at once.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random

import anyio

from overwinter import journal
from overwinter.approval import Gate
from overwinter.catalog import Asks, Began, Later, Performed, Tools, Unknown
from overwinter.clock import RETRY_AFTER_S_MAX, SECOND_US, Clock
from overwinter.errors import HomeError
from overwinter.events import POLL, Answer, Call, CallState, Event, Raised, Returned
from overwinter.frozen import frozen
from overwinter.policy import Allow
from overwinter.store import NEVER_US, Lease, Store
from overwinter.turn import Means, permitted

__all__ = ["BACKOFF_S_MAX", "BY_HAND_US_MAX", "Attempt", "Cut", "Effects", "InHand", "backoff_s"]

BACKOFF_S_MAX = 60.0
"""Longest pause between two attempts, unless the service itself asked for a longer one."""
BY_HAND_US_MAX = 100_000
"""An answer that took longer to get is written down at once: a crash should not ask for it again."""
BY_HAND_MAX = 256
"""Answers that may be nowhere but in memory."""
POLL_S_MIN = 0.2
"""Shortest pause before a service that works on is asked again."""
CUT_S_MAX = 1.0
"""How long to wait for cancelled calls: one that does not stop is a thread of the operator's own, and is left alone."""
STORE_RETRY_S = 1.0
"""Pause before an answer is offered again to a store that could not take it (a full disk)."""


@frozen
class Attempt:
    """One attempt at a call, as the store has it."""

    call: Call
    agent: str
    lease: Lease
    number: int = 0
    """Attempts before this one."""
    state: CallState = CallState.INTENDED
    agent_epoch: int = 1
    """Of the agent, as the run has it."""
    rules: str = ""
    """Version of the rules by which it was decided a moment ago; "" if it must be decided now."""
    gate: Gate | None = None
    """What it waited behind."""


@frozen(kw_only=False)
class InHand:
    """An answer that is not written down yet."""

    attempt: Attempt
    answer: Answer


@frozen(kw_only=False)
class Cut:
    """A call in flight that was cancelled."""

    call: Call
    has_left: bool
    """Whether it may have been on the wire: what has left cannot be called back."""


@dataclass(slots=True, eq=False)
class _Flight:
    attempt: Attempt
    task: asyncio.Task[None]
    has_left: bool = False


class Effects:
    """The calls in flight of one worker."""

    def __init__(  # noqa: PLR0913 - a composition root names each part once
        self,
        store: Store,
        tools: Tools,
        clock: Clock,
        means: Means,
        *,
        calls_max: int,
        random: Random,
        has_answer: Callable[[str], bool],
        ring: Callable[[int], None],
    ) -> None:
        self._store = store
        self._tools = tools
        self._clock = clock
        self._means = means
        self._owners = means.owners
        self._calls_max = calls_max
        self._random = random
        self._has_answer = has_answer
        """Told the run that can go on with an answer in hand; False: no turn will take it."""
        self._ring = ring
        """Told when a call is to be tried again."""
        self._flying: dict[tuple[str, int], _Flight | None] = {}
        self._in_hand: dict[str, dict[int, InHand]] = {}
        self._in_hand_count = 0
        self._tasks: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Let calls begin until the block is left; those in flight are cancelled then."""
        # asyncio's own group: a task costs a third of anyio's, and there is one for each call.
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None

    @property
    def in_flight(self) -> int:
        """Return how many calls are under way."""
        return len(self._flying)

    @property
    def places(self) -> Collection[tuple[str, int]]:
        """Return run and index of each call that is under way."""
        return self._flying.keys()

    @property
    def room(self) -> int:
        """Return how many more may start; a call without room stays INTENDED and is found again."""
        return self._calls_max - len(self._flying)

    def begin(self, attempt: Attempt) -> None:
        """Perform a call in a task of its own, unless it is under way already, there is no room, or no call may begin."""
        place = (attempt.call.run_id, attempt.call.index)
        if self._tasks is not None and place not in self._flying and self.room > 0:
            self._flying[place] = _Flight(attempt, self._tasks.create_task(self._fly(attempt)))

    async def cut(self, concerns: Callable[[Attempt], bool]) -> list[Cut]:
        """Cancel the calls in flight that this concerns, and return them when they have stopped.

        A write that may have left is of unknown outcome from now on.
        """
        flights = [each for each in self._flying.values() if each is not None and concerns(each.attempt)]
        for flight in flights:
            flight.task.cancel()
        if flights:
            await asyncio.wait([each.task for each in flights], timeout=CUT_S_MAX)
        for flight in flights:
            place = (flight.attempt.call.run_id, flight.attempt.call.index)
            if flight.task.done() and self._flying.get(place) is flight:
                del self._flying[place]  # its task was cancelled before it took a step, so none of it was executed
        return [Cut(each.attempt.call, each.has_left) for each in flights]

    def let_go(self, run_id: str, indices: Iterable[int]) -> None:
        """Cancel calls in flight without whose answers their run has gone on, for a time-out came first."""
        for index in indices:
            if (flight := self._flying.get((run_id, index))) is not None:
                flight.task.add_done_callback(partial(self._gone, (run_id, index), flight))
                flight.task.cancel()

    def _gone(self, place: tuple[str, int], flight: _Flight, _: object) -> None:
        if self._flying.get(place) is flight:
            del self._flying[place]  # its task was cancelled before it took a step

    async def park(self, cut: Iterable[Cut], why: str) -> None:
        """Have a person say what became of the writes among these that had left."""
        for each in cut:
            if each.has_left and each.call.effect == "write":
                await self._park(each.call, why)

    def has_in_hand(self, run_id: str) -> bool:
        """Return whether a run can go on with an answer in hand."""
        return run_id in self._in_hand

    def take(self, run_id: str) -> Mapping[int, InHand]:
        """Return the answers in hand for a run's turn; after it, `settle` them."""
        taken = self._in_hand.pop(run_id, {})
        self._in_hand_count -= len(taken)
        return taken

    def settle(self, taken: Mapping[int, InHand], answered: frozenset[int]) -> None:
        """Let go of the answers that the turn's commit holds; write the others down."""
        for index, each in taken.items():
            if index in answered:
                del self._flying[each.attempt.call.run_id, index]
            elif self._tasks is not None:
                self._tasks.create_task(self._put_down(each))

    async def _put_down(self, each: InHand) -> None:
        try:
            await self._record_surely(each.attempt, each.answer)
        finally:
            del self._flying[each.attempt.call.run_id, each.attempt.call.index]

    async def _fly(self, attempt: Attempt) -> None:
        place = (attempt.call.run_id, attempt.call.index)
        is_in_hand = False
        try:
            began_us = self._clock.now_us()
            answer = await self._perform(attempt, place)
            if answer is None:
                return
            took_us = self._clock.now_us() - began_us
            is_in_hand = took_us <= BY_HAND_US_MAX and self._hand_over(attempt, answer)
            if not is_in_hand:
                await self._record_surely(attempt, answer)
        except HomeError:
            pass  # the start could not be written, so nothing left: the call stays INTENDED, and is found again
        finally:
            if not is_in_hand:
                del self._flying[place]

    def _hand_over(self, attempt: Attempt, answer: Performed) -> bool:
        call = attempt.call
        if call.effect == "write" or not isinstance(answer, Returned | Raised) or self._in_hand_count >= BY_HAND_MAX:
            return False
        if isinstance(answer, Raised) and answer.is_retryable and self._may_repeat(attempt):
            return False
        if not self._has_answer(call.run_id):
            return False
        self._flying[call.run_id, call.index] = None  # what is left of it is a commit, and that is not cancelled
        self._in_hand.setdefault(call.run_id, {})[call.index] = InHand(attempt, answer)
        self._in_hand_count += 1
        return True

    async def _perform(self, attempt: Attempt, place: tuple[str, int]) -> Performed | None:
        """Return what became of the act; None: it was not begun, for it is fenced, ended or somebody else's by now."""
        if attempt.state is CallState.STARTED:
            # A write that an earlier holder started: it may be on the wire, carried out, or lost.
            return Unknown(why="the process that had started it ended before it wrote down what came of it")
        if attempt.rules != self._means.policy.version and not _is_poll(attempt.call):
            now_us = self._clock.now_us()
            match permitted(attempt.call, attempt.agent_epoch, self._means, now_us, standing=attempt.gate):
                case Allow():
                    pass
                case Raised() as refusal:
                    return refusal
                case Gate() as gate:
                    await self._store.gate(attempt.call, attempt.lease, gate, journal.gated(attempt.call, gate))
                    return None
        if (flight := self._flying[place]) is not None:
            flight.has_left = True  # said before it is so: cancelled in between, nobody could tell any more
        if (
            attempt.call.effect == "write"
            and not _is_poll(attempt.call)
            and not await self._store.start(attempt.call, attempt.lease)
        ):
            return None
        return await self._tools.perform(attempt.call)

    async def _record_surely(self, attempt: Attempt, answer: Performed) -> None:
        """Write down what became of an attempt. The act has happened, so this is repeated until the store takes it."""
        while True:
            try:
                await self._record(attempt, answer)
            except HomeError:
                await anyio.sleep(STORE_RETRY_S)
            else:
                return

    async def _record(self, attempt: Attempt, answer: Performed) -> None:
        call = attempt.call
        match answer:
            case Unknown(why=why):
                await self._park(call, why)
            case Later(more=more, after_s=after_s):
                pause_s = min(BACKOFF_S_MAX, max(POLL_S_MIN, after_s))
                at_us = self._clock.now_us() + round(pause_s * SECOND_US)
                body = {"index": call.index, "function": call.function, "why": answer.why, "at_us": at_us}
                event = Event(kind="continued", body=body)
                left = {**more, POLL: not answer.is_repeat}
                await self._store.postpone(call, attempt.lease, not_before_us=at_us, event=event, more=left)
                self._ring(at_us)
            case Asks(question=question):
                owner = self._owners.get(attempt.agent, "owner")
                body = {"index": call.index, "function": call.function, "person": owner, "question": question}
                more = {**answer.more, "question": question, "options": answer.options and list(answer.options)}
                await self._store.postpone(
                    call,
                    attempt.lease,
                    not_before_us=NEVER_US,
                    event=Event(kind="asked", body=body),
                    more=more,
                    person=owner,
                )
            case Began():
                pass  # the commit that made the run set the call aside until its end
            case Raised(is_retryable=True) if self._may_repeat(attempt):
                pause_s = backoff_s(attempt.number, answer.retry_after_s, self._random)
                at_us = self._clock.now_us() + round(pause_s * SECOND_US)
                body = {
                    "index": call.index,
                    "function": call.function,
                    "attempt": attempt.number + 1,
                    "error": journal.error_body(answer),
                    "at_us": at_us,
                }
                event = Event(kind="retried", body=body)
                await self._store.postpone(call, attempt.lease, not_before_us=at_us, event=event)
                self._ring(at_us)
            case Raised(is_retryable=True) if call.effect == "write" and _is_poll(call):
                await self._park(call, f"it was taken, and what came of it cannot be learnt: {answer.message}")
            case Returned() | Raised():
                await self._store.finish(call.run_id, call.index, answer, journal.answered(call.index, answer))

    async def _park(self, call: Call, why: str) -> None:
        body = {"index": call.index, "function": call.function, "why": why}
        owner = self._owners.get(call.agent, "owner")
        await self._store.park(call, person=owner, event=Event(kind="unknown", body=body))

    def _may_repeat(self, attempt: Attempt) -> bool:
        function = self._tools.catalog.function(attempt.call.function)
        is_safe = attempt.call.effect != "write" or _is_poll(attempt.call)
        return function is not None and is_safe and attempt.number + 1 < function.attempts_max


def _is_poll(call: Call) -> bool:
    """Whether the next attempt only asks what became of an act that its service has taken: as often as need be."""
    return call.more is not None and bool(call.more.get(POLL))


def backoff_s(attempt: int, retry_after_s: float | None, random: Random) -> float:
    """Return the pause after a failed attempt: 0.5 s doubled each time, with jitter, at least what the service asked.

    Jitter is equal jitter (half fixed, half random), so that calls which failed together do not return together.
    """
    pause = min(BACKOFF_S_MAX, 0.5 * 2**attempt)
    asked = min(RETRY_AFTER_S_MAX, retry_after_s or 0.0)
    return max(asked, pause / 2 + random.random() * pause / 2)
