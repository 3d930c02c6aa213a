"""One connection writes, and commits in groups.

While a commit waits for the disk, in a thread, the next jobs gather; they share the next commit. So the cost of a sync is
divided by the load: with 64 in flight, durable commits reach more than ten times the rate of single ones.

On a quick disk few would gather. So a job whose caller says that others follow is held back for a moment, until enough
are together or one comes that cannot wait; this alone brings a busy home from 1,010 to 1,330 turns a second.

The statements of short jobs are executed on the event loop, and so are their entries of the audit log; only the commit in
the thread. Each statement gives Python's lock away and must get it back: seven a turn, in a thread beside a busy event loop,
cost more waiting than work.

A revocation goes first: past what waits, in a commit of its own, and the event loop stands still for it, so that the thread
has Python's lock to itself. Nothing else could begin meanwhile that the revocation does not have to stop again.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import anyio
import anyio.to_thread
import apsw

from overwinter.adapters.sqlite.schema import BUSY_MS, guarded, refuse_moved
from overwinter.audit import Entry
from overwinter.errors import HomeError

__all__ = ["GROUP_MAX", "QUEUE_MAX", "Job", "Seal", "Writer", "Wrote"]

GROUP_MAX = 64
"""Jobs in one commit: beyond it the gain is small and the first of them waits longer."""
HELD_MAX = 32
HELD_S_MAX = 0.010
"""How many jobs are held back, and how long."""
QUEUE_MAX = 100_000
"""Jobs that may wait; more is a fault of the caller, whose own limits are far lower."""

FIRST_S_MAX = 0.1
"""How long the event loop stands still for a job that goes first; on a slower disk it goes on, and the job comes later."""
CLOSE_S_MAX = 30
"""How long a closing store waits for its disk."""

T = TypeVar("T")
Kept: TypeAlias = Callable[[], None]
Seal: TypeAlias = Callable[[apsw.Connection, Sequence[Entry]], Kept]
"""Writes entries in the transaction of their commits; what it returns is called when they are durable."""


@dataclass(slots=True)
class Wrote(Generic[T]):
    """What a job did: its result, and whom that concerns once it is durable."""

    result: T
    grown: str | None = None
    """The run whose journal grew."""
    is_woken: bool = False
    """Whether that run may have become ready."""
    goes_on: bool = False
    """Whether it is known that the run has not ended: who waits for its end need not look."""
    audited: Sequence[Entry] = ()
    """Entries of the audit log: they go with this commit, or it does not."""
    others: Sequence[tuple[str, bool]] = ()
    """More runs whose journal grew, and whether they may have become ready."""
    ended: Sequence[str] = ()
    """More runs that it has ended, in the middle of whatever they were at."""
    is_revoked: bool = False
    """Whether agents may have been revoked or restored, whichever: who is active is looked up again, and all who watch a run look."""


@dataclass(slots=True)
class Job:
    """Work for the one writing connection. It may be run twice, if a neighbour in its group failed."""

    act: Callable[[apsw.Connection], Wrote[Any]]
    future: asyncio.Future[Any]
    is_short: bool = False
    """It takes some 50 us, so it may hold up the event loop."""
    wrote: Wrote[Any] | None = None
    error: BaseException | None = field(default=None)
    is_over: threading.Event | None = None
    """Set when a job that goes first is durable, or has failed."""


class Came(Enum):
    """How a group came through its commit."""

    THROUGH = auto()
    SPOILT = auto()
    """A job of it raised; the others may do well without it."""
    REFUSED = auto()
    """The file did not take it: that is nobody's fault and everybody's error. After a crash some of it may be found."""


class Writer:
    """The connection and the thread. `submit` from the event loop it was made in."""

    def __init__(self, connection: apsw.Connection, path: Path, seal: Seal, tell: Callable[[list[Job]], None]) -> None:
        self._connection = connection
        """Belongs to the thread while a job is with it, else to the event loop."""
        self._path = path
        place = path.stat()
        self._file = place.st_dev, place.st_ino
        self._seal = seal
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._held: list[Job] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[Job] = deque()
        self._groups: queue.SimpleQueue[tuple[list[Job], Kept | None] | None] = queue.SimpleQueue()
        """One at a time, and behind it those that go first. With each what is called once it is durable; None: it is not applied yet."""
        self._with_thread = 0
        """Jobs."""
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="overwinter-writer", daemon=True)
        self._thread.start()

    async def submit(
        self, act: Callable[[apsw.Connection], Wrote[T]], *, can_wait: bool = False, is_short: bool = False
    ) -> T:
        """Return the job's result once it is durable; one that can wait may be held back for `HELD_S_MAX`.

        A caller that is cancelled meanwhile does not undo the job.

        Args:
            act: the statements; a commit comes around them.
            can_wait: whether others are about to follow.
            is_short: whether it may hold up the event loop, see `Job`.

        Raises:
            HomeFull: nothing was written; it may be tried again.
            HomeError: the file cannot be written.
        """
        self._refuse_more()
        job = Job(act, self._loop.create_future(), is_short)
        self._held.append(job)
        if not can_wait or len(self._held) >= HELD_MAX:
            self._let_go()
        elif self._timer is None:
            self._timer = self._loop.call_later(HELD_S_MAX, self._let_go)
        return await job.future

    async def submit_first(self, act: Callable[[apsw.Connection], Wrote[T]]) -> T:
        """Return the job's result once it is durable; of what was submitted before, only what is being committed precedes it.

        The event loop stands still until it is durable, at most `FIRST_S_MAX`: what follows the call is then done before any
        other task takes a step.

        Raises:
            HomeFull: nothing was written; it may be tried again.
            HomeError: the file cannot be written.
        """
        self._refuse_more()
        job = Job(act, self._loop.create_future(), is_over=threading.Event())
        assert job.is_over is not None
        self._with_thread += 1
        self._groups.put(([job], None))
        if job.is_over.wait(FIRST_S_MAX) and job.wrote is not None:
            return job.wrote.result
        return await job.future

    async def close(self) -> None:
        """Write what was submitted, and end the thread.

        Raises:
            HomeError: the disk did not take it in `CLOSE_S_MAX` seconds.
        """
        if not self._is_closed:
            self._is_closed = True
            self._let_go()
        with anyio.move_on_after(CLOSE_S_MAX, shield=True):
            await anyio.to_thread.run_sync(self._thread.join, CLOSE_S_MAX)
        if self._thread.is_alive():
            raise HomeError(f"{self._path} took no write for {CLOSE_S_MAX} s: what was not acknowledged may be lost")

    # --- On the event loop -------------------------------------------------------------------------------------------

    def _refuse_more(self) -> None:
        if self._is_closed:
            raise HomeError("the store is closed")
        if len(self._waiting) >= QUEUE_MAX:
            raise HomeError(f"{QUEUE_MAX} writes wait already: the disk does not keep up")

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.extend(self._held)
        self._held.clear()
        if not self._with_thread:
            self._pass_on()

    def _pass_on(self) -> None:
        """Give the thread the next group, applied already if all of it is short; or its end."""
        if self._waiting:
            group = self._gathered()
            self._with_thread += len(group)
            self._groups.put((group, self._tried(group) if group[0].is_short else None))
        elif self._is_closed:
            self._groups.put(None)

    def _gathered(self) -> list[Job]:
        group = [self._waiting.popleft()]
        while self._waiting and len(group) < GROUP_MAX and self._waiting[0].is_short is group[0].is_short:
            group.append(self._waiting.popleft())
        return group

    def _tried(self, group: list[Job]) -> Kept | None:
        """Apply a group without its commit. None: nothing was applied, and the thread must see what is wrong."""
        self._connection.set_busy_timeout(0)  # another process may hold the file for a moment: the thread can wait
        try:
            if self._connection.in_transaction:
                return None
            self._connection.execute("begin immediate")
            return self._applied(group, is_whole=True)
        except Exception:  # noqa: BLE001 - the thread does it again, and tells who is concerned
            self._roll_back()
            for job in group:
                job.wrote = None
            return None
        finally:
            self._connection.set_busy_timeout(BUSY_MS)

    def _applied(self, group: list[Job], *, is_whole: bool) -> Kept:
        """Apply a group in the transaction that is open, with its entries; return what is called once it is durable.

        Unless it is to be whole, jobs that are still to be applied when one comes that goes first are left out, and hold nothing.
        """
        for job in group:
            job.wrote = job.act(self._connection)
            if not is_whole and not self._groups.empty():
                break
        entries = [entry for job in group if job.wrote is not None for entry in job.wrote.audited]
        return self._seal(self._connection, entries) if entries else _nothing

    def _take_back(self, group: list[Job]) -> None:
        self._with_thread -= len(group)
        self._tell(group)
        if not self._with_thread:
            self._pass_on()

    # --- In the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (given := self._groups.get()) is not None:
            group, keep = given
            came = self._commit(group, keep)
            if came is Came.SPOILT and len(group) > 1:
                for job in group:  # one of them spoilt the group: let each stand for itself
                    job.error = None
                    self._groups.put(([job], None))
                continue
            if group[-1].wrote is None and came is Came.THROUGH:
                group = self._set_back(group)
            for job in group:
                if job.is_over is not None:
                    job.is_over.set()
            self._loop.call_soon_threadsafe(self._take_back, group)

    def _set_back(self, group: list[Job]) -> list[Job]:
        """Have what was left out of a commit wait behind the job that went first; return what was committed."""
        done = [job for job in group if job.wrote is not None]
        self._groups.put((group[len(done) :], None))
        return done

    def _commit(self, group: list[Job], keep: Kept | None) -> Came:
        """Apply a group and commit it; unless it came through, nothing of it was applied and each job holds the error."""
        came = Came.REFUSED
        try:
            with guarded(self._path):
                if keep is None:
                    if self._connection.in_transaction:
                        self._connection.execute("rollback")
                    self._connection.execute("begin immediate")
                    came = Came.SPOILT
                    keep = self._applied(group, is_whole=False)
                came = Came.REFUSED
                refuse_moved(self._path, self._file)
                self._connection.execute("commit")
                keep()
        except Exception as error:  # noqa: BLE001 - it goes to whoever submitted
            self._roll_back()
            for job in group:
                job.wrote, job.error = None, error
            return came
        return Came.THROUGH

    def _roll_back(self) -> None:
        # On a failing disk a rollback fails too. The thread must outlive that, or every later caller waits for ever; the next
        # commit tries the rollback again before it begins.
        if self._connection.in_transaction:
            with suppress(apsw.Error):
                self._connection.execute("rollback")


def _nothing() -> None:
    """Be called when commits without entries are durable."""
