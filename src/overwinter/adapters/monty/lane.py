"""Interpreter workers for ordinary turns, driven by the event loop itself.

The interpreter's client takes a turn in a thread, which costs a hand-over of Python's lock at each of its six steps: that,
and not the work, bounds a busy home. Here most turns are one write and one read, and those of several turns are shared, see
`channel.py`. What this way does not know, and whatever goes wrong, it gives back: the turn is taken again by the client, see
`quick.py`, and what goes wrong there too is an error.

It is opened when turns line up, or come often: a home with little to do never has these workers.
"""

import asyncio
import socket
import subprocess
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from overwinter.adapters.monty import wire
from overwinter.adapters.monty.channel import AT_ONCE_MAX, Channel, Job, Steps
from overwinter.adapters.monty.posture import JailSettings, posture_faults
from overwinter.adapters.monty.quick import Exchange
from overwinter.adapters.monty.wire import Kind
from overwinter.interpreter import Outcome

__all__ = ["Lane", "open_lane"]

START_S_MAX = 10.0
STARTS_MAX = 3
"""Starts that may fail before the lane stays closed: the client, which starts workers too, says what is wrong."""
RESTART_PAUSE_S = 0.05
"""Between the end of a worker and the start of the next one, which takes the event loop some milliseconds: what killed one
has others to stop, and is in a hurry."""
END_S_MAX = 5.0
"""How long processes that were killed may take to end."""
ALONE_MAX = 1_000
"""Programs remembered whose turns take more than one exchange, or compute; and those that are not taken at all."""


class Lane:
    """A few workers; a turn goes to the one with the least to do, or waits for room."""

    def __init__(self, group: TaskGroup, launcher: str, jail: JailSettings, count: int) -> None:
        self._group = group
        self._launcher, self._jail, self._count = launcher, jail, count
        self._channels: set[Channel] = set()
        """Those whose process lives."""
        self._ready: list[Channel] = []
        """Those that are known to be what they should be."""
        self._waiting: deque[Job] = deque()
        self._alone: dict[int, None] = {}
        """Hashes of sources; the oldest first."""
        self._out: dict[int, None] = {}
        """The same, of programs that cost a worker each time."""
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
        return sum(channel.load > 0 for channel in self._ready)

    def open(self, *, pause_s: float = 0.0) -> None:
        """Have workers start that are missing; nobody waits for them."""
        while len(self._ready) + self._starting < self._count and not self.has_given_up:
            self._starting += 1
            self._group.start_soon(self._start, pause_s)

    async def run(self, source: str, steps: Steps, s_max: float) -> Outcome | None:
        """Take a turn of a program; None: it could not be taken this way. Cancelling it stops it.

        Args:
            source: the program, by which is remembered how its turns go.
            steps: the turn; it may be begun more than once.
            s_max: how long it may take, once it is under way.
        """
        if not self._ready or hash(source) in self._out:
            return None
        job = Job(key=hash(source), steps=steps, future=asyncio.get_running_loop().create_future(), s_max=s_max)
        self._waiting.append(job)
        self._hand_out()
        try:
            return await job.future
        except asyncio.CancelledError:
            for channel in tuple(self._ready):  # a worker that is killed is taken off it
                channel.drop(job)
            raise

    async def close(self) -> None:
        """End the workers."""
        self._faults = STARTS_MAX
        for channel in self._channels:
            channel.kill()
        with anyio.move_on_after(END_S_MAX, shield=True):
            while self._channels:  # the event loop tells each in its next round
                await anyio.lowlevel.checkpoint()

    # --- Told by the workers ----------------------------------------------------------------------------------------

    def freed(self, channel: Channel) -> None:
        """Give a worker more to do; let go of one that is over."""
        if channel.is_over:
            self._let_go(channel)
        self._hand_out()

    def keep_alone(self, key: int) -> None:
        """Remember a program behind whose turns nothing is put."""
        self._alone[key] = None
        if len(self._alone) > ALONE_MAX:
            del self._alone[next(iter(self._alone))]

    def keep_out(self, key: int) -> None:
        """Remember a program that is the client's from now on."""
        self._out[key] = None
        if len(self._out) > ALONE_MAX:
            del self._out[next(iter(self._out))]

    def keep_no_more(self, key: int) -> None:
        """Forget one of these: how its turns go is known by now."""
        self._alone.pop(key, None)

    def again(self, jobs: Iterable[Job]) -> None:
        """Put jobs before all that wait."""
        self._waiting.extendleft(reversed(tuple(jobs)))
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting:
            job = self._waiting[0]
            if job.future.done():
                self._waiting.popleft()
                continue
            channel = min(self._ready, key=_load, default=None)
            is_alone = job.key in self._alone
            if channel is None or channel.load >= (1 if is_alone else AT_ONCE_MAX):
                break
            self._waiting.popleft()
            channel.begin(job, is_alone=is_alone)
        while self._waiting and not self._ready:
            job = self._waiting.popleft()
            if not job.future.done():
                job.future.set_result(None)

    def _let_go(self, channel: Channel) -> None:
        if channel.has_ended:
            self._channels.discard(channel)
        if channel in self._ready:
            self._ready.remove(channel)
            self.open(pause_s=RESTART_PAUSE_S)

    # --- Starting ----------------------------------------------------------------------------------------------------

    async def _start(self, pause_s: float) -> None:
        """Have a worker show that it speaks our protocol and is in its jail: then it is free for turns."""
        try:
            await anyio.sleep(pause_s)
            channel = await self._connected()
            proof = asyncio.get_running_loop().create_future()
            steps = _proof(channel, self._jail)
            channel.begin(Job(key=0, steps=lambda: (steps, _unprinted), future=proof, s_max=START_S_MAX))
            if await proof:
                self._faults = 0
                self._ready.append(channel)
                self._hand_out()
            else:
                channel.kill()
                self._faults += 1
        except OSError:
            self._faults += 1
        finally:
            self._starting -= 1

    async def _connected(self) -> Channel:
        """Return a new process that has said nothing yet."""
        process, ours = _begun(self._launcher)
        channel = Channel(process, self)
        self._channels.add(channel)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
        except BaseException:  # the lane is closed before the worker is there
            ours.close()
            channel.connection_lost(None)
            raise
        return channel


def _load(channel: Channel) -> int:
    return channel.load


def _unprinted(_stream: str, _text: str) -> None:
    """Drop what a worker says before it is trusted."""


def _begun(launcher: str) -> "tuple[subprocess.Popen[bytes], socket.socket]":
    """Start a process by this thread: the kernel kills a worker when the thread that started it ends."""
    ours, theirs = socket.socketpair()
    with theirs:
        command, there = [launcher, "subprocess"], theirs.fileno()
        return subprocess.Popen(command, stdin=there, stdout=there, stderr=subprocess.DEVNULL, env={}), ours  # noqa: S603 - our own


def _proof(channel: Channel, jail: JailSettings) -> Generator[Exchange, list[bytes], bool]:
    (event,) = yield wire.CONFIGURE, 1
    return wire.head(event)[0] == Kind.OK and (jail.is_off or not _faults(channel.pid, jail))


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
