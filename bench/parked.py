"""What a sleeping run costs: a real server, empty and then with 10,000 runs that wait for a message.

For 100,000 the home of the 10,000 is multiplied by copying rows while nobody holds it (opening a store reads none of
them); then it is opened, and runs of the original 10,000 are woken.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import apsw

from bench.report import disk_kb, files, percentile, project, rss_kb, threads
from bench.wake import PROGRAM, TOOLS
from overwinter.app import App
from overwinter.faces.cli.door import is_served, served_socket
from overwinter.faces.client import Client
from overwinter.ids import Ids, to_bytes

WARM = 100
"""Runs before the first measurement, which end at once."""


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    count, many = (1_000, 10_000) if is_small else (10_000, 100_000)
    with project(TOOLS) as place:
        home = place / ".overwinter"
        server = serve(place)
        client = Client(served_socket(home))
        client.post("runs", source=PROGRAM)  # what a first run loads is not the price of a parked one
        for number in range(WARM):  # nor are workers that start when many turns come
            client.post("runs", source=str(number))
        settle(client)
        empty = held(server.pid)
        for _ in range(count):
            client.post("runs", source=PROGRAM)
        settle(client)
        full = held(server.pid)
        kill(server)
        server = serve(place)
        settle(Client(served_socket(home)))
        fresh = held(server.pid)
        listed = Client(served_socket(home)).get("runs", limit=300)[
            "runs"
        ]  # copies wear other ids: only these can wake
        kill(server)
        with apsw.Connection(str(home / "store.db")) as database:
            list(database.execute("pragma wal_checkpoint(truncate)"))
        disk = disk_kb(home)
        runs = [run["id"] for run in listed]
        few_ms = anyio.run(wakes, home, runs)
        multiply(home / "store.db", many // count)
        open_ms = opening(home / "store.db")
        many_ms = anyio.run(wakes, home, runs)
    return {
        "n": count,
        "rss_extra_mb": round((full[0] - empty[0]) / 1_024, 1),
        "rss_restarted_extra_mb": round((fresh[0] - empty[0]) / 1_024, 1),
        "threads_extra": full[1] - empty[1],
        "fds_extra": full[2] - empty[2],
        "disk_kb_each": round(disk / count, 2),
        "many": many,
        "open_ms": round(open_ms, 1),
        "wake_p50_ms": round(many_ms, 3),
        "wake_p50_ms_few": round(few_ms, 3),
        "wake_ratio": round(many_ms / few_ms, 2),
    }


def serve(place: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a real server on the project's home; return when it answers."""
    words = [sys.executable, "-m", "overwinter", "serve"]
    server = subprocess.Popen(words, cwd=place, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    while not is_served(place / ".overwinter"):
        assert server.poll() is None, "the server did not start"
        time.sleep(0.01)
    return server


def kill(server: subprocess.Popen[bytes]) -> None:
    """End a server that we started."""
    server.send_signal(signal.SIGTERM)
    server.wait()


def settle(client: Client) -> None:
    """Return when nothing is under way."""
    while (health := client.get("health"))["queued"] or health["busy"] or health["calls_in_flight"]:
        time.sleep(0.05)


def held(pid: int) -> tuple[int, int, int]:
    """Return resident KiB, threads and file descriptors."""
    return rss_kb(pid), threads(pid), files(pid)


def multiply(database: Path, times: int) -> None:
    """Copy every parked run, its snapshot, call and journal, `times - 1` times under new ids."""
    ids = Ids(lambda: time.time_ns() // 1_000)
    connection = apsw.Connection(str(database))
    connection.create_scalar_function("new_id", lambda *_: to_bytes(ids.new()))
    columns = {
        table: ", ".join(
            name for _, name, *_ in connection.execute(f"pragma table_info({table})") if name not in ("n", "id")
        )
        for table in ("run", "snapshot", "call", "journal")
    }
    ((top,),) = connection.execute("select max(n) from run")
    with connection:
        for copy in range(1, times):
            run = columns["run"]
            connection.execute(
                f"insert into run (n, id, {run}) select n + ?, new_id(), {run} from run where n <= ?", (copy * top, top)
            )
            for table in ("snapshot", "call", "journal"):
                rest = columns[table]
                connection.execute(
                    f"insert into {table} (n, {rest}) select n + ?, {rest} from {table} where n <= ?", (copy * top, top)
                )
    list(connection.execute("pragma wal_checkpoint(truncate)"))
    connection.close()


def opening(database: Path) -> float:
    """Return the milliseconds from an unopened file to a store that has looked for work."""
    from overwinter.adapters.sqlite import open_store
    from overwinter.clock import SystemClock

    async def opened() -> float:
        clock = SystemClock()
        key = (database.parent / "keys" / "snapshot.key").read_bytes()
        began = time.perf_counter()
        async with open_store(database, clock, Ids(clock.now_us), key=key) as store:
            leases = await store.claim()
            await store.ready(leases, 100)
            await store.performable(leases, 100)
            return 1e3 * (time.perf_counter() - began)

    return anyio.run(opened)


async def wakes(home: Path, runs: list[str]) -> float:
    """Return the median milliseconds from a message to the next committed await."""
    taken: list[float] = []
    async with App.open(home) as app:
        for run_id in runs:
            since = (await app.run(run_id)).events + 1
            await app.send(run_id, 1)
            began = time.perf_counter()
            await app.committed(run_id, since)
            taken.append(1e3 * (time.perf_counter() - began))
    return percentile(taken[50:], 0.5)
