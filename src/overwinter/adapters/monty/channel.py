"""One interpreter worker as the event loop drives it: turns go in, in order, and their outcomes come out.

Several turns may be with a worker at once: what one is sent does not depend on what the others reply. So a worker has the next
turn in its pipe when it ends one, and a busy event loop wakes it, writes to it and reads from it once for several turns, which
is a sixth of the cost of a turn.

That holds for the first exchange of a turn, and most have no other. A turn that turns out to have more, with others behind
it, is taken anew from its beginning; so are those behind a turn that computes for long, or whose worker is killed. That is
no loss to anybody: a turn has no effect.
"""

import asyncio
import subprocess
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from overwinter.adapters.monty import wire
from overwinter.adapters.monty.quick import Exchange
from overwinter.adapters.monty.wire import Nonsense, Unusual

__all__ = ["AT_ONCE_MAX", "Channel", "Job", "Owner", "Steps"]

AT_ONCE_MAX = 4
"""Turns with a worker at once: 16 gain no more."""
BEHIND_S_MAX = 0.02
"""How long a turn stays behind one that computes; then it lines up anew, for whichever worker is free first."""
SURE_S = 0.002
"""After a job was found to take long, until it is looked at again."""
DROPPED_S_MAX = 0.2
"""How long a turn may compute that nobody waits for; then its worker is killed. Most end before, and a new worker costs more."""
BURY_LOOK_S = 0.002
BYTES_MAX = 1 << 20
"""What a worker may send in one turn. One that sends more (a flood of output, a state that has grown) is killed."""

Printed = Callable[[str, str], None]
Steps = Callable[[], tuple[Generator[Exchange, list[bytes], Any], Printed]]
"""A turn from its beginning, and where its output goes. Asked again, it begins again and knows nothing of before."""


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A turn that somebody waits for."""

    key: int
    """Hash of its program, by which is remembered how its turns go."""
    steps: Steps
    future: asyncio.Future[Any]
    """What the steps return; None: they cannot be taken here."""
    s_max: float
    """From when it is the first with its worker."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Taken:
    """A job as a worker has it."""

    job: Job | None
    """None: nobody waits for it here any more, and what comes of it is dropped."""
    steps: Generator[Exchange, list[bytes], Any]
    print: Printed
    replies_wanted: int
    s_max: float
    has_more: bool = False
    """It took more than one exchange."""


class Owner(Protocol):
    """Whose workers these are."""

    def freed(self, channel: "Channel") -> None:
        """Be told that a worker has room, or is over."""
        ...

    def keep_alone(self, key: int) -> None:
        """Be told of a program whose turns take more than one exchange, or compute: nothing is to be put behind them."""
        ...

    def keep_out(self, key: int) -> None:
        """Be told of a program that sends more than a worker may: it costs one, and is not to come again."""
        ...

    def keep_no_more(self, key: int) -> None:
        """Be told of one of these that took one exchange, and did not compute."""
        ...

    def again(self, jobs: Iterable[Job]) -> None:
        """Have jobs taken anew, before all that wait."""
        ...


class Channel(asyncio.Protocol):
    """One process and the jobs that it has, the first of them under way."""

    def __init__(self, process: "subprocess.Popen[bytes]", owner: Owner) -> None:
        self._process = process
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._taken: deque[_Taken] = deque()
        self._requests: list[bytes] = []
        """To be written together, in the event loop's next round."""
        self._loop = asyncio.get_running_loop()
        self._since = 0.0
        """When the first job became the first, by the event loop's clock."""
        self._alarm: asyncio.Handle | None = None
        """Rings when the first job is to be looked at, or before: one for each job would cost more than most other steps."""
        self._alarm_at = 0.0
        """When; the handle itself does not say it on every event loop, once it is late."""
        self._late: _Taken | None = None
        """The first job, once it was found to take long."""
        self._replies: list[bytes] = []
        self._rest = b""
        self._bytes_taken = 0
        self._is_held_up = False
        """Nothing is put behind the first job: it takes more than one exchange, or computes."""
        self.is_over = False
        """It takes no further job."""
        self.has_ended = False
        """The process is gone."""

    @property
    def pid(self) -> int:
        """Return the process's id."""
        return self._process.pid

    @property
    def load(self) -> int:
        """Return how many jobs it has; `AT_ONCE_MAX` if it takes no other."""
        if self._is_held_up:
            return AT_ONCE_MAX
        return len(self._taken)

    def begin(self, job: Job, *, is_alone: bool = False) -> None:
        """Take a job, behind those that it has; one that is alone, if it has none, and none behind it."""
        try:
            steps, printed = job.steps()
            requests, replies = steps.send(None)  # pyright: ignore[reportArgumentType] - None begins
        except Unusual:
            _tell(job, None)
            return
        except Exception as error:  # noqa: BLE001 - it is told whose job this is, and that may be somebody else
            if not job.future.done():
                job.future.set_exception(error)
            return
        self._taken.append(_Taken(job=job, steps=steps, print=printed, replies_wanted=replies, s_max=job.s_max))
        if len(self._taken) == 1:
            self._is_held_up = is_alone
            self._head()
            self._write(requests)
            return
        self._look_by(self._since + BEHIND_S_MAX)
        if not self._requests:
            self._loop.call_soon(self._flush)
        self._requests.append(requests)

    def drop(self, job: Job) -> None:
        """Let go of a job that nobody waits for any more; if it is under way, the process is ended."""
        for place, taken in enumerate(self._taken):
            if taken.job is job:
                taken.job = None
                if place == 0:
                    self.kill()
                return

    def kill(self) -> None:
        """End the process. The job under way is given back, those behind it are taken anew."""
        if not self.is_over:
            self._process.kill()
            if self._transport is not None:
                self._transport.abort()
            self._end()

    # --- Told by the event loop -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the way to the process."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Take what the process sends: whole events, parts of one, or several."""
        self._bytes_taken += len(data)
        if self._bytes_taken > BYTES_MAX:
            self._kill_flood()
            return
        raw = self._rest + data if self._rest else data
        at, end = 0, len(raw)
        while end - at >= wire.LENGTH_BYTES:
            size = wire.length(raw, at)
            if size > BYTES_MAX:
                self._kill_flood()
                return
            until = at + wire.LENGTH_BYTES + size
            if until > end:
                break
            self._take(raw[at + wire.LENGTH_BYTES : until])
            at = until
        self._rest = raw[at:]

    def _kill_flood(self) -> None:
        if self._taken and (job := self._taken[0].job) is not None:
            self._owner.keep_out(job.key)
        self.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the process has ended, or is about to."""
        del exc
        self._process.kill()
        if not self.is_over:
            self._end()
        self._bury()

    def _bury(self) -> None:
        """Note that a killed process is gone, as soon as it is: the event loop does not stand still for its end."""
        if self._process.poll() is None:
            asyncio.get_running_loop().call_later(BURY_LOOK_S, self._bury)
        else:
            self.has_ended = True
            self._owner.freed(self)

    # --- The first job ----------------------------------------------------------------------------------------------

    def _take(self, event: bytes) -> None:
        if not self._taken:
            return
        first = self._taken[0]
        try:
            if event.startswith(wire.PRINT):
                for text in wire.printed(event):
                    first.print("stdout", text)
                return
            self._replies.append(event)
            if len(self._replies) == first.replies_wanted:
                replies, self._replies = self._replies, []
                self._step(first, replies)
        except Nonsense:
            self.kill()

    def _step(self, first: _Taken, replies: list[bytes]) -> None:
        try:
            requests, first.replies_wanted = first.steps.send(replies)
        except StopIteration as end:
            self._done(first, end.value)
        except Unusual:
            self._done(first, None)
        else:
            first.has_more = True
            if first.job is not None:
                self._owner.keep_alone(first.job.key)
            if len(self._taken) == 1 and first.job is not None:
                self._is_held_up = True
                self._write(requests)
            else:
                self._done(first, None, is_again=True)

    def _done(self, first: _Taken, result: Any, *, is_again: bool = False) -> None:
        self._taken.popleft()
        is_short = not first.has_more and self._loop.time() - self._since < BEHIND_S_MAX
        if self._is_held_up and is_short and first.job is not None:
            self._owner.keep_no_more(first.job.key)
        self._is_held_up, self._late = False, None
        if self._taken:
            self._head()
        if first.job is not None and not is_again:
            _tell(first.job, result)
        elif first.job is not None:
            self._owner.again((first.job,))
        self._owner.freed(self)

    def _head(self) -> None:
        """Have the first job be under way from now on."""
        self._bytes_taken = 0
        self._since = self._loop.time()
        self._look_by(self._since + self._patience_s)

    @property
    def _patience_s(self) -> float:
        """How long the first job is left alone."""
        first = self._taken[0]
        if first.job is None:
            return min(first.s_max, DROPPED_S_MAX)
        return first.s_max if len(self._taken) == 1 else BEHIND_S_MAX

    def _look_by(self, at: float) -> None:
        if self._alarm is None or self._alarm_at > at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm, self._alarm_at = self._loop.call_at(at, self._ring), at

    def _ring(self) -> None:
        self._alarm = None
        if not self._taken:
            return
        first, taken_s = self._taken[0], self._loop.time() - self._since
        if taken_s < self._patience_s:
            self._look_by(self._since + self._patience_s)
        elif self._late is not first:  # the event loop may be what is late, and a reply waits to be read
            self._late = first
            self._look_by(self._loop.time() + SURE_S)
        elif taken_s >= first.s_max or first.job is None:
            self.kill()
        else:
            self._is_held_up = True
            self._look_by(self._since + first.s_max)
            self._owner.keep_alone(first.job.key)
            self._owner.again(self._left_behind())

    def _left_behind(self) -> list[Job]:
        """Return the jobs behind the first; here nobody waits for them any more."""
        left: list[Job] = []
        for taken in list(self._taken)[1:]:
            if taken.job is not None:
                left.append(taken.job)
                taken.job = None
        return left

    def _end(self) -> None:
        """Take no job any more, and let go of those that there are."""
        self.is_over = True
        self._owner.freed(self)
        if self._alarm is not None:
            self._alarm.cancel()
        left = self._left_behind()
        first = self._taken[0].job if self._taken else None
        self._taken.clear()
        self._requests.clear()
        if first is not None:
            _tell(first, None)
        self._owner.again(left)

    # --- To the process ---------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        requests, self._requests = self._requests, []
        if requests:
            self._write(b"".join(requests))

    def _write(self, requests: bytes) -> None:
        assert self._transport is not None
        self._transport.write(requests)


def _tell(job: Job, result: Any) -> None:
    if not job.future.done():
        job.future.set_result(result)
