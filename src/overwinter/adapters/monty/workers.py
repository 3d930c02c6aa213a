"""Interpreter workers: one thread and one jailed process each.

A turn is one hop from the event loop to the thread and one back. The thread lives as long as the pool, because the kernel
kills a worker when the *thread* that started it ends.
"""

import asyncio
import os
import queue
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio
import pydantic_monty as monty

from overwinter.adapters.monty import jail as jail_program
from overwinter.errors import JailUnavailable, OverwinterError, WorkerCrashed

__all__ = ["Desk", "JailSettings", "Workers", "open_launcher", "open_workers", "posture_faults"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class JailSettings:
    """How workers are jailed. `doctor` shows every gap that is accepted here."""

    is_off: bool = False
    """Start workers without any jail: only where the programs are trusted."""
    allow_missing: frozenset[str] = frozenset()
    """Layers (`namespaces`, `landlock`, `seccomp`) that may be missing; namespaces and seccomp not both."""


class Desk:
    """What a job works with, in the worker's thread: checkouts of its one worker."""

    def __init__(self, pool: monty.Monty, jail: JailSettings) -> None:
        self.pool = pool
        self.pid: int | None = None
        """The worker's process, known from the first checkout on."""
        self._jail = jail
        self._inspected: int | None = None

    def seen(self, session: monty.MontySession) -> None:
        """Note the worker of a new checkout; inspect its jail from outside if it is a new process.

        Raises:
            JailUnavailable: it runs, and not in the jail it should be in. It was killed.
        """
        self.pid = session.worker_pid
        if self.pid is None or self.pid == self._inspected or self._jail.is_off:
            return
        faults = posture_faults(self.pid, self._jail)
        if faults:
            os.kill(self.pid, signal.SIGKILL)
            raise JailUnavailable(f"an interpreter worker was not jailed and was killed: {', '.join(faults)}")
        self._inspected = self.pid


@dataclass(slots=True)
class _Job:
    act: Callable[[Desk], object]
    future: asyncio.Future[object]
    loop: asyncio.AbstractEventLoop


class _Worker:
    """One thread with its pool of one process."""

    def __init__(self, binary: str, jail: JailSettings, request_timeout_s: float) -> None:
        self._binary, self._jail, self._request_timeout_s = binary, jail, request_timeout_s
        self.desk: Desk | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="overwinter-interpreter", daemon=True)
        self.thread.start()

    async def run(self, act: Callable[[Desk], T]) -> T:
        """Have the thread do something; if the caller is cancelled, kill the process and wait for the thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(act, future, loop))  # pyright: ignore[reportArgumentType] - the job's result is the future's
        try:
            return await future
        except asyncio.CancelledError:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the process, if there is one; the next checkout starts another."""
        pid = self.desk.pid if self.desk is not None else None
        if pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        pool = monty.Monty(
            binary_path=self._binary, min_processes=1, max_processes=1, request_timeout=self._request_timeout_s
        )
        with pool:
            self.desk = Desk(pool, self._jail)
            while (job := self._jobs.get()) is not None:
                self._do(job, self.desk)

    @staticmethod
    def _do(job: _Job, desk: Desk) -> None:
        result: object = None
        error: BaseException | None = None
        try:
            result = job.act(desk)
        except monty.MontyCrashedError as crash:
            error = _crash(crash)
        except Exception as fault:  # noqa: BLE001 - it goes to whoever asked
            error = fault
        with suppress(RuntimeError):  # the loop was closed meanwhile
            job.loop.call_soon_threadsafe(_tell, job.future, result, error)


def _tell(future: asyncio.Future[object], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _crash(crash: monty.MontyCrashedError) -> OverwinterError:
    if crash.exit_status == jail_program.EXIT_REFUSED:
        return JailUnavailable(
            "the interpreter's jail cannot be had on this machine: `overwinter doctor` says which layer is missing; accept "
            "it by name in overwinter.toml ([jail] allow_missing), or run programs you trust without it ([jail] off = true)"
        )
    what = "overran its deadline and was killed" if crash.timed_out else f"died ({crash})"
    return WorkerCrashed(f"an interpreter worker {what}", has_timed_out=crash.timed_out)


class Workers:
    """A fixed set of workers; a job takes a free one, or waits for it."""

    def __init__(self, workers: list[_Worker]) -> None:
        self._workers = workers
        self._idle = list(workers)
        self._free = anyio.Semaphore(len(workers))

    @property
    def busy(self) -> int:
        """Return how many are at work."""
        return len(self._workers) - len(self._idle)

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
async def open_workers(
    binary: str, jail: JailSettings, count: int, request_timeout_s: float
) -> AsyncGenerator[Workers]:
    """Start workers and prove that they answer; end them with the block.

    Raises:
        JailUnavailable: the jail cannot be had, or a worker was found outside it.
    """
    workers = [_Worker(binary, jail, request_timeout_s) for _ in range(count)]
    try:
        for worker in workers:
            await worker.run(_prove)
        yield Workers(workers)
    finally:
        for worker in workers:
            worker.close()
        with anyio.CancelScope(shield=True):
            for worker in workers:
                await anyio.to_thread.run_sync(worker.thread.join, 5.0)


def _prove(desk: Desk) -> None:
    with desk.pool.checkout() as session:
        assert session.feed_run("1 + 1") == 2  # noqa: PLR2004 - arithmetic
        desk.seen(session)


@asynccontextmanager
async def open_launcher(jail: JailSettings) -> AsyncGenerator[str]:
    """Yield the path of the program that starts a jailed worker; it is made for this process and goes with the block.

    Raises:
        JailUnavailable: the interpreter's program is not installed.
    """
    binary = monty_binary()
    if jail.is_off:
        yield str(binary)
        return
    words = [sys.executable, "-IS", jail_program.__file__, "--parent", str(os.getpid())]
    for layer in sorted(jail.allow_missing):
        words += ["--allow-missing", layer]
    async with AsyncExitStack() as stack:
        place = Path(tempfile.mkdtemp(prefix="overwinter-"))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        launcher = place / "worker"
        launcher.write_text(f'#!/bin/sh\nexec {shlex.join([*words, "--", str(binary)])} "$@"\n', encoding="utf-8")
        launcher.chmod(0o700)
        yield str(launcher)


def monty_binary() -> Path:
    """Return where the interpreter's program is.

    Raises:
        JailUnavailable: it is not installed.
    """
    found = Path(sys.executable).parent / "monty"
    if found.exists():
        return found.resolve()
    on_path = shutil.which("monty")
    if on_path is None:
        raise JailUnavailable("the program `monty` is not installed beside python: pip install pydantic-monty==1.4.0")
    return Path(on_path).resolve()


def posture_faults(pid: int, jail: JailSettings) -> list[str]:
    """Return what is wrong with a worker's jail as the host sees it; empty if it is as it should be."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    faults: list[str] = []
    if os.geteuid() == 0 and "0" in fields["Uid"].split():
        faults.append("it is root")
    if int(fields["CapEff"], 16):
        faults.append("it has capabilities")
    if fields["NoNewPrivs"].strip() != "1":
        faults.append("it can gain privileges")
    if fields["Seccomp"].strip() != "2" and "seccomp" not in jail.allow_missing:
        faults.append("it has no system call filter")
    with suppress(PermissionError):  # a worker in another user namespace hides its links from an ordinary user
        is_shared = Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
        if is_shared and "namespaces" not in jail.allow_missing:
            faults.append("it shares the network")
    with suppress(PermissionError):
        extra = {each.name for each in Path(f"/proc/{pid}/fd").iterdir()} - {"0", "1", "2"}
        if extra:
            faults.append(f"it holds files {sorted(extra)}")
    return faults
