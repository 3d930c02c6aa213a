"""Interpreter workers: one thread and one jailed process each.

A turn is one hop from the event loop to the thread and one back. The thread lives as long as the pool: the pool forks in
the thread that asks for a checkout, and the kernel kills a worker when the thread that forked it ends.
"""

import asyncio
import os
import queue
import select
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TypeVar

import anyio
import pydantic_monty as monty

from overwinter.adapters.monty.jail import EXIT_REFUSED
from overwinter.adapters.monty.posture import JailSettings, posture_faults, refusal
from overwinter.errors import JailUnavailable, WorkerCrashed
from overwinter.frozen import frozen

__all__ = ["LIMIT_GRACE_S", "Desk", "JailSettings", "Workers", "open_workers"]

T = TypeVar("T")

LIMIT_GRACE_S = 2.0
"""How long the interpreter may be late in noticing a limit of its own before it is killed: 46 % of 2 s were measured."""
CLOSE_S_MAX = 5.0
DEATH_S_MAX = 5.0
"""A killed process is gone within milliseconds; a machine that takes longer has other troubles."""


class Desk:
    """What a job works with, in the worker's thread: checkouts of its one worker.

    The event loop may kill the process at any time; a pidfd makes sure that it never hits another.
    """

    def __init__(self, pool: monty.Monty, jail: JailSettings) -> None:
        self.pool = pool
        self._jail = jail
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._pidfd: int | None = None
        self._is_revoked = False
        self._is_working = False

    def seen(self, session: monty.MontySession) -> None:
        """Note the worker of a new checkout; inspect its jail from outside if it is a new process.

        Raises:
            JailUnavailable: it runs, and not in the jail it should be in. It was killed.
            WorkerCrashed: the caller has gone, or the process has.
        """
        pid = session.worker_pid
        if pid is None:
            raise WorkerCrashed("an interpreter worker ended before its turn")
        if pid != self._pid:
            self._adopt(pid)
        if self._is_revoked:
            self.kill()
            raise WorkerCrashed("the turn was cancelled")

    def kill(self) -> None:
        """Kill the process, if there is one; the next checkout starts another."""
        with self._lock:
            if self._pidfd is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def begin(self) -> None:
        """Open a job."""
        with self._lock:
            self._is_working = True
            self._is_revoked = False

    def revoke(self) -> None:
        """Kill the process of the open job, at once or as soon as there is one; without an open job do nothing."""
        with self._lock:
            self._is_revoked = self._is_working
        if self._is_revoked:
            self.kill()

    def end(self) -> None:
        """Close a job. A process that was killed is dead for certain afterwards, so that no later job is given it."""
        with self._lock:
            self._is_working = False
        if self._is_revoked:
            self._await_death()

    def forget(self) -> None:
        """Let go of a process that is dead."""
        with self._lock:
            if self._pidfd is not None:
                os.close(self._pidfd)
            self._pid = self._pidfd = None

    def _adopt(self, pid: int) -> None:
        self.forget()
        try:
            pidfd = os.pidfd_open(pid)
            faults = [] if self._jail.is_off else posture_faults(pid, self._jail)
        except OSError as error:
            raise WorkerCrashed("an interpreter worker ended before its turn") from error
        with self._lock:
            self._pid, self._pidfd = pid, pidfd
        if faults:
            self.kill()
            raise JailUnavailable(f"an interpreter worker was not jailed and was killed: {', '.join(faults)}")

    def _await_death(self) -> None:
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)  # readable once the process has ended
            poll.poll(DEATH_S_MAX * 1_000)
        self.forget()


@frozen
class _Job:
    act: Callable[[Desk], object]
    future: asyncio.Future[object]
    loop: asyncio.AbstractEventLoop


class _Worker:
    """One thread with its pool of one process."""

    def __init__(self, binary: str, jail: JailSettings, request_timeout_s: float) -> None:
        self._binary, self._jail, self._request_timeout_s = binary, jail, request_timeout_s
        self._desk: Desk | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="overwinter-interpreter", daemon=True)
        self.thread.start()

    def submit(self, act: Callable[[Desk], T]) -> asyncio.Future[T]:
        """Have the thread do something."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(act=act, future=future, loop=loop))  # pyright: ignore[reportArgumentType] - the result is the future's
        return future

    async def run(self, act: Callable[[Desk], T]) -> T:
        """Have the thread do something; if the caller is cancelled, kill the process."""
        future = self.submit(act)
        try:
            return await future
        except asyncio.CancelledError:
            self.revoke()
            raise

    def revoke(self) -> None:
        """Kill the process of the job at hand."""
        if self._desk is not None:
            self._desk.revoke()

    def close(self) -> None:
        """End the thread after the jobs it has."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with ExitStack() as stack:
                try:
                    pool = stack.enter_context(self._pool())
                except (
                    RuntimeError
                ) as error:  # nothing can be started: this job is told so, and the next one tries anew
                    _answer(job, None, JailUnavailable(f"no interpreter worker can be started: {error}"))
                    continue
                self._desk = Desk(pool, self._jail)
                stack.callback(self._desk.forget)
                self._work_through(self._desk, job)
            return

    def _pool(self) -> monty.Monty:
        return monty.Monty(
            binary_path=self._binary,
            min_processes=1,
            max_processes=1,
            request_timeout=self._request_timeout_s,
            feed_duration_limit_grace=LIMIT_GRACE_S,
            turn_duration_limit_grace=LIMIT_GRACE_S,
        )

    def _work_through(self, desk: Desk, job: _Job | None) -> None:
        while job is not None:
            self._do(job, desk)
            job = self._jobs.get()

    def _do(self, job: _Job, desk: Desk) -> None:
        desk.begin()
        if job.future.cancelled():  # asked only now: whoever cancels after this finds an open job
            desk.end()
            return
        result: object = None
        error: Exception | None = None
        try:
            result = job.act(desk)
        except monty.MontyCrashedError as crash:
            desk.forget()
            error = _crash(crash, self._jail)
        except Exception as fault:  # noqa: BLE001 - it goes to whoever asked
            error = fault
        desk.end()
        _answer(job, result, error)


def _answer(job: _Job, result: object, error: Exception | None) -> None:
    with suppress(RuntimeError):  # the loop was closed meanwhile
        job.loop.call_soon_threadsafe(_tell, job.future, result, error)


def _tell(future: asyncio.Future[object], result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _crash(crash: monty.MontyCrashedError, jail: JailSettings) -> JailUnavailable | WorkerCrashed:
    if crash.exit_status == EXIT_REFUSED and not jail.is_off:
        return refusal(jail)
    what = "overran its deadline and was killed" if crash.timed_out else f"died ({crash})"
    return WorkerCrashed(f"an interpreter worker {what}", has_timed_out=crash.timed_out)


class Workers:
    """A fixed set of workers; a job takes a free one, or waits for it."""

    def __init__(self, workers: list[_Worker], proofs: Sequence[asyncio.Future[None]] = ()) -> None:
        self._workers = workers
        self._proofs = proofs
        self._idle = list(workers)
        self._free = asyncio.Semaphore(len(workers))

    @property
    def busy(self) -> int:
        """Return how many are at work."""
        return len(self._workers) - len(self._idle)

    @property
    def are_taken(self) -> bool:
        """Return whether the next job has to wait."""
        return self._free.locked()

    async def proven(self) -> None:
        """Wait until every worker that was started at once has answered.

        Raises:
            JailUnavailable: the jail cannot be had, or a worker was found outside it.
            WorkerCrashed: a worker died as it started.
        """
        if self._proofs:
            await asyncio.wait(self._proofs)
        for proof in self._proofs:
            proof.exception()  # marks each as looked at; the first is raised below
        for proof in self._proofs:
            proof.result()

    async def run(self, act: Callable[[Desk], T]) -> T:
        """Do something with a worker, in its thread. Cancelling kills the worker.

        Raises:
            WorkerCrashed: the worker died.
            JailUnavailable: no worker can be started.
        """
        async with self._free:
            worker = self._idle.pop()
            try:
                return await worker.run(act)
            finally:
                self._idle.append(worker)


@asynccontextmanager
async def open_workers(  # noqa: PLR0913 - what workers are started with
    binary: str,
    jail: JailSettings,
    count: int,
    request_timeout_s: float,
    *,
    is_eager: bool = True,
    is_proven: bool = True,
) -> AsyncGenerator[Workers]:
    """Start workers, all at once, and prove that they answer; end them with the block.

    Args:
        binary: what `open_launcher` gave.
        jail: what the jail must look like from outside.
        count: workers, each with a thread and a process.
        is_eager: False: start each at its first job, for a home that may have none.
        is_proven: False: whoever opens them does something else while they start, and then waits for `proven`.
        request_timeout_s: after this a worker that does not answer is killed; above every limit of the programs.

    Raises:
        JailUnavailable: the jail cannot be had, or a worker was found outside it.
        WorkerCrashed: a worker died as it started.
    """
    workers = [_Worker(binary, jail, request_timeout_s) for _ in range(count)]
    proofs = [worker.submit(_prove) for worker in workers] if is_eager else []
    started = Workers(workers, proofs)
    try:
        if is_proven:
            await started.proven()
        yield started
    finally:
        for proof in proofs:
            proof.cancel()  # nobody asks for it any more: not what it failed of either
        for worker in workers:
            worker.close()
        with anyio.CancelScope(shield=True):
            for worker in workers:
                await anyio.to_thread.run_sync(worker.thread.join, CLOSE_S_MAX)


def _prove(desk: Desk) -> None:
    with desk.pool.checkout() as session:
        desk.seen(session)
        assert session.feed_run("1 + 1") == 2  # noqa: PLR2004 - arithmetic
