"""What a slow call costs while it is under way: 10,000 runs, each waiting for a tool that takes 30 s."""

import time
from pathlib import Path
from typing import Any

from bench.parked import kill, serve
from bench.report import project, rss_kb
from overwinter.faces.cli.door import served_socket
from overwinter.faces.client import Client

PROGRAM = "import work\nawait work.slow(seconds=seconds)"
TOOLS = '''"""One slow function."""

import asyncio

from overwinter import read


@read(timeout_s=600)
async def slow(*, seconds: float) -> str:
    """Take long."""
    await asyncio.sleep(seconds)
    return "done"
'''


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    count, seconds = (1_000, 10.0) if is_small else (10_000, 30.0)
    with project(TOOLS) as place:
        server = serve(place)
        try:
            return calls(place, server.pid, count, seconds)
        finally:
            kill(server)


def calls(place: Path, pid: int, count: int, seconds: float) -> dict[str, Any]:
    """Start them, look at the server while all are in flight, and wait until all have ended."""
    client = Client(served_socket(place / ".overwinter"))
    client.get("runs", client.post("runs", source=PROGRAM, inputs={"seconds": 0.0})["id"], "result", wait_s=10)
    before = rss_kb(pid)
    began = time.monotonic()
    for _ in range(count):
        # They all end together, well after the last one has begun.
        left = max(seconds, seconds + count / 400 - (time.monotonic() - began))
        client.post("runs", source=PROGRAM, inputs={"seconds": left})
    most, held = 0, 0
    while most < count:
        health = client.get("health")
        most = max(most, health["calls_in_flight"])
        if time.monotonic() - began > seconds + count / 100:
            break
        time.sleep(0.1)
    time.sleep(1.0)
    health = client.get("health")
    held, after = health["interpreters_busy"], rss_kb(pid)
    while client.get("runs", limit=1)["counts"].get("live"):
        time.sleep(0.5)
    finished = client.get("runs", limit=1)["counts"]["finished"]
    return {
        "n": most,
        "workers_held": held,
        "rss_kb_each": round((after - before) / count, 2),
        "finished": finished,
        "seconds": round(time.monotonic() - began, 1),
    }
