"""One thread owns the one writing connection and commits in groups.

While a commit waits for the disk the next jobs gather; they share the next commit. So the cost of a sync is divided by
the load: with 64 in flight, durable commits reach more than ten times the rate of single ones.

On a quick disk few would gather. So a job whose caller says that others follow is held back for a moment, until enough
are together or one comes that cannot wait; this alone brings a busy home from 1,010 to 1,330 turns a second.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import anyio
import anyio.to_thread
import apsw

from overwinter.adapters.sqlite.schema import guarded
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

CLOSE_S_MAX = 30
"""How long a closing store waits for its disk."""

T = TypeVar("T")
Seal: TypeAlias = Callable[[apsw.Connection, Sequence[Entry]], Callable[[], None]]
"""Writes entries in the transaction of their commits; what it returns is called when they are durable."""


@dataclass(slots=True)
class Wrote(Generic[T]):
    """What a job did: its result, and whom that concerns once it is durable."""

    result: T
    grown: str | None = None
    """The run whose journal grew."""
    is_woken: bool = False
    """Whether that run may have become ready."""
    audited: Sequence[Entry] = ()
    """Entries of the audit log: they go with this commit, or it does not."""
    is_revoked: bool = False
    """Whether runs may have been stopped, whichever: all who watch one look again."""


@dataclass(slots=True)
class Job:
    """Work for the writing thread. It may be run twice, if a neighbour in its group failed."""

    act: Callable[[apsw.Connection], Wrote[Any]]
    future: asyncio.Future[Any]
    wrote: Wrote[Any] | None = None
    error: BaseException | None = field(default=None)


class Came(Enum):
    """How a group came through its commit."""

    THROUGH = auto()
    SPOILT = auto()
    """A job of it raised; the others may do well without it."""
    REFUSED = auto()
    """The file did not take it: that is nobody's fault and everybody's error. After a crash some of it may be found."""


class Writer:
    """The thread. `submit` from the event loop it was made in."""

    def __init__(self, connection: apsw.Connection, path: Path, seal: Seal, tell: Callable[[list[Job]], None]) -> None:
        self._connection = connection
        self._path = path
        self._seal = seal
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._held: list[Job] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="overwinter-writer", daemon=True)
        self._thread.start()

    async def submit(self, act: Callable[[apsw.Connection], Wrote[T]], *, can_wait: bool = False) -> T:
        """Return the job's result once it is durable; one that can wait may be held back for `HELD_S_MAX`.

        A caller that is cancelled meanwhile does not undo the job.

        Raises:
            HomeFull: nothing was written; it may be tried again.
            HomeError: the file cannot be written.
        """
        if self._is_closed:
            raise HomeError("the store is closed")
        if self._jobs.qsize() >= QUEUE_MAX:
            raise HomeError(f"{QUEUE_MAX} writes wait already: the disk does not keep up")
        job = Job(act, self._loop.create_future())
        self._held.append(job)
        if not can_wait or len(self._held) >= HELD_MAX:
            self._let_go()
        elif self._timer is None:
            self._timer = self._loop.call_later(HELD_S_MAX, self._let_go)
        return await job.future

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for job in self._held:
            self._jobs.put(job)
        self._held.clear()

    async def close(self) -> None:
        """Write what was submitted, and end the thread.

        Raises:
            HomeError: the disk did not take it in `CLOSE_S_MAX` seconds.
        """
        if not self._is_closed:
            self._is_closed = True
            self._let_go()
            self._jobs.put(None)
        with anyio.move_on_after(CLOSE_S_MAX, shield=True):
            await anyio.to_thread.run_sync(self._thread.join, CLOSE_S_MAX)
        if self._thread.is_alive():
            raise HomeError(f"{self._path} took no write for {CLOSE_S_MAX} s: what was not acknowledged may be lost")

    def _work(self) -> None:
        while (group := self._gather()) is not None:
            if self._commit(group) is Came.SPOILT and len(group) > 1:
                for job in group:  # one of them spoilt the group: let each stand for itself
                    job.error = None
                    self._commit([job])
            self._loop.call_soon_threadsafe(self._tell, group)

    def _gather(self) -> list[Job] | None:
        first = self._jobs.get()
        if first is None:
            return None
        group = [first]
        while len(group) < GROUP_MAX and not self._jobs.empty():
            job = self._jobs.get()
            if job is None:
                self._jobs.put(None)
                break
            group.append(job)
        return group

    def _commit(self, group: list[Job]) -> Came:
        """Apply a group and commit it; unless it came through, nothing of it was applied and each job holds the error."""
        came = Came.REFUSED
        try:
            with guarded(self._path):
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                self._connection.execute("begin immediate")
                came = Came.SPOILT
                for job in group:
                    job.wrote = job.act(self._connection)
                entries = [entry for job in group if job.wrote is not None for entry in job.wrote.audited]
                keep = self._seal(self._connection, entries) if entries else None
                came = Came.REFUSED
                self._connection.execute("commit")
                if keep is not None:
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
