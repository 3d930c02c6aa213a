"""Clients that leave before their answer is whole.

A task for each call would be a tenth of what a short one costs, and most are over before anybody could leave. So one task looks
again and again, and begins to listen for those that are still under way.
"""

from collections.abc import Awaitable, Callable

import anyio

__all__ = ["Departures", "Staying"]

LOOK_S = 0.1
"""How often it looks: by so much a departure may be noticed late."""


class Staying:
    """A client that waits for its answer.

    Args:
        left: returns once it has left, or has its answer.
        stop: called `drain_s` after it has left, if it has no answer by then.
        drain_s: how long its call goes on without it.
    """

    __slots__ = ("_drain_s", "_left", "_over", "_stop", "has_left", "is_over")

    def __init__(self, left: Callable[[], Awaitable[None]], stop: Callable[[], None], drain_s: float) -> None:
        self._left, self._stop, self._drain_s = left, stop, drain_s
        self.has_left = self.is_over = False
        self._over: anyio.Event | None = None

    def over(self) -> None:
        """Say that nothing more comes of its call."""
        self.is_over = True
        if self._over is not None:
            self._over.set()

    async def listen(self) -> None:
        """Stop its call some time after it has left."""
        await self._left()
        if self.is_over:
            return
        self.has_left, self._over = True, anyio.Event()
        with anyio.move_on_after(self._drain_s):
            await self._over.wait()
        if not self.is_over:
            self._stop()


class Departures:
    """Notices who leaves."""

    def __init__(self) -> None:
        self._new: list[Staying] = []
        self._rung = anyio.Event()

    def expect(self, client: Staying) -> None:
        """Notice it if a client leaves."""
        self._new.append(client)
        self._rung.set()

    async def run(self) -> None:
        """Listen, until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                await self._rung.wait()
                await anyio.sleep(LOOK_S)
                new, self._new, self._rung = self._new, [], anyio.Event()
                for client in new:
                    if not client.is_over:
                        group.start_soon(client.listen)
