"""A worker never outlives its host, and a host that used workers ends cleanly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
HOST = """
import os, sys
sys.path.insert(0, {tests!r})
import anyio
from jails import jail_here
from overwinter.adapters.monty import open_interpreter
from overwinter.interpreter import Limits, Program

LIMITS = Limits(turn_cpu_s=600, run_cpu_s=600)

async def main():
    async with open_interpreter(limits=LIMITS, workers=2, jail=jail_here()) as interpreter:
        children = [open(f"/proc/self/task/{{task}}/children").read().split() for task in os.listdir("/proc/self/task")]
        print(*sum(children, []), flush=True)
        source = sys.argv[1]
        program = Program(run_id="run-1", source=source, inputs={{}}, modules={{}})
        print(await interpreter.start(program, now_us=0), flush=True)

anyio.run(main)
"""


def host(source: str, tmp: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOST.format(tests=str(TESTS)), source]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp)}
    )


def computing(pid: int) -> int:
    """Return a process's user time in ticks; -1 if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if state == "Z" else int(fields[10])


def is_true_within(seconds: float, condition: object) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.claim("D1.host.no_orphans")
def test_no_worker_outlives_a_killed_host(tmp_path: Path) -> None:
    with host("while True: pass", tmp_path) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        try:
            assert is_true_within(20, lambda: max(computing(pid) for pid in pids) > 5)
            os.kill(process.pid, signal.SIGKILL)
            assert is_true_within(20, lambda: all(computing(pid) < 0 for pid in pids))
        finally:
            for pid in (process.pid, *pids):
                if computing(pid) >= 0:
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.claim("U3.exit.clean")
def test_short_hosts_end_cleanly(tmp_path: Path) -> None:
    for _ in range(5):
        processes = [host("'done'", tmp_path) for _ in range(4)]
        for process in processes:
            output, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert "'done'" in output
            assert errors == ""
