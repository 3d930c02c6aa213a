"""Clients of a model endpoint that cost next to nothing: whole requests as bytes, answers measured and not read."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast

END = b"\r\n\r\n"
HUNG_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What some calls came to."""

    times_s: Sequence[float]
    parts: int
    """Chunks in which the answers came, all together."""


def request(port: int, headers: str, body: bytes, path: str = "/v1/chat/completions") -> bytes:
    """Return a request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\naccept: */*\r\n"
    return f"{head}user-agent: bench\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


async def called(port: int, requests: Sequence[bytes], count: int, connections: int, hung_s: float = HUNG_S) -> Called:
    """Make calls over so many connections, each one after another, and return how long each took.

    Raises:
        RuntimeError: an answer is no 200, or does not come.
    """
    loop, turns, left = asyncio.get_running_loop(), cycle(requests), iter(range(count))
    times: list[float] = []
    parts = 0

    async def caller() -> None:
        nonlocal parts
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
        try:
            for _ in left:
                began = time.perf_counter()
                answer = connection.ask(next(turns))
                async with asyncio.timeout(hung_s):
                    came = await answer
                parts += came
                times.append(time.perf_counter() - began)
        finally:
            connection.transport.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(caller())
    return Called(times_s=times, parts=parts)


@dataclass(slots=True, eq=False)
class _Connection(asyncio.Protocol):
    transport: asyncio.Transport = field(init=False)
    answer: asyncio.Future[int] = field(init=False)
    held: bytearray = field(default_factory=bytearray)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's class is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "answer") and not self.answer.done():
            self.answer.set_exception(RuntimeError(f"the connection broke: {exc}"))

    def ask(self, wire: bytes) -> asyncio.Future[int]:
        self.held.clear()
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(wire)
        return self.answer

    def data_received(self, data: bytes) -> None:
        self.held += data
        head = self.held.find(END)
        if head < 0 or self.answer.done():
            return
        top = bytes(self.held[:head]).lower()
        if not top.startswith(b"http/1.1 200"):
            self.answer.set_exception(RuntimeError(bytes(self.held[:600]).decode("latin-1")))
        elif b"transfer-encoding: chunked" in top:
            if self.held.endswith(b"0\r\n\r\n"):
                self.answer.set_result(_chunks(self.held, head + 4))
        else:
            size = int(top.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(self.held) >= head + 4 + size:
                self.answer.set_result(1)


def _chunks(held: bytearray, at: int) -> int:
    """Return how many chunks a body has, its empty last one left out."""
    count = 0
    while True:
        end = held.index(b"\r\n", at)
        size = int(held[at:end], 16)
        if not size:
            return count
        count, at = count + 1, end + 2 + size + 2
