"""The control process is killed between the revoking commit and each step that follows it: the fence still holds."""

import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager

import pytest

from overwinter.errors import Revoked, ServerUnreachable
from overwinter.faces.cli.door import is_served, served_socket
from overwinter.faces.client import Client
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
KINDS = {"computes": "begun", "calls": "again", "waits": "slow", "writes": "slow"}
"""What the service sees first of a program."""
SLEEP_S = 8
"""Past the restart, which takes some seconds on a busy machine."""
STEPS = ("commit", "killing", "cutting", "parking", "stopping")
# `overwinter serve`, but once the file `armed` is there the process dies of SIGKILL at one step.
DYING = """
import os, pathlib, runpy, signal, sys
from overwinter.effects import Effects
from overwinter.worker import Worker

def die_if_armed():
    if pathlib.Path("armed").exists():
        os.kill(os.getpid(), signal.SIGKILL)

def dying(owner, name, is_after=False):
    method = getattr(owner, name)
    async def then(*words, **options):
        if not is_after:
            die_if_armed()
        found = await method(*words, **options)
        die_if_armed()
        return found
    setattr(owner, name, then)

match sys.argv.pop(1):
    case "commit":
        dying(Worker, "revoked")
    case "killing":
        dying(Effects, "cut")
    case "cutting":
        dying(Effects, "park")
    case "parking":
        dying(Effects, "park", is_after=True)
    case "stopping":
        dying(Worker, "revoked", is_after=True)
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


@contextmanager
def asking(shell: Shell) -> Generator[Client]:
    with closing(Client(served_socket(shell.place / ".overwinter"))) as client:
        yield client


def begun(shell: Shell, client: Client) -> dict[str, str]:
    """Start one run of each program, and return when each is at it."""
    runs: dict[str, str] = {}
    for name, program in PROGRAMS.items():
        runs[name] = client.post("runs", source=program.format(sleep_s=SLEEP_S), name=name)["id"]
    at_it = {f"{word} {runs[name]}:0" for name, word in KINDS.items()}
    until(lambda: at_it <= set(seen(shell)))
    until(lambda: client.get("runs", runs["sleeps"])["calls"])
    return runs


def killed_while_revoking(shell: Shell, client: Client, server: subprocess.Popen[str]) -> None:
    (shell.place / "armed").touch()
    with pytest.raises(ServerUnreachable):
        client.post("revoke", subject="default", by="lead")
    assert server.wait(20) == -signal.SIGKILL
    (shell.place / "armed").unlink()


def fenced(client: Client, runs: dict[str, str], number: int) -> None:
    """Hold a home that was opened again against what the revocation was to stop."""
    (agent,) = client.get("agents")["agents"]
    assert (agent["state"], agent["epoch"]) == ("revoked", 2 + 2 * number)
    assert all(client.get("runs", run)["is_revoked"] for run in runs.values())
    unknown = {each["question"] for each in client.get("questions")["questions"]}
    assert f"{runs['writes']}:0" in unknown, "the start-up has parked what may have left"
    with pytest.raises(Revoked):
        client.post("runs", source="1", name="more")
    again = client.post("revoke", subject="default", by="lead")
    assert (again["runs"], again["turns"], again["calls"]) == ((number + 1) * len(PROGRAMS), 0, 0)


@pytest.mark.claim("G5.control_killed")
@pytest.mark.timeout(240)
def test_the_fence_holds_though_the_control_process_is_killed_at_any_step_after_the_commit(shell: Shell, port: int):
    """The server that looks whether the fence held is the one that is killed at the next step."""
    (shell.place / "work_tools.py").write_text(TOOLS.format(port=port))
    (shell.place / "overwinter.toml").write_text(
        '[agents.default]\nowner = "owner@example.com"\ntools = ["*"]\n[services.work]\npython = "work_tools"\n'
        "[limits]\nturn_cpu_s = 600\nrun_cpu_s = 600\n"
    )
    stopped: list[tuple[str, dict[str, str], list[str]]] = []
    server, slept_since = served_until(shell, STEPS[0]), 0.0
    for number, step in enumerate(STEPS):
        with asking(shell) as client:
            if stopped:
                client.post("restore", agent="default", by="lead", has_runs=False)
            runs = begun(shell, client)
            slept_since = time.monotonic()
            killed_while_revoking(shell, client, server)
        before = seen(shell)
        assert f"woken {runs['sleeps']}:1" not in before, "the machine is too slow for this test"
        stopped.append((step, runs, before))
        server = served_until(shell, STEPS[(number + 1) % len(STEPS)])
        with asking(shell) as client:
            fenced(client, runs, number)
        assert seen(shell) == before, f"killed at {step}: an effect started after the revocation"
    until(lambda: time.monotonic() > slept_since + SLEEP_S + 2)
    for step, runs, before in stopped:
        of_them = [line for line in seen(shell) if line.split()[1].partition(":")[0] in runs.values()]
        known = [line for line in before if line.split()[1].partition(":")[0] in runs.values()]
        assert of_them == known, f"killed at {step}: an effect started after the revocation"
