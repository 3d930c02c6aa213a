"""Interpreter workers for ordinary turns, driven by the event loop itself.

The interpreter's client takes a turn in a thread, which costs a hand-over of Python's lock at each of its six steps: that,
and not the work, bounds a busy home. Here most turns are one write and one read. What this way does not know, and whatever
goes wrong, it gives back: the turn is taken again by the client, see `quick.py`, and what goes wrong there too is an error.

It is opened when turns line up: a home with little to do never has these workers.
"""

import asyncio
import socket
import subprocess
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from overwinter.adapters.monty import wire
from overwinter.adapters.monty.posture import JailSettings, posture_faults
from overwinter.adapters.monty.quick import Exchange, Quick
from overwinter.adapters.monty.wire import Kind, Nonsense, Unusual
from overwinter.frozen import light
from overwinter.interpreter import Outcome

__all__ = ["Lane", "open_lane"]

START_S_MAX = 10.0
STARTS_MAX = 3
"""Starts that may fail before the lane stays closed: the client, which starts workers too, says what is wrong."""
BURY_LOOK_S = 0.002
RESTART_PAUSE_S = 0.05
"""Between the end of a worker and the start of the next one, which takes the event loop some milliseconds: what killed one
has others to stop, and is in a hurry."""
END_S_MAX = 5.0
"""How long processes that were killed may take to end."""
BYTES_MAX = 1 << 20
"""What a worker may send in one turn. One that sends more (a flood of output, a state that has grown) is killed."""


@light
@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    steps: Generator[Exchange, list[bytes], Any]
    print: Callable[[str, str], None]
    future: asyncio.Future[Any]
    """What the steps return; None: they cannot be taken here."""
    s_max: float


class _Channel(asyncio.Protocol):
    """One process and the job it is at."""

    def __init__(self, process: "subprocess.Popen[bytes]", free: Callable[["_Channel"], None]) -> None:
        self._process = process
        self._free = free
        """Told that a job is done, and at the end."""
        self._transport: asyncio.Transport | None = None
        self._job: _Job | None = None
        self._loop = asyncio.get_running_loop()
        self._deadline = 0.0
        """Of the job, by the event loop's clock."""
        self._alarm: asyncio.TimerHandle | None = None
        """Rings at a job's deadline or before it: one for each job would cost more than most other steps."""
        self._replies: list[bytes] = []
        self._replies_wanted = 0
        self._rest = b""
        self._bytes_taken = 0
        self.is_over = False
        """It takes no further job."""
        self.has_ended = False
        """The process is gone."""

    @property
    def pid(self) -> int:
        """Return the process's id."""
        return self._process.pid

    def begin(self, job: _Job) -> None:
        """Take up a job; no other may be under way."""
        self._job = job
        self._bytes_taken = 0
        self._deadline = self._loop.time() + job.s_max
        if self._alarm is None or self._alarm.when() > self._deadline:
            self._arm()
        self._step(None)

    def is_at(self, future: asyncio.Future[Any]) -> bool:
        """Return whether a job is under way."""
        return self._job is not None and self._job.future is future

    def kill(self) -> None:
        """End the process; a job under way is given back."""
        if not self.is_over:
            self.is_over = True
            self._process.kill()
            if self._transport is not None:
                self._transport.abort()

    # --- Told by the event loop -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the way to the process."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Take what the process sends: whole events, parts of one, or several."""
        self._bytes_taken += len(data)
        if self._bytes_taken > BYTES_MAX:
            self._give_up()
            return
        raw = self._rest + data if self._rest else data
        at, end = 0, len(raw)
        while end - at >= wire.LENGTH_BYTES:
            size = wire.length(raw, at)
            if size > BYTES_MAX:
                self._give_up()
                return
            until = at + wire.LENGTH_BYTES + size
            if until > end:
                break
            self._take(raw[at + wire.LENGTH_BYTES : until])
            at = until
        self._rest = raw[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the process has ended, or is about to."""
        del exc
        self.is_over = True
        self._process.kill()
        self._tell(None)
        self._bury()

    def _bury(self) -> None:
        """Note that a killed process is gone, as soon as it is: the event loop does not stand still for its end."""
        if self._process.poll() is None:
            asyncio.get_running_loop().call_later(BURY_LOOK_S, self._bury)
        else:
            self.has_ended = True
            self._free(self)

    # --- A job -------------------------------------------------------------------------------------------------------

    def _take(self, event: bytes) -> None:
        if self._job is None:
            return
        try:
            if event.startswith(wire.PRINT):
                for text in wire.printed(event):
                    self._job.print("stdout", text)
                return
            self._replies.append(event)
            if len(self._replies) == self._replies_wanted:
                replies, self._replies = self._replies, []
                self._step(replies)
        except Nonsense:
            self._give_up()

    def _step(self, replies: list[bytes] | None) -> None:
        assert self._job is not None
        assert self._transport is not None
        try:
            requests, self._replies_wanted = self._job.steps.send(replies)  # pyright: ignore[reportArgumentType] - None begins
        except StopIteration as end:
            self._tell(end.value)
        except Unusual:
            self._tell(None)
        else:
            self._transport.write(requests)

    def _arm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._job is not None:
            if self._loop.time() < self._deadline:
                self._arm()
            else:
                self._give_up()

    def _give_up(self) -> None:
        self.kill()
        self._tell(None)

    def _tell(self, result: Outcome | None) -> None:
        job, self._job = self._job, None
        if self.is_over and self._alarm is not None:
            self._alarm.cancel()
        if job is not None and not job.future.done():
            job.future.set_result(result)
        self._free(self)


class Lane:
    """A few workers; a turn takes a free one, or waits for it."""

    def __init__(self, group: TaskGroup, launcher: str, jail: JailSettings, count: int) -> None:
        self._group = group
        self._launcher, self._jail, self._count = launcher, jail, count
        self._channels: set[_Channel] = set()
        """Those whose process lives."""
        self._ready: set[_Channel] = set()
        """Those that are known to be what they should be."""
        self._idle: list[_Channel] = []
        self._waiting: deque[_Job] = deque()
        self._starting = 0
        self._faults = 0

    @property
    def size(self) -> int:
        """Return how many can take turns."""
        return len(self._ready)

    @property
    def has_given_up(self) -> bool:
        """Return whether starts have failed so often that none is tried any more."""
        return self._faults >= STARTS_MAX

    @property
    def busy(self) -> int:
        """Return how many are at work."""
        return len(self._ready) - len(self._idle)

    def open(self, *, pause_s: float = 0.0) -> None:
        """Have workers start that are missing; nobody waits for them."""
        while len(self._ready) + self._starting < self._count and not self.has_given_up:
            self._starting += 1
            self._group.start_soon(self._start, pause_s)

    async def run(self, steps: Quick, printed: Callable[[str, str], None], s_max: float) -> Outcome | None:
        """Take a turn; None: it could not be taken this way. Cancelling kills the worker."""
        if not self.size:
            return None
        job = _Job(steps=steps, print=printed, future=asyncio.get_running_loop().create_future(), s_max=s_max)
        if self._idle:
            self._idle.pop().begin(job)
        else:
            self._waiting.append(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            for channel in self._ready:
                if channel.is_at(job.future):
                    channel.kill()
            raise

    async def close(self) -> None:
        """End the workers."""
        self._faults = STARTS_MAX
        for channel in self._channels:
            channel.kill()
        with anyio.move_on_after(END_S_MAX, shield=True):
            while self._channels:  # the event loop tells each in its next round
                await anyio.lowlevel.checkpoint()

    def _free(self, channel: _Channel) -> None:
        """Give a worker its next turn; let go of one that is over."""
        if channel.is_over:
            self._let_go(channel)
            return
        self._ready.add(channel)
        while self._waiting:
            job = self._waiting.popleft()
            if not job.future.done():
                channel.begin(job)
                return
        self._idle.append(channel)

    def _let_go(self, channel: _Channel) -> None:
        if channel.has_ended:
            self._channels.discard(channel)
        if channel in self._ready:
            self._ready.remove(channel)
            if channel in self._idle:
                self._idle.remove(channel)
            self.open(pause_s=RESTART_PAUSE_S)
        while self._waiting and not self._ready:
            job = self._waiting.popleft()
            if not job.future.done():
                job.future.set_result(None)

    # --- Starting ----------------------------------------------------------------------------------------------------

    async def _start(self, pause_s: float) -> None:
        """Have a worker show that it speaks our protocol and is in its jail: then it is free for turns."""
        try:
            await anyio.sleep(pause_s)
            channel = await self._connected()
            proof = asyncio.get_running_loop().create_future()
            steps = _proof(channel, self._jail)
            channel.begin(_Job(steps=steps, print=lambda _stream, _text: None, future=proof, s_max=START_S_MAX))
            self._faults = 0 if await proof else self._faults + 1
        except OSError:
            self._faults += 1
        finally:
            self._starting -= 1

    async def _connected(self) -> _Channel:
        """Return a new process that has said nothing yet."""
        process, ours = _begun(self._launcher)
        channel = _Channel(process, self._free)
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
        self._channels.add(channel)
        return channel


def _begun(launcher: str) -> "tuple[subprocess.Popen[bytes], socket.socket]":
    """Start a process by this thread: the kernel kills a worker when the thread that started it ends."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [launcher, "subprocess"]
        return subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno(), env={}), ours  # noqa: S603 - our own


def _proof(channel: _Channel, jail: JailSettings) -> Generator[Exchange, list[bytes], bool]:
    (event,) = yield wire.CONFIGURE, 1
    is_right = wire.head(event)[0] == Kind.OK and (jail.is_off or not _faults(channel.pid, jail))
    if not is_right:
        channel.kill()
    return is_right


def _faults(pid: int, jail: JailSettings) -> list[str]:
    try:
        return posture_faults(pid, jail)
    except OSError:
        return ["it has ended"]


@asynccontextmanager
async def open_lane(launcher: str, jail: JailSettings, count: int) -> AsyncGenerator[Lane]:
    """Yield a lane without workers; those that `open` starts end with the block."""
    fault: Exception | None = None
    async with anyio.create_task_group() as group:
        lane = Lane(group, launcher, jail, count)
        try:
            yield lane
        except Exception as error:  # noqa: BLE001 - it goes on below: out of the group it would come as a group
            fault = error
        finally:
            group.cancel_scope.cancel()
            await lane.close()
    if fault is not None:
        raise fault
