"""Frozen values that pass between the parts: calls, answers, journal facts."""

import re
from collections.abc import Mapping
from dataclasses import field
from enum import IntEnum
from typing import Literal

from overwinter.frozen import frozen
from overwinter.values import Value

__all__ = ["CARRIED_OUT", "POLL",
    "Answer", "Call", "CallState", "Effect", "Event", "EventKind", "Raised", "Returned", "Status", "describe",
]  # fmt: skip

Effect = Literal["read", "idempotent", "write", "wait"]
"""What a second performance of a call would do: nothing, nothing under the same key, harm, or there is none to repeat.

`wait` is a call that only the outside can answer: a person, a message, a timer.
"""


class Status(IntEnum):
    """Where a run stands. Whether a live run is ready or asleep is derived from its mail and timers, never stored."""

    LIVE = 0
    FINISHED = 1
    FAILED = 2
    CANCELLED = 3
    QUARANTINED = 4
    """Its turns kept failing. Its mail is kept; a person may release it."""


class CallState(IntEnum):
    """Where an effect stands. The transitions are the SQL of the store's methods."""

    INTENDED = 0
    STARTED = 1
    """Only a `write` is marked so, before it leaves: found again after a crash, its outcome is unknown."""
    DONE = 2
    """Its answer is mail; the row goes when the program has received it."""
    UNKNOWN = 3
    """Perhaps carried out, perhaps not: a person says which."""


@frozen
class Call:
    """A request of a program to the world."""

    run_id: str
    index: int
    """Position in the run, from 0. `(run_id, index)` is the idempotency key, the same in every attempt."""
    function: str
    """`service.function`: `"billing.charge"`; `"asyncio.sleep"` for a timer."""
    arguments: Mapping[str, Value]
    effect: Effect
    line: int = 0
    """Where in the program it was made; 0 if unknown."""
    agent: str = ""
    """Under which identity it was made."""
    more: Value = None
    """What its service left at an earlier attempt, to go on from there; None: it has not taken it yet."""

    @property
    def key(self) -> str:
        """Return the idempotency key, `run:index`."""
        return f"{self.run_id}:{self.index}"


@frozen
class Returned:
    """A call's result."""

    value: Value


@frozen
class Raised:
    """A call's error, as the program will see it: a built-in exception with one string."""

    kind: str
    """Name of a built-in exception: `"TimeoutError"`, `"PermissionError"`, `"LookupError"`, `"RuntimeError"`, ..."""
    message: str
    status: int | None = None
    """What the service answered, as an HTTP status."""
    code: str | None = None
    """What the service calls it: `"card_declined"`."""
    is_retryable: bool = False
    retry_after_s: float | None = None


Answer = Returned | Raised

POLL = "is_poll"
"""Key in what is left of a call: its service took it, and is asked again and again what came of it."""
CARRIED_OUT = " (it was carried out)"
"""In the message of a call that did what it should, though its answer is an error: it could not be read, or was too large."""

MESSAGE_LENGTH_MAX = 2_000
"""Characters of an error's message that reach the program."""
_PREFIX = re.compile(r"(\d{3}|-) \S+: ")


def describe(raised: Raised, index: int) -> str:
    """Return the one string that an error becomes in the program: readable, and `tools.error` reads it back.

    `"402 card_declined: the card was declined [call 3, not retryable]"`; without status and code the message comes first.
    """
    message = raised.message
    if len(message) > MESSAGE_LENGTH_MAX:
        message = f"{message[:MESSAGE_LENGTH_MAX]}... ({len(message)} characters)"
    if raised.status is not None or raised.code or _PREFIX.match(message):
        code = "-" if not raised.code else "_".join(raised.code.split())
        message = f"{raised.status if raised.status is not None else '-'} {code}: {message}"
    retry = "retryable" if raised.is_retryable else "not retryable"
    pause = "" if raised.retry_after_s is None else f", retry after {raised.retry_after_s:g} s"
    return f"{message} [call {index}, {retry}{pause}]"


EventKind = Literal[
    "created",    # program, inputs, agent, by (who started it, if that is known)
    "called",     # index, function, arguments, effect, line: an intent, in the commit of its turn
    "denied",     # index, function, reason
    "started",    # index, attempt: a write is about to leave
    "retried",    # index, attempt, error, at: it will be tried again
    "continued",  # index, function, why, at: its service took it, and is asked again then
    "began",      # index, function, run: the run whose end answers it was begun
    "asked",      # index, function, person, question: it, or its service, waits for a person's word
    "gated",      # index, function, person, digest, reason, policies: it waits for people's approval
    "approved",   # index, by, reason, digest, is_enough: a person said yes
    "rejected",   # index, by, reason, digest: a person said no; its `answered` event follows
    "answered",   # index, result or error
    "unknown",    # index, why: the outcome of a write cannot be told; a person is asked
    "left",       # index, function: a write was under way when its run ended; its `answered` event may follow
    "message",    # id, value, by (who sent it, if that is known): a message arrived for the run
    "turn",       # now, delivered: what a turn was given; with the answers, all that a rebuild needs
    "printed",    # text
    "refused",    # why a snapshot was refused, and that the run was rebuilt
    "stumbled",   # error: a turn failed and will be tried again
    "finished",   # value
    "failed",     # error
    "cancelled",  # by, reason
    "quarantined",  # error
    "released",   # by
]  # fmt: skip


@frozen
class Event:
    """A fact about a run. Its journal, in order of `position`, is the truth; the snapshot is a cache of it."""

    kind: EventKind
    body: Mapping[str, Value] = field(default_factory=dict[str, Value])
    position: int = -1
    """Place in the run's journal, from 0; -1 until it is committed."""
    at_us: int = 0
    """When it was committed, microseconds UTC."""
    epoch: int = 0
    """The epoch under which it was written; never falls along a journal."""
