"""How fast revoking an agent stops everything, and whether any effect of it starts afterwards, by the service's own log.

100 runs of one agent are at it: some compute without end, some call a service again and again, some wait for a slow answer,
some sleep. The agent is revoked, what reaches the service after the acknowledgement is counted by the service itself, and the
agent is restored with its runs; again and again. Requests that were on the wire are in the list that the revocation gives;
they are counted apart. Then 10,000 sleeping runs are revoked, and the instant passes at which all of them would have woken.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import uvloop

from bench.report import percentile, project
from overwinter.app import App
from overwinter.store import Page

ACTIVE = 100
COMPUTING = 2
"""Computing programs keep an interpreter each; two of four are left for the others."""
PROGRAMS = {
    "computes": "await work.hit(slow=False)\nwhile True:\n    pass",
    "calls": "while True:\n    await work.hit(slow=False)",
    "waits": "await work.hit(slow=True)",
    "sleeps": "import asyncio\nawait asyncio.sleep(86400)",
}
SERVICE = """
import asyncio, json, sys, time
seen = []
async def serve(reader, writer):
    while line := await reader.readline():
        if line == b"log\\n":
            writer.write(json.dumps(seen).encode() + b"\\n")
            seen.clear()
        else:
            seen.append([time.monotonic(), line.decode().strip()])
            if b"slow" not in line:
                writer.write(b"1\\n")
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
TOOLS = '''"""Calls the service of the bench."""

import asyncio
import os

from overwinter import Key, idempotent


@idempotent
async def hit(*, slow: bool, key: Key) -> int:
    """Have the service note the key, and answer; slow: never."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["BENCH_PORT"]))
    try:
        writer.write(f"{key} {'slow' if slow else ''}\\n".encode())
        return int(await reader.readline())
    finally:
        writer.close()
'''


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    rounds, sleeping = (30, 500) if is_small else (1_000, 10_000)
    with (
        service() as port,
        project(TOOLS, "[worker]\ninterpreters = 4\n[limits]\nturn_cpu_s = 3600\nrun_cpu_s = 86000\n") as place,
    ):
        os.environ["BENCH_PORT"] = str(port)
        return anyio.run(
            revocations, place, port, rounds, sleeping, backend_options={"loop_factory": uvloop.new_event_loop}
        )


async def revocations(place: Path, port: int, rounds: int, sleeping: int) -> dict[str, Any]:
    """Revoke and restore one agent; then revoke one whose runs all sleep."""
    times: list[float] = []
    fences: list[float] = []
    late = on_wire = killed = cut = 0
    async with App.open(place / ".overwinter") as app, await anyio.connect_tcp("127.0.0.1", port) as log:
        await started(app)
        for _ in range(rounds):
            await at_it(app)
            done = await app.governance.revoke("default", by="bench")
            acknowledged = time.monotonic()
            times.append(done.stopped_us / 1e3)
            fences.append(done.fenced_us / 1e3)
            await anyio.sleep(0.02)
            listed = {call.key for call in done.on_the_wire}
            after = [key for at, key in await logged(log) if at > acknowledged]
            on_wire += sum(key in listed for key in after)
            late += sum(key not in listed for key in after)
            killed, cut = killed + done.turns, cut + done.calls
            await app.governance.restore("default", by="bench", has_runs=True)
        await app.governance.revoke("default", by="bench")
        await app.governance.restore("default", by="bench")
        asleep_ms, woken = await sleepers(app, sleeping)
    return {
        "active": ACTIVE,
        "n": rounds,
        "effects_after_ack": late,
        "of_those_on_the_wire_seen_after_ack": on_wire,
        "turns_killed": killed,
        "calls_cut": cut,
        "fence_p50_ms": round(percentile(fences, 0.5), 2),
        "fence_p99_ms": round(percentile(fences, 0.99), 2),
        "stop_p50_ms": round(percentile(times, 0.5), 2),
        "stop_p99_ms": round(percentile(times, 0.99), 2),
        "stop_max_ms": round(max(times), 2),
        "sleeping": sleeping,
        "sleeping_ms": round(asleep_ms, 2),
        "sleeping_woken": woken,
    }


async def started(app: App) -> None:
    """Start the active runs."""
    rest = (ACTIVE - COMPUTING) // 3
    counts = {"computes": COMPUTING, "calls": rest, "waits": rest, "sleeps": ACTIVE - COMPUTING - 2 * rest}
    for name, count in counts.items():
        for _ in range(count):
            await app.start(PROGRAMS[name], name=name)


async def at_it(app: App) -> None:
    """Return when programs compute and calls are in flight again."""
    before = app.pulse().turns
    with anyio.fail_after(30):
        while not (app.pulse().turns > before + 20 and app.pulse().busy >= COMPUTING and app.pulse().in_flight >= 20):
            await anyio.sleep(0.002)


async def logged(log: Any) -> list[tuple[float, str]]:
    """Return what has reached the service since the last look: instant and key."""
    await log.send(b"log\n")
    raw = b""
    while not raw.endswith(b"\n"):
        raw += await log.receive(1 << 20)
    return [(float(at), str(word).split(" ")[0]) for at, word in cast("list[list[Any]]", json.loads(raw))]


async def sleepers(app: App, count: int) -> tuple[float, int]:
    """Revoke an agent whose runs all sleep; return how long that took, and how many woke when their time had come."""
    due = time.time() + 10 + count / 200
    for _ in range(count):
        await app.start(
            "import asyncio, time\nawait asyncio.sleep(due - time.time())", name="sleeper", inputs={"due": due}
        )
    while app.pulse().queued or app.pulse().busy:
        await anyio.sleep(0.1)
    assert time.time() < due, "the machine is too slow: they woke before they could be revoked"
    began = time.perf_counter()
    done = await app.governance.revoke("default", by="bench")
    took_ms = 1e3 * (time.perf_counter() - began)
    assert done.runs >= count
    await anyio.sleep(max(0.0, due - time.time()) + 3)
    woken, before = 0, None
    while page := await app.runs(Page(name="sleeper", before=before, limit=1_000)):
        woken += sum(run.seq > 1 for run in page)
        before = page[-1].run_id
    return took_ms, woken


@contextmanager
def service() -> Generator[int]:
    """Run the service in a process of its own; yield its port."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(5)
