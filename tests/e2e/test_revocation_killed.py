"""The control process is killed between the revoking commit and each step that follows it: the fence still holds."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from overwinter.faces.cli.door import is_served
from shells import Shell, until

SERVICE = """
import asyncio, sys
seen = open(sys.argv[1], "a", buffering=1)
async def serve(reader, writer):
    try:
        while line := await reader.readline():
            seen.write(line.decode())
            if b"slow" not in line:
                writer.write(b"1\\n")
    except ConnectionError:
        pass
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
TOOLS = '''"""Calls the service."""
import asyncio
from overwinter import Key, idempotent, write

async def ask(text: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", {port})
    try:
        writer.write(text.encode() + b"\\n")
        return int(await reader.readline())
    finally:
        writer.close()

@idempotent
async def hit(*, kind: str, key: Key) -> int:
    """Have the service note it."""
    return await ask(f"{{kind}} {{key}}")

@write
async def pay(*, kind: str, key: Key) -> int:
    """Have the service note it."""
    return await ask(f"{{kind}} {{key}}")
'''
PROGRAMS = {
    "computes": "await work.hit(kind='begun')\nwhile True:\n    pass",
    "calls": "while True:\n    await work.hit(kind='again')",
    "waits": "await work.hit(kind='slow')",
    "writes": "await work.pay(kind='slow')",
    "sleeps": "import asyncio\nawait asyncio.sleep({sleep_s})\nawait work.pay(kind='woken')",
}
SLEEP_S = 8
"""Past the restart, which takes some seconds on a busy machine."""
# `overwinter serve`, but the process dies of SIGKILL at one step.
DYING = """
import os, runpy, signal, sys
from overwinter.effects import Effects
from overwinter.worker import Worker

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def dying_after(owner, name):
    method = getattr(owner, name)
    async def then_dying(*words, **options):
        await method(*words, **options)
        die()
    setattr(owner, name, then_dying)

match sys.argv.pop(1):
    case "commit":
        Worker.revoked = die
    case "killing":
        Effects.cut = die
    case "cutting":
        Effects.park = die
    case "parking":
        dying_after(Effects, "park")
    case "stopping":
        dying_after(Worker, "revoked")
runpy.run_module("overwinter", run_name="__main__")
"""


@pytest.fixture
def port(shell: Shell) -> Iterator[int]:
    """Run the service in a process of its own; it notes each request in the file `seen`."""
    command = [sys.executable, "-c", SERVICE, str(shell.place / "seen")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        assert service.stdin is not None
        yield int(service.stdout.readline())
        service.stdin.close()


def seen(shell: Shell) -> list[str]:
    return (shell.place / "seen").read_text().splitlines()


def served_until(shell: Shell, step: str) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", DYING, step, "serve"],
        cwd=shell.place, env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    shell.servers.append(server)
    until(lambda: is_served(shell.place / ".overwinter") or server.poll() is not None)
    assert server.poll() is None, server.communicate()
    return server


@pytest.mark.claim("G5.control_killed")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("step", ["commit", "killing", "cutting", "parking", "stopping"])
def test_the_fence_holds_though_the_control_process_is_killed_after_the_commit(shell: Shell, port: int, step: str):
    (shell.place / "work_tools.py").write_text(TOOLS.format(port=port))
    (shell.place / "overwinter.toml").write_text(
        '[agents.default]\nowner = "owner@example.com"\ntools = ["*"]\n[services.work]\npython = "work_tools"\n'
        "[limits]\nturn_cpu_s = 600\nrun_cpu_s = 600\n"
    )
    server = served_until(shell, step)
    runs: dict[str, str] = {}
    for name, program in PROGRAMS.items():
        (shell.place / f"{name}.py").write_text(program.format(sleep_s=SLEEP_S))
        started = shell("run", f"{name}.py", "-d")
        assert started.returncode == 0, started.stderr
        runs[name] = started.stdout.strip()
    slept_since = time.monotonic()
    until(lambda: {"begun", "again", "slow"} <= {line.split()[0] for line in seen(shell)})
    until(lambda: sum(line.startswith("slow") for line in seen(shell)) == 2)
    shell("revoke", "default", timeout=60)
    assert server.wait(20) == -signal.SIGKILL
    assert not any(line.startswith("woken") for line in seen(shell)), "the machine is too slow for this test"
    before = seen(shell)

    shell.serve()
    until(lambda: time.monotonic() > slept_since + SLEEP_S + 2)
    assert [line for line in seen(shell)[len(before) :] if line] == [], "an effect started after the revocation"
    (agent,) = json.loads(shell("agents", "--json").stdout)["agents"]
    assert (agent["state"], agent["epoch"]) == ("revoked", 2)
    shown = {name: json.loads(shell("show", run, "--json").stdout) for name, run in runs.items()}
    assert {name: each["is_revoked"] for name, each in shown.items()} == dict.fromkeys(PROGRAMS, True)
    (unknown,) = json.loads(shell("inbox", "--json").stdout)["questions"]  # the start-up has parked what may have left
    assert unknown["question"] == f"{runs['writes']}:0"
    assert shell("run", "sleeps.py", "-d").returncode != 0, "a revoked agent starts nothing"
    again = json.loads(shell("revoke", "default", "--json").stdout)
    assert (again["runs"], again["turns"], again["calls"]) == (len(PROGRAMS), 0, 0)
    assert (shell.place / "seen").stat().st_size == sum(len(line) + 1 for line in before)
