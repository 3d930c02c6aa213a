"""One thread owns the one writing connection and commits in groups.

While a commit waits for the disk the next jobs gather; they share the next commit. So the cost of a sync is divided by
the load: with 64 in flight, durable commits reach more than ten times the rate of single ones.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import apsw

from overwinter.adapters.sqlite.schema import guarded
from overwinter.errors import HomeError

__all__ = ["GROUP_MAX", "QUEUE_MAX", "Job", "Writer", "Wrote"]

GROUP_MAX = 64
"""Jobs in one commit: beyond it the gain is small and the first of them waits longer."""
QUEUE_MAX = 100_000
"""Jobs that may wait; more is a fault of the caller, whose own limits are far lower."""

T = TypeVar("T")


@dataclass(slots=True)
class Wrote(Generic[T]):
    """What a job did: its result, and whom that concerns once it is durable."""

    result: T
    grown: str | None = None
    """The run whose journal grew."""
    is_woken: bool = False
    """Whether that run may have become ready."""


@dataclass(slots=True)
class Job:
    """Work for the writing thread. It may be run twice, if a neighbour in its group failed."""

    act: Callable[[apsw.Connection], Wrote[Any]]
    future: asyncio.Future[Any]
    wrote: Wrote[Any] | None = None
    error: BaseException | None = field(default=None)


class Writer:
    """The thread. `submit` from the event loop it was made in."""

    def __init__(self, connection: apsw.Connection, path: Path, tell: Callable[[list[Job]], None]) -> None:
        self._connection = connection
        self._path = path
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="overwinter-writer", daemon=True)
        self._thread.start()

    async def submit(self, act: Callable[[apsw.Connection], Wrote[T]]) -> T:
        """Return the job's result once it is durable.

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
        self._jobs.put(job)
        return await job.future

    def close(self) -> None:
        """Write what was submitted, and end the thread."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (group := self._gather()) is not None:
            if not self._commit(group) and len(group) > 1:
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

    def _commit(self, group: list[Job]) -> bool:
        """Apply a group and commit it; False: nothing of it was applied, and each job holds the error."""
        try:
            with guarded(self._path):
                self._connection.execute("begin immediate")
                for job in group:
                    job.wrote = job.act(self._connection)
                self._connection.execute("commit")
        except Exception as error:  # noqa: BLE001 - it goes to whoever submitted
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            for job in group:
                job.wrote, job.error = None, error
            return False
        return True
