"""How much of a server is listened to: a share of this process, so that no server takes the time or memory of the others.

What is beyond it waits where it is, in the pipe or socket: a server that floods is slowed. One that sends a message without
end, or asks without end, is ended.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio

__all__ = ["HEARSAY", "MESSAGE_BYTES_MAX", "Flow"]

MESSAGE_BYTES_MAX = 16 << 20
"""Largest message. It is one line, or one answer, and in memory several times while it is read."""
MESSAGES_PER_S_MAX = 2_000
"""In the long run; each takes 100-200 us in the SDK, a task of its own included."""
BYTES_PER_S_MAX = 32 << 20
"""In the long run; JSON is read at 100-300 MB/s."""
HEARSAY = 0.1
"""The part of a message's work that one is which nobody here wants to know."""
BURST_S = 2.0
"""Work that is done at once after a pause: some answers of the largest size, or 4,000 messages."""
REST_S_MIN = 0.01
"""A shorter rest is put off: a timer costs more than it saves."""
QUESTIONS_MAX = 100
"""Requests of a server that are not answered yet: each is a task, and waits until the server reads."""
HEARD = ("notifications/cancelled", "notifications/progress", "notifications/tools/list_changed")
"""The notifications that mean something here; the others are dropped unread, logs above all."""


class Flow:
    """What comes over one connection: how fast, how much, and when it is over."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = min(bytes_max, MESSAGE_BYTES_MAX)
        """Largest message."""
        self.fault = ""
        """Why we ended it; "" if we did not."""
        self.over = asyncio.Event()
        """Set when nothing comes any more."""
        self._free_at_s = 0.0
        self._questions: set[str | int] = set()

    def end(self, fault: str = "") -> None:
        """Note that nothing comes any more, and why if that is our doing."""
        self.fault = self.fault or fault
        self.over.set()

    @property
    def too_large(self) -> str:
        """Return what is said of a message that is."""
        return f"it sent a message of more than {self.bytes_max >> 20} MB: it was cut off"

    async def take(self, *, size_bytes: int = 0, messages: float = 0.0) -> None:
        """Count something that came, and rest if it was too much.

        Args:
            size_bytes: of it.
            messages: how many there were in it; a fraction for one that is dropped.
        """
        now_s = asyncio.get_running_loop().time()
        work_s = messages / MESSAGES_PER_S_MAX + size_bytes / BYTES_PER_S_MAX
        self._free_at_s = max(self._free_at_s, now_s - BURST_S) + work_s
        if (rest_s := self._free_at_s - now_s) > REST_S_MIN:
            await asyncio.sleep(rest_s)

    @asynccontextmanager
    async def through(self, wire: AbstractAsyncContextManager[tuple[Any, Any]]) -> AsyncGenerator[tuple[Any, Any]]:
        """Yield the streams of a transport, as the SDK wants them, with its messages counted and judged in between."""
        passed, incoming = anyio.create_memory_object_stream[Any](0)
        outgoing, said = anyio.create_memory_object_stream[Any](0)
        with passed, incoming, outgoing, said:
            async with wire as (reading, writing), anyio.create_task_group() as tasks:
                tasks.start_soon(self._hear, reading, passed)
                tasks.start_soon(self._say, said, writing, passed)
                yield incoming, outgoing
                tasks.cancel_scope.cancel()

    async def _hear(self, reading: Any, passed: Any) -> None:
        try:
            async for each in reading:
                if isinstance(each, Exception) or not self._is_wanted(each.message):
                    await self.take(messages=HEARSAY)
                    continue
                if self.fault:
                    break
                await passed.send(each)
                await self.take(messages=1)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # one of the two ends has gone
        finally:
            passed.close()  # whoever waits for an answer learns that none comes
            self.end()

    def _is_wanted(self, message: Any) -> bool:
        """Return whether a message is passed on, and count the server's questions."""
        is_request = hasattr(message, "method")
        if is_request and not hasattr(message, "id"):
            if message.method == "notifications/cancelled":
                self._questions.discard((message.params or {}).get("requestId"))
            return message.method in HEARD
        if is_request:
            if message.id in self._questions:
                return False
            self._questions.add(message.id)
            if len(self._questions) > QUESTIONS_MAX:
                self.end(f"it asked more than {QUESTIONS_MAX} things at once: it was cut off")
        return True

    async def _say(self, said: Any, writing: Any, passed: Any) -> None:
        try:
            async for each in said:
                if not hasattr(each.message, "method"):
                    self._questions.discard(each.message.id)
                await writing.send(each)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            passed.close()
