"""The interpreter as the kernel sees it: programs go in; calls, values and errors come out as plain values.

Suspension is a return value. Between two calls of this protocol an interpreter holds nothing of the run: all of it is in
`Blocked.snapshot`, which any process with the same engine can resume.
"""

from collections.abc import Mapping
from typing import Protocol

from overwinter.events import Answer
from overwinter.frozen import frozen
from overwinter.values import Value

__all__ = ["Blocked", "Failed", "Finished", "Interpreter", "Limits", "Outcome", "Program", "Request"]


@frozen
class Limits:
    """What one run may use. Each is enforced; none can be switched off."""

    turn_cpu_s: float = 2.0
    """Computing time from one answer to the next."""
    run_cpu_s: float = 10.0
    """Computing time of the whole run; sleep and waiting cost nothing."""
    memory_bytes: int = 64 << 20
    recursion_depth: int = 500
    calls_per_turn: int = 1_000
    """New calls that may wait side by side at the end of one turn."""
    output_bytes: int = 1 << 20
    """Printed text kept per turn; the rest is dropped and counted."""
    value_bytes: int = 1 << 20
    """Arguments or result of one call, encoded."""
    snapshot_bytes: int = 8 << 20
    """The state at the end of a turn."""


@frozen
class Program:
    """Source and what surrounds it."""

    run_id: str
    """Seeds the program's `random`; the same program of the same run draws the same numbers when it is rebuilt."""
    source: str
    inputs: Mapping[str, Value]
    modules: Mapping[str, tuple[str, ...]]
    """Service modules that the source names, or one before it, each with the functions of it that they name."""
    earlier: tuple[str, ...] = ()
    """Sources that ran before it in the same state, in order."""
    state: bytes | None = None
    """What they left: its variables and functions are there."""
    keeps: bool = False
    """Whether its end is to leave a state for another."""


@frozen
class Request:
    """A call as the interpreter reports it, before it has an index."""

    ticket: int
    """The interpreter's own number for it, unique within the program."""
    function: str
    """`service.function`, or `asyncio.sleep`, `time.sleep`."""
    args: tuple[Value, ...]
    kwargs: Mapping[str, Value]
    line: int
    """In the program, from 1; 0 if unknown."""


@frozen
class Blocked:
    """Every task of the program waits for a call."""

    requests: tuple[Request, ...]
    """Calls made in this turn, in order. Nothing outside has happened yet."""
    pending: frozenset[int]
    """Tickets of all calls that wait, old and new."""
    first: int | None
    """The ticket that must be answered before any other may be (`time.sleep` holds the whole program)."""
    snapshot: bytes
    output: str


@frozen
class Finished:
    """The program ended; `value` is that of its last expression."""

    value: Value
    output: str
    never_awaited: tuple[str, ...] = ()
    """Functions that were called in the last turn but never awaited: they were not performed."""
    state: bytes | None = None
    """What another program goes on with, if this one keeps it and it is not too large."""


@frozen
class Failed:
    """The program ended with an error that it did not catch, or broke a limit."""

    kind: str
    """Name of the exception, or of the limit: `"ValueError"`, `"CpuLimit"`, `"MemoryLimit"`, `"SnapshotLimit"`, ..."""
    message: str
    """What happened and, for a limit, which setting it was and what to do."""
    line: int
    """In the program, from 1; 0 if unknown."""
    traceback: str
    output: str
    never_awaited: tuple[str, ...] = ()
    state: bytes | None = None
    """The same: what was bound before the error is there."""


Outcome = Blocked | Finished | Failed


class Interpreter(Protocol):
    """A pool of isolated interpreter workers."""

    @property
    def engine(self) -> str:
        """Return what a snapshot is bound to: name, version and build of the interpreter."""
        ...

    @property
    def busy(self) -> int:
        """Return how many workers are in a turn."""
        ...

    async def start(self, program: Program, *, now_us: int) -> Outcome:
        """Run a program from its beginning until it is blocked or done.

        Cancelling the caller kills the worker. Every read of the clock in the turn is answered with `now_us`.

        Raises:
            WorkerCrashed: the worker died or overran its deadline; the turn may be tried again.
            JailUnavailable: no worker can be started.
        """
        ...

    async def resume(self, program: Program, snapshot: bytes, answers: Mapping[int, Answer], *, now_us: int) -> Outcome:
        """Give answers by ticket to a blocked program and run it on.

        Answers must be for pending tickets; if the snapshot has a `first`, for that ticket alone.

        Raises:
            WorkerCrashed: as in `start`. The snapshot must have been authenticated before.
        """
        ...
