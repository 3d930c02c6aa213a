"""A server that is a child of ours: its pipes, how it ends, and its last words.

The SDK's own transport keeps a line of any length, and reads whatever comes as fast as it comes.
"""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import Any, Self

import anyio

from overwinter.adapters.mcp_servers.flow import HEARSAY, Flow
from overwinter.frozen import frozen

__all__ = ["Child", "Words", "over_stdio"]

CHUNK_BYTES = 1 << 16
LEAVE_S_MAX, TERMINATE_S_MAX = 2.0, 2.0
"""How long it may take to end of itself when its input ends, and when it is told to (lifecycle#shutdown of the protocol)."""
LOOK_S = 0.01
WORDS_BYTES_MAX = 1 << 16
WORDS_CHARACTERS_MAX = 500
WORDS_REST_S = 0.004
"""Pause after each full read of standard error: 16 MB a second at most."""


@frozen
class Child:
    """How a server is started."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    """All of it: secrets are among it."""
    directory: Path


class Words:
    """What a server writes to its standard error: read, so that it never waits for us for long, and the end of it kept."""

    def __enter__(self) -> Self:
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        self.file = os.fdopen(writing, "w", encoding="utf-8")
        self._kept = b""
        self._rest: asyncio.TimerHandle | None = None
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rest is not None:
            self._rest.cancel()
        asyncio.get_running_loop().remove_reader(self._reading)
        self.file.close()
        os.close(self._reading)

    def last(self) -> str:
        """Return its last words, in one line."""
        self._read()
        text = self._kept[-4 * WORDS_CHARACTERS_MAX :].decode(errors="replace")
        return " ".join("".join(each if each.isprintable() else " " for each in text).split())[-WORDS_CHARACTERS_MAX:]

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._reading, self._read)

    def _read(self) -> None:
        loop = asyncio.get_running_loop()
        with suppress(BlockingIOError):
            found = os.read(self._reading, WORDS_BYTES_MAX)
            self._kept = found if len(found) == WORDS_BYTES_MAX else (self._kept + found)[-WORDS_BYTES_MAX:]
            if len(found) in (0, WORDS_BYTES_MAX):
                loop.remove_reader(self._reading)
            if len(found) == WORDS_BYTES_MAX:
                if self._rest is not None:
                    self._rest.cancel()
                self._rest = loop.call_later(WORDS_REST_S, self._listen)


@asynccontextmanager
async def over_stdio(child: Child, words: Words, flow: Flow) -> AsyncGenerator[tuple[Any, Any]]:
    """Start a server and yield the streams of its messages as the SDK wants them; end it with the block.

    Args:
        child: how it is started.
        words: get its standard error.
        flow: of the connection.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *child.command, env=child.environment, cwd=child.directory, stdin=PIPE, stdout=PIPE, stderr=words.file,
        limit=CHUNK_BYTES, start_new_session=True,
    )  # fmt: skip
    heard, incoming = anyio.create_memory_object_stream[Any](0)
    outgoing, said = anyio.create_memory_object_stream[Any](0)
    with heard, incoming, outgoing, said:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_listen, process, heard, flow)
            tasks.start_soon(_speak, process, said, heard)
            try:
                yield incoming, outgoing
            finally:
                with anyio.move_on_after(2 * (LEAVE_S_MAX + TERMINATE_S_MAX), shield=True):
                    await _end(process, leave_s=0 if flow.fault else LEAVE_S_MAX)
                tasks.cancel_scope.cancel()


async def _listen(process: Process, heard: Any, flow: Flow) -> None:
    """Pass on what the server says, until it ends or sends a message without end."""
    from mcp.shared.message import SessionMessage  # noqa: PLC0415 - it takes half a second, and many homes have no server
    from mcp_types import jsonrpc_message_adapter  # noqa: PLC0415 - as above

    try:
        async for line in _lines(process, flow):
            await flow.take(size_bytes=len(line))
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:  # some print what is meant for a person
                await flow.take(messages=HEARSAY)
            else:
                await heard.send(SessionMessage(message))
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # nobody listens any more
    finally:
        heard.close()


async def _lines(process: Process, flow: Flow) -> AsyncGenerator[bytearray]:
    assert process.stdout is not None
    begun = bytearray()
    while chunk := await process.stdout.read(CHUNK_BYTES):
        for number, piece in enumerate(chunk.split(b"\n")):
            if number:
                yield begun
                begun = bytearray()
            begun += piece
        if len(begun) > flow.bytes_max:
            flow.end(flow.too_large)
            return


async def _speak(process: Process, said: Any, heard: Any) -> None:
    assert process.stdin is not None
    try:
        async for each in said:
            line = each.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(line.encode() + b"\n")
            await process.stdin.drain()
    except (anyio.ClosedResourceError, OSError):
        heard.close()  # whoever waits for an answer learns that none comes


async def _end(process: Process, *, leave_s: float) -> None:
    """End a server with its children: by closing its input, by a word, by force.

    Args:
        process: it.
        leave_s: how long it may take to end of itself.
    """
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    if not await _has_left(process, leave_s):
        _signal(process, signal.SIGTERM)
        if not await _has_left(process, TERMINATE_S_MAX):
            _signal(process, signal.SIGKILL)
            await _has_left(process, LEAVE_S_MAX)
    # A grandchild may hold the pipes for ever; closing them has no public door.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


async def _has_left(process: Process, within_s: float) -> bool:
    """Return whether it ended; `wait` would wait for its pipes too, which a grandchild may hold."""
    with anyio.move_on_after(within_s):
        while process.returncode is None:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(LOOK_S)
    return process.returncode is not None


def _signal(process: Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
