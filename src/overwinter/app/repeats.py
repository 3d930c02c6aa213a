"""Has what is asked under a key done once: a second time, within a day, is told what the first one was."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

import anyio

from overwinter.adapters.sqlite import SqliteRequests
from overwinter.errors import Conflict, HomeError, UsageError

__all__ = ["Again", "Answer", "Repeats"]

Answer = tuple[int, bytes]
"""Status and body."""
Again = Literal["once", "again"]
"""What a repetition does if nobody lived to write the first answer down: it is refused, or carried out, for twice is as once."""


class Repeats:
    """Requests of the last day by their keys, and those that are under way."""

    def __init__(self, requests: SqliteRequests) -> None:
        self._requests = requests
        self._under_way = dict[str, anyio.Event]()

    async def once(self, name: str, digest: bytes, again: Again, act: Callable[[], Awaitable[Answer]]) -> Answer:
        """Carry out what is asked, or return what was answered before. One that comes while the first is under way waits for it.

        What is refused changed nothing, and leaves its key free. What became of one that failed otherwise is not known.

        Args:
            name: who asks, and the key.
            digest: of what is asked.
            again: what becomes of a request whose first answer nobody wrote down.
            act: carries it out.

        Raises:
            Conflict: something else was asked under the key, or it is not known what became of it.
        """
        while name in self._under_way:
            await self._under_way[name].wait()
        self._under_way[name] = anyio.Event()
        try:
            before = await self._requests.begin(name, digest)
            if before is None:
                return await self._carried_out(name, digest, act)
            if before.digest != digest:
                raise Conflict("something else was asked under this key before: take a new key for a new request")
            if before.status is not None:
                return before.status, before.body
            if again == "once":
                raise Conflict(
                    "the server went away before it answered this key's first request: look whether it was carried out, and if it "
                    "was not, ask under a new key"
                )
            return await self._carried_out(name, digest, act)
        finally:
            self._under_way.pop(name).set()

    async def _carried_out(self, name: str, digest: bytes, act: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            status, body = await act()
        except UsageError:
            with suppress(HomeError):
                await self._requests.forget(name)
            raise
        with suppress(HomeError):  # the disk is in trouble, and the answer true all the same
            await self._requests.end(name, digest, status, body)
        return status, body
