"""Who waits for what is committed: tasks that watch a run's journal, and the worker that is told which runs may be ready."""

import asyncio
from collections.abc import Callable
from typing import Any

from overwinter.adapters.sqlite.rows import GOES_ON
from overwinter.adapters.sqlite.writer import Job
from overwinter.ids import to_bytes

__all__ = ["Watching"]


class Watching:
    """On the event loop; nothing of it is durable."""

    def __init__(self, one: Callable[[str, bytes], tuple[Any, ...] | None], changed: Callable[[], None]) -> None:
        self._one, self._changed = one, changed
        """Reads one row; is told when who is active may have changed."""
        self._woken: set[str] = set()
        self._has_woken = asyncio.Event()
        self._ended: set[str] = set()
        self._has_ended = asyncio.Event()
        self._watchers: dict[str, list[asyncio.Future[None]]] = {}
        self._until_over: dict[str, list[asyncio.Future[None]]] = {}
        """Those who look only when a run may have ended: most commits are turns after which it goes on."""

    async def woken(self) -> frozenset[str]:
        """Wait until runs may have become ready; return them."""
        await self._has_woken.wait()
        self._has_woken.clear()
        woken, self._woken = frozenset(self._woken), set()
        return woken

    async def ended(self) -> frozenset[str]:
        """Wait until runs were ended by commits about others; return them."""
        await self._has_ended.wait()
        self._has_ended.clear()
        ended, self._ended = frozenset(self._ended), set()
        return ended

    async def watch(self, run_id: str, since: int) -> None:
        """Return when the run's journal has an event at position `since`, or the run goes on no more."""

        def has_come() -> bool:
            row = self._one("select events from run where id = ?", to_bytes(run_id))
            return row is None or row[0] > since or self._one(GOES_ON, to_bytes(run_id)) is None

        await self._until(self._watchers, run_id, has_come)

    async def over(self, run_id: str) -> None:
        """Return when the run goes on no more."""
        await self._until(self._until_over, run_id, lambda: self._one(GOES_ON, to_bytes(run_id)) is None)

    async def _until(
        self, among: dict[str, list[asyncio.Future[None]]], run_id: str, has_come: Callable[[], bool]
    ) -> None:
        """Look at once, and each time that those are told whom one waits among, until it has come."""
        while True:
            future = asyncio.get_running_loop().create_future()
            watchers = among.setdefault(run_id, [])
            watchers.append(future)
            try:
                if has_come():
                    return
                await future
            finally:
                if future in watchers:
                    watchers.remove(future)
                if not watchers and among.get(run_id) is watchers:
                    del among[run_id]

    def tell(self, group: list[Job]) -> None:
        """Hand a group's results out, and wake who waits for them."""
        for job in group:
            if (wrote := job.wrote) is not None:
                if wrote.is_revoked:
                    self._changed()
                    self._tell_all()
                if wrote.grown is not None:
                    self._tell_of(wrote.grown, is_woken=wrote.is_woken, goes_on=wrote.goes_on)
                if wrote.ended:
                    self._ended.update(wrote.ended)
                    self._has_ended.set()
                for run_id, is_woken in wrote.others:  # of these only who was answered is woken, and goes on
                    self._tell_of(run_id, is_woken=is_woken, goes_on=is_woken)
            if job.future.done():
                continue  # its caller was cancelled
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                assert job.wrote is not None
                job.future.set_result(job.wrote.result)

    def _tell_of(self, run_id: str, *, is_woken: bool, goes_on: bool) -> None:
        for future in (*self._watchers.pop(run_id, ()), *(() if goes_on else self._until_over.pop(run_id, ()))):
            if not future.done():
                future.set_result(None)
        if is_woken:
            self._woken.add(run_id)
            self._has_woken.set()

    def _tell_all(self) -> None:
        for futures in (*self._watchers.values(), *self._until_over.values()):
            for future in futures:
                if not future.done():
                    future.set_result(None)
