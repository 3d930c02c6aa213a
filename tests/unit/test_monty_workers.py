"""Workers die, are killed and are replaced; the pool and the next turn do not notice."""

import gc
import os
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from jails import jail_here
from overwinter.adapters.monty import JailSettings, MontyInterpreter, open_interpreter
from overwinter.adapters.monty.launcher import monty_binary, open_launcher
from overwinter.adapters.monty.workers import Desk, open_workers
from overwinter.errors import JailUnavailable, WorkerCrashed
from overwinter.events import Returned
from overwinter.interpreter import Blocked, Finished, Limits, Program

PATIENT = Limits(turn_cpu_s=30, run_cpu_s=30)


@pytest.fixture
async def interpreter() -> AsyncIterator[MontyInterpreter]:
    async with open_interpreter(limits=PATIENT, workers=1, jail=jail_here()) as opened:
        yield opened


def program(source: str) -> Program:
    return Program(run_id="run-1", source=source, inputs={}, modules={"svc": ("f",)})


def workers_alive() -> set[int]:
    """Return the processes of this process's interpreter workers."""
    return {
        int(child)
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
        if is_alive(int(child))
    }


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def user_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])


async def until_busy(pid: int) -> None:
    """Wait until a worker computes."""
    with anyio.fail_after(20):
        while user_ticks(pid) < 5:  # noqa: ASYNC110 - another process tells no event
            await anyio.sleep(0.005)


async def until_dead(pid: int) -> None:
    """Wait until the whole process has ended, its threads and files with it."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with anyio.fail_after(20):
            await anyio.wait_readable(pidfd)
    finally:
        os.close(pidfd)


def only(pids: set[int]) -> int:
    (pid,) = pids
    return pid


@pytest.mark.claim("D6.worker.crash")
async def test_a_worker_killed_in_a_turn_is_a_crash_and_the_next_turn_is_fine(interpreter: MontyInterpreter) -> None:
    source = "x = 40\ny = await svc.f()\nwhile y < 0: pass\nx + y"
    first = await interpreter.start(program(source), now_us=0)
    assert isinstance(first, Blocked)
    (ticket,) = first.pending
    pid = only(workers_alive())

    async def kill() -> None:
        await until_busy(pid)
        os.kill(pid, signal.SIGKILL)

    async def crash() -> None:
        with pytest.raises(WorkerCrashed, match="died"):
            await interpreter.resume(program(source), first.snapshot, {ticket: Returned(value=-1)}, now_us=0)

    async with anyio.create_task_group() as group:
        group.start_soon(kill)
        group.start_soon(crash)
    again = await interpreter.resume(program(source), first.snapshot, {ticket: Returned(value=2)}, now_us=0)
    assert again == Finished(value=42, output="")


@pytest.mark.claim("G5.cancel.kills")
async def test_cancelling_a_turn_kills_its_worker_and_leaves_the_pool_usable(interpreter: MontyInterpreter) -> None:
    for _ in range(3):
        pid = only(workers_alive())
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: interpreter.start(program("while True: pass"), now_us=0))
            await until_busy(pid)
            group.cancel_scope.cancel()
        await until_dead(pid)
        assert await interpreter.start(program("1 + 1"), now_us=0) == Finished(value=2, output="")
        assert interpreter.busy == 0


async def test_turns_cancelled_at_any_moment_never_spoil_the_next(interpreter: MontyInterpreter) -> None:
    for turns in range(40):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: interpreter.start(program("sum(range(1_000))"), now_us=0))
                for _ in range(turns % 8):
                    await anyio.lowlevel.checkpoint()
                if turns % 3 == 0:
                    await anyio.sleep(0.0002 * (turns % 10))
                scope.cancel()
        assert await interpreter.start(program("1 + 1"), now_us=0) == Finished(value=2, output="")


async def test_a_turn_cancelled_while_it_waits_for_a_worker_costs_nobody_anything(
    interpreter: MontyInterpreter,
) -> None:
    pid = only(workers_alive())
    results: list[object] = []

    async def work() -> None:
        results.append(await interpreter.start(program("sum(range(2_000_000)) * 0 + 5"), now_us=0))

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(0):
            await interpreter.start(program("1"), now_us=0)
    assert results == [Finished(value=5, output="")]
    assert is_alive(pid)


async def test_more_turns_than_workers_wait_for_one() -> None:
    async with open_interpreter(limits=PATIENT, workers=2, jail=jail_here()) as interpreter:
        values: list[object] = []

        async def work(n: int) -> None:
            outcome = await interpreter.start(program(f"{n} * 2"), now_us=0)
            assert isinstance(outcome, Finished)
            values.append(outcome.value)

        async with anyio.create_task_group() as group:
            for n in range(20):
                group.start_soon(work, n)
        assert sorted(map(str, values), key=int) == [str(2 * n) for n in range(20)]
        assert len(workers_alive()) <= 2 + 2, "two of the client, and two of the lane when it opened"


async def test_an_idle_worker_that_dies_is_replaced_in_silence(interpreter: MontyInterpreter) -> None:
    pid = only(workers_alive())
    os.kill(pid, signal.SIGKILL)
    await until_dead(pid)
    assert await interpreter.start(program("1 + 1"), now_us=0) == Finished(value=2, output="")


async def test_a_stuck_worker_overruns_its_deadline() -> None:
    with open_launcher(jail_here()) as launcher:
        async with open_workers(launcher, jail_here(), 1, 0.3) as workers:
            with pytest.raises(WorkerCrashed) as caught:
                await workers.run(loop_for_ever)
            assert caught.value.has_timed_out
            assert await workers.run(add) == 2


def loop_for_ever(desk: Desk) -> object:
    with desk.pool.checkout() as session:
        desk.seen(session)
        return session.feed_run("while True: pass")


def add(desk: Desk) -> object:
    with desk.pool.checkout() as session:
        desk.seen(session)
        return session.feed_run("1 + 1")


async def test_nothing_is_left_when_the_block_is() -> None:
    threads = threading.active_count()
    async with open_interpreter(limits=PATIENT, workers=2, jail=jail_here()) as interpreter:
        pids = workers_alive()
        place = Path(interpreter.launcher).parent
        assert len(pids) == 2
    for pid in pids:
        await until_dead(pid)
    assert not [thread for thread in threading.enumerate() if thread.name == "overwinter-interpreter"]
    assert threading.active_count() <= threads + 2  # the event loop's own, for joining and hashing
    assert jail_here().is_off or not place.exists()


# --- Starting --------------------------------------------------------------------------------------------------------


async def test_a_worker_that_cannot_be_started_is_said_to_each_who_asks(tmp_path: Path) -> None:
    with pytest.raises(JailUnavailable, match="no interpreter worker can be started"):
        async with open_workers(str(tmp_path / "absent"), JailSettings(), 2, 5.0):
            pass


async def test_a_worker_that_is_not_jailed_is_killed_before_it_runs_anything() -> None:
    with pytest.raises(JailUnavailable, match="was not jailed and was killed"):
        async with open_workers(str(monty_binary()), JailSettings(), 1, 5.0):
            pass
    assert not workers_alive()


async def test_workers_that_start_while_something_else_is_done_are_killed_just_so() -> None:
    async with open_workers(str(monty_binary()), JailSettings(), 2, 5.0, is_proven=False) as workers:
        for _ in range(2):
            with pytest.raises(JailUnavailable, match="was not jailed and was killed"):
                await workers.proven()
    assert not workers_alive()


async def test_what_workers_failed_of_is_no_noise_if_nobody_waited_for_them(tmp_path: Path, caplog) -> None:
    async with open_workers(str(tmp_path / "absent"), JailSettings(), 1, 5.0, is_proven=False) as workers:
        with pytest.raises(JailUnavailable):
            await workers.run(lambda _: None)  # after the proof, which failed too
        del workers
    gc.collect()
    assert not caplog.records


async def test_a_jail_that_refuses_says_which_layer_and_what_to_do(tmp_path: Path) -> None:
    launcher = tmp_path / "refuses"
    launcher.write_text("#!/bin/sh\nexit 78\n")
    launcher.chmod(0o700)
    with pytest.raises(JailUnavailable, match="allow_missing"):
        async with open_workers(str(launcher), JailSettings(), 1, 5.0):
            pass


async def test_without_a_jail_workers_start_bare() -> None:
    async with open_interpreter(limits=PATIENT, workers=1, jail=JailSettings(is_off=True)) as interpreter:
        assert await interpreter.start(program("1 + 1"), now_us=0) == Finished(value=2, output="")
        assert interpreter.launcher == str(monty_binary())


def test_what_a_killed_host_left_behind_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    jail = JailSettings()
    abandoned, foreign = tmp_path / "overwinter-jail-abandoned", tmp_path / "something-else"
    with open_launcher(jail) as held:
        for place in (abandoned, foreign, Path(held).parent):
            place.mkdir(exist_ok=True)
            (place / "worker").touch()
            os.utime(place, (0, 0))
        with open_launcher(jail) as launcher:
            assert Path(launcher).exists()
            assert Path(held).exists()
            assert foreign.exists()
            assert not abandoned.exists()
    assert [place.name for place in tmp_path.iterdir()] == ["something-else"]


@pytest.mark.parametrize("mode", [0o755, 0o700])
async def test_the_interpreter_may_lie_under_a_closed_home(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    binary = home / "monty"
    shutil.copyfile(monty_binary(), binary)
    binary.chmod(mode)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    with open_launcher(jail_here(), binary) as launcher:
        async with open_workers(launcher, jail_here(), 1, 5.0) as workers:
            assert await workers.run(add) == 2
