"""Performs the calls of committed turns: at once, again when it is allowed, never twice when it is not.

    intended ── write? ── started ──► the function ──► answered           finish: DONE, its answer is mail
        ▲                                  ├─► may be retried ──► postponed, under the same key
        └──────────────────────────────────┘─► no answer to a write ──► UNKNOWN: a person says what became of it

A call in flight is one task and one open request; the program it belongs to holds nothing meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import anyio
from anyio.abc import TaskGroup

from overwinter import journal
from overwinter.catalog import Tools, Unknown
from overwinter.clock import SECOND_US, Clock
from overwinter.errors import HomeError
from overwinter.events import Answer, Call, CallState, Event, Raised
from overwinter.store import Lease, Store

__all__ = ["BACKOFF_S_MAX", "Attempt", "Effects", "backoff_s"]

BACKOFF_S_MAX = 60.0
"""Longest pause between two attempts, unless the service itself asked for a longer one."""
STORE_RETRY_S = 1.0
"""Pause before an answer is offered again to a store that could not take it (a full disk)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a call, as the store has it."""

    call: Call
    agent: str
    lease: Lease
    number: int = 0
    """Attempts before this one."""
    state: CallState = CallState.INTENDED


class Effects:
    """The calls in flight of one worker."""

    def __init__(  # noqa: PLR0913 - a composition root names each part once
        self,
        store: Store,
        tools: Tools,
        clock: Clock,
        owners: Mapping[str, str],
        *,
        calls_max: int,
        random: Random,
    ) -> None:
        self._store = store
        self._tools = tools
        self._clock = clock
        self._owners = owners
        self._calls_max = calls_max
        self._random = random
        self._flying: dict[tuple[str, int], anyio.CancelScope | None] = {}

    @property
    def in_flight(self) -> int:
        """Return how many calls are under way."""
        return len(self._flying)

    @property
    def room(self) -> int:
        """Return how many more may start; a call without room stays INTENDED and is found again."""
        return self._calls_max - len(self._flying)

    def begin(self, group: TaskGroup, attempt: Attempt) -> None:
        """Perform a call in a task of its own, unless it is under way already or there is no room."""
        place = (attempt.call.run_id, attempt.call.index)
        if place not in self._flying and self.room > 0:
            self._flying[place] = None
            group.start_soon(self._fly, attempt)

    def cancel(self, run_id: str) -> int:
        """Cancel the calls in flight of a run; return how many."""
        scopes = [scope for (run, _), scope in self._flying.items() if run == run_id and scope is not None]
        for scope in scopes:
            scope.cancel()
        return len(scopes)

    async def _fly(self, attempt: Attempt) -> None:
        place = (attempt.call.run_id, attempt.call.index)
        try:
            with anyio.CancelScope() as scope:
                self._flying[place] = scope
                answer = await self._perform(attempt)
                if answer is not None:
                    await self._record_surely(attempt, answer)
        except HomeError:
            pass  # the start could not be written, so nothing left: the call stays INTENDED, and is found again
        finally:
            del self._flying[place]

    async def _perform(self, attempt: Attempt) -> Answer | Unknown | None:
        """Return what became of the act; None: it was not begun, for it is fenced, ended or somebody else's by now."""
        if attempt.state is CallState.STARTED:
            # A write that an earlier holder started: it may be on the wire, carried out, or lost.
            return Unknown(why="the process that had started it ended before it wrote down what came of it")
        if attempt.call.effect == "write" and not await self._store.start(attempt.call, attempt.lease):
            return None
        return await self._tools.perform(attempt.call)

    async def _record_surely(self, attempt: Attempt, answer: Answer | Unknown) -> None:
        """Write down what became of an attempt. The act has happened, so this is repeated until the store takes it."""
        while True:
            try:
                await self._record(attempt, answer)
            except HomeError:
                await anyio.sleep(STORE_RETRY_S)
            else:
                return

    async def _record(self, attempt: Attempt, answer: Answer | Unknown) -> None:
        call = attempt.call
        match answer:
            case Unknown(why=why):
                body = {"index": call.index, "function": call.function, "why": why}
                owner = self._owners.get(attempt.agent, "owner")
                await self._store.park(call, person=owner, event=Event(kind="unknown", body=body))
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
            case _:
                await self._store.finish(call.run_id, call.index, answer, journal.answered(call.index, answer))

    def _may_repeat(self, attempt: Attempt) -> bool:
        function = self._tools.catalog.function(attempt.call.function)
        return function is not None and function.effect != "write" and attempt.number + 1 < function.attempts_max


def backoff_s(attempt: int, retry_after_s: float | None, random: Random) -> float:
    """Return the pause after a failed attempt: 0.5 s doubled each time, with jitter, at least what the service asked.

    Jitter is equal jitter (half fixed, half random), so that calls which failed together do not return together.
    """
    pause = min(BACKOFF_S_MAX, 0.5 * 2**attempt)
    return max(retry_after_s or 0.0, pause / 2 + random.random() * pause / 2)
